"""Spans and metrics of a shutdown, as the libraries of the application get them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import pytest

from helpers import PATIENCE_S, python

PHASES = ["announce", "drain", "work", "close", "flush"]


def run(*words: str, code: int = 0) -> tuple[list[dict[str, Any]], str]:
    """The spans that were exported, by the end of the process, and what else it said."""
    done = subprocess.run(
        python("app_telemetry.py", *words),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == code, done.stderr
    lines = done.stdout.splitlines()
    spans = [json.loads(line) for line in lines if line.startswith("{")]
    return spans, "\n".join(line for line in lines if not line.startswith("{"))


def by_name(spans: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """No name comes twice."""
    found = {span["span"]: span for span in spans}
    assert len(found) == len(spans)
    return found


def test_a_shutdown_is_a_tree_of_spans() -> None:
    """The whole, each phase, each hook; what failed says why; the times are those of the stop."""
    before = time.time()
    spans = by_name(run("spans")[0])
    root = spans["shutdown"]
    assert root["parent"] is None
    assert root["attributes"]["lastcall.reason"] == "the main code returned"
    assert (root["status"], root["why"]) == ("ERROR", "'fails' failed")
    phases = [spans[f"shutdown {name}"] for name in PHASES]
    assert {phase["parent"] for phase in phases} == {root["id"]}
    assert [phase["began"] for phase in phases] == sorted(phase["began"] for phase in phases)
    assert before - 1 < root["began"] <= phases[0]["began"] < time.time() + 1
    hook = spans["hook fails"]
    assert hook["parent"] == spans["shutdown work"]["id"]
    assert hook["status"] == "ERROR"
    assert "no such table" in hook["why"]
    assert hook["attributes"]["lastcall.outcome"] == "failed"
    assert "app_telemetry.py" in hook["attributes"]["lastcall.where"]
    assert "hook spans so far" not in spans


@pytest.mark.parametrize("order", [(), ("reverse",)])
def test_a_flush_hook_that_shuts_the_provider_down_takes_them_along(order: tuple[str, ...]) -> None:
    """All but the phase `flush` itself: nothing can be exported after that."""
    spans = by_name(run("spans", "flush", *order)[0])
    assert set(spans) >= {"shutdown", "hook fails", *(f"shutdown {name}" for name in PHASES[:-1])}
    assert "shutdown flush" not in spans


def test_a_hook_that_is_cut_off_is_a_span_that_says_where_it_sat() -> None:
    """Also when it never comes back."""
    spans = by_name(run("spans", "hang", code=22)[0])
    hook = spans["hook hangs"]
    assert hook["attributes"]["lastcall.outcome"] == "cut off"
    assert hook["attributes"]["lastcall.waiting_for"].startswith("time.sleep(600)")
    assert hook["took_s"] > 0.4
    assert spans["shutdown close"]["status"] == "ERROR"
    assert spans["shutdown"]["attributes"]["lastcall.cut_off"] == ["hook 'hangs'"]


def test_metrics_are_read_whenever_somebody_scrapes() -> None:
    """While it runs the state and what is in flight; then each phase and hook."""
    said = run("metrics")[1]
    running, stopping = said.split("lastcall_extensions")[0].split("lastcall_state gauge")[1:]
    assert 'lastcall_state{state="running"} 1.0' in running
    assert "lastcall_in_flight 1.0" in running
    assert "lastcall_shutdown_seconds" not in running
    assert 'lastcall_state{state="stopping"} 1.0' in stopping
    assert "lastcall_in_flight 0.0" in stopping
    assert 'lastcall_shutdown_phase_seconds{phase="work"}' in stopping
    assert 'lastcall_hook_seconds{hook="fails",outcome="failed",phase="work"}' in stopping


def test_nothing_is_loaded_that_the_application_does_not_have() -> None:
    """Neither the libraries nor what speaks to them."""
    assert run()[1] == "loaded []"


def test_two_lifecycles_of_a_process_show_one_set_of_metrics() -> None:
    """The later takes the place of the earlier; a second registration would be an error."""
    code = (
        "import prometheus_client\n"
        "from lastcall import Lifecycle\n"
        "for _ in range(2):\n"
        "    with Lifecycle(exit_with='nothing'):\n"
        "        pass\n"
        "text = prometheus_client.generate_latest().decode()\n"
        "print(text.count('lastcall_in_flight 0.0'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    assert done.stdout.strip() == "1"
