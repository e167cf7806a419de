"""What machines read of a drill: JUnit XML and JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from drill import results
from lastcall.drill.experiment import Drilled
from lastcall.drill.report import junit
from lastcall.drill.report.data import as_plain, sweep_as_plain
from lastcall.drill.sweep import Sweep, Try

if TYPE_CHECKING:
    from collections.abc import Callable

    from lastcall.drill.result import Result

# The elements and attributes of junit-10.xsd that we use, and what may stand in what.
CHILDREN = {
    "testsuite": ["properties", "testcase", "system-out"],
    "properties": ["property"],
    "testcase": ["skipped", "failure", "error", "system-out"],
}
ATTRIBUTES = {
    "testsuite": {"name", "tests", "failures", "errors", "skipped", "time"},
    "property": {"name", "value"},
    "testcase": {"name", "classname", "time"},
    "failure": {"message", "type"},
    "error": {"message", "type"},
    "skipped": {"message"},
}


def check(element: ET.Element) -> None:
    """An element and what is in it follow the schema."""
    assert set(element.attrib) == ATTRIBUTES.get(element.tag, set()), element.tag
    allowed = CHILDREN.get(element.tag, [])
    order = [allowed.index(child.tag) for child in element]
    assert order == sorted(order)
    for child in element:
        check(child)


def cases(suite: ET.Element, tag: str) -> dict[str, str]:
    """The messages of all cases with such a child, by name."""
    return {
        str(case.get("name")): str(child.get("message"))
        for case in suite.findall("testcase")
        for child in case.findall(tag)
    }


@pytest.mark.parametrize("made", results.ALL)
def test_every_file_follows_the_schema(made: Callable[[], Result]) -> None:
    """It can be parsed whatever strangers wrote, and its counts are right."""
    suite = ET.fromstring(junit.render(made()))  # noqa: S314 (we wrote it)
    check(suite)
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(suite.get(name, "")) == len(suite.findall(f"testcase/{tag}"))
    assert int(suite.get("tests", "")) == len(suite.findall("testcase"))


def test_a_state_that_lost_has_failed_and_an_untested_one_is_skipped() -> None:
    """Each with its message; what was not reached is never a pass."""
    suite = ET.fromstring(junit.render(results.losing()))  # noqa: S314 (we wrote it)
    failed, skipped = cases(suite, "failure"), cases(suite, "skipped")
    assert failed["in the handler"] == (
        "20 attempts: 20 lost, ledger: 3 executed but unanswered, 2 half executed, 15 never started"
    )
    assert "newcomer" not in failed
    assert skipped["TLS handshake half done"] == "not reached, so not tested"
    assert skipped["HTTP/2 stream"] == "not offered, so not tested"
    text = suite.findtext("testcase[@name='in the handler']/failure") or ""
    assert "Nothing handles SIGTERM" in text
    assert "#1 lost (reset) at +0.0121 s, executed" in text


def test_a_server_that_keeps_its_word_passes() -> None:
    """No failure, no error, nothing skipped."""
    suite = ET.fromstring(junit.render(results.keeping()))  # noqa: S314 (we wrote it)
    assert [suite.get(name) for name in ("failures", "errors", "skipped")] == ["0", "0", "0"]
    assert suite.get("tests") == "12"


def test_an_inconclusive_drill_is_an_error_and_passes_nothing() -> None:
    """CI must not take it for green."""
    suite = ET.fromstring(junit.render(results.inconclusive()))  # noqa: S314 (we wrote it)
    assert cases(suite, "error") == {
        "the server ends in order": "It proves nothing: the server never got ready."
    }
    assert len(suite.findall("testcase/skipped")) == 2


def test_a_server_that_does_not_end_fails_as_a_whole() -> None:
    """Beside its states."""
    suite = ET.fromstring(junit.render(results.huge()))  # noqa: S314 (we wrote it)
    assert "the server ends in order" in cases(suite, "failure")


def test_the_data_have_stable_names() -> None:
    """What a script may rely on."""
    data = as_plain(results.losing())
    assert list(data) == [
        "event",
        "verdict",
        "sentence",
        "reasons",
        "exit_code",
        "subject",
        "again",
        "total",
        "states",
        "not_reached",
        "not_offered",
        "findings",
        "moments",
        "aftermath",
        "clock_error_s",
    ]
    assert (data["event"], data["verdict"], data["exit_code"]) == ("drill", "loses work", 7)
    states = {state["state"]: state for state in data["states"]}  # type: ignore[attr-defined]
    assert states["in-handler"] == {
        "state": "in-handler",
        "attempts": 20,
        "acknowledged": 0,
        "refused_cleanly": 0,
        "let_go": 0,
        "refused_badly": 0,
        "lost": 20,
        "hung": 0,
        "unproven": 0,
        "ledger": {
            "executed_unanswered": 3,
            "half_executed": 2,
            "never_started": 15,
            "executed_twice": 0,
            "unknown": 0,
        },
    }
    assert data["not_reached"] == ["expect-continue", "tls-half"]
    assert data["not_offered"] == ["http2-stream"]


@pytest.mark.parametrize("made", results.ALL)
def test_all_data_are_json(made: Callable[[], Result]) -> None:
    """Plain types only, so that it comes back as it was."""
    data = as_plain(made())
    assert json.loads(json.dumps(data)) == data


def test_a_sweep_names_its_rate_and_its_worst() -> None:
    """Every try in a line, the worst one in full."""
    tries = (Try(0.1, Drilled(results.keeping(), ())), Try(0.2, Drilled(results.losing(), ())))
    data = sweep_as_plain(Sweep(tries, 7))
    assert (data["rate"], data["seed"], data["exit_code"]) == (0.5, 7, 7)
    assert data["tries"][1] == {  # type: ignore[index]
        "moment_s": 0.2,
        "closer": False,
        "verdict": "loses work",
        "lost": 29,
    }
    assert data["worst"]["verdict"] == "loses work"  # type: ignore[index]
    assert json.loads(json.dumps(data)) == data
