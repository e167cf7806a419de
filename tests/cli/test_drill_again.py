"""The command line that a report gives to repeat its drill."""

from __future__ import annotations

import pytest

from lastcall.cli.drill_again import again


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--path", "/a b", "--", "x", "{port}"], "--path '/a b' -- x '{port}'"),
        (["--env", "TOKEN=secret", "--", "x"], "--env TOKEN=... -- x"),
        (["--env=TOKEN=secret", "--", "x"], "--env=TOKEN=... -- x"),
        (["--", "env", "--env", "A=b"], "-- env --env A=b"),
        (["--sweep", "5", "--span", "1s", "--seed=2", "--", "x"], "--at '{at}' -- x"),
        (["--sweep=5", "--count", "3", "--", "x"], "--count 3 --at '{at}' -- x"),
        (["--at", "0.1s,0.5s", "--", "x"], "--at '{at}' -- x"),
        (["--at", "0.5s", "--", "x", "--sweep", "3"], "--at 0.5s -- x --sweep 3"),
    ],
)
def test_it_repeats_one_drill_and_keeps_no_secret(words: list[str], expected: str) -> None:
    """Of a sweep one moment is repeated; what `--env` gave stands in no report."""
    assert again(["drill", "http", *words]) == f"lastcall drill http {expected}"
