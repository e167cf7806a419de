# Every target sets up what it needs: a fresh checkout needs nothing before `make demo`.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

# With the tools of the environment first, and start-stop-daemon and the like within reach.
IN_VENV := PATH="$(CURDIR)/.venv/bin:$$PATH:/usr/sbin:/sbin"

.PHONY: help setup demo test check docs bench servers guests lock upgrade clean

help:  ## show this
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 16

setup:  ## make .venv with the locked dependencies and lastcall
	@scripts/setup

demo:  ## see it stop four real processes and two virtual machines, and drill two servers
	@scripts/setup --for demo
	@$(IN_VENV) scripts/demo

test:  ## every gate and every test (PYTEST="-k word" narrows the tests)
	@scripts/setup --for test
	@$(IN_VENV) scripts/check
	@$(IN_VENV) scripts/test $(PYTEST)

check: setup  ## every gate that needs no running target: style, types, layers, docs, examples
	@$(IN_VENV) scripts/check

docs: setup  ## build the documentation into docs/_build/html
	@$(IN_VENV) sphinx-build -W --keep-going --quiet -b html docs docs/_build/html
	@echo docs/_build/html/index.html

bench:  ## measure, and write the table of docs/benchmarks.md
	@scripts/setup --for test
	@$(IN_VENV) python benchmarks/run.py $(BENCH)

servers:  ## drill every server we know, and write the table of docs/servers.md
	@scripts/setup --for test
	@mkdir -p build/spring
	@$(IN_VENV) python tests/spring_boot.py servers >build/spring/servers.toml
	@$(IN_VENV) python scripts/servers.py --also build/spring/servers.toml

guests:  ## stop every guest of the zoo 20 times, and write the tables of docs/guests-matrix.md
	@scripts/setup --for test
	@$(IN_VENV) python scripts/guests.py $(GUESTS)

lock: setup  ## write requirements/ anew after a change of the dependencies in pyproject.toml
	@$(IN_VENV) python scripts/lock.py
	@scripts/setup

upgrade: setup  ## the same, with the newest version of everything
	@$(IN_VENV) python scripts/lock.py --upgrade
	@scripts/setup

clean:  ## remove everything that was made here, the environment too
	@rm -rf .venv .tools build dist docs/_build .pytest_cache .mypy_cache .ruff_cache \
	  .import_linter_cache .hypothesis
	@find src tests scripts docs -name __pycache__ -type d -prune -exec rm -rf {} +
