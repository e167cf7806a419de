"""A drill as JUnit XML, for CI: a test case a state, and one for the server as a whole.

Source: the schema of Jenkins' xunit plugin (junit-10.xsd), as most readers of such files follow it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from lastcall.drill.judge import BAD, NOT_ENDED, Fate, Verdict, Work
from lastcall.drill.report import counts
from lastcall.drill.report.words import ending, many, sentence

if TYPE_CHECKING:
    from lastcall.drill.history import Kind
    from lastcall.drill.report.counts import Row
    from lastcall.drill.result import Result

CLASS = "lastcall.drill"
_MOST_LINES = 50
# What XML 1.0 cannot hold at all, not even escaped (section 2.2).
_NO_CHARACTER = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(result: Result) -> str:
    """The file.

    A state that lost something has failed; one that was not reached or is not offered is skipped,
    never passed. An inconclusive drill is an error, and all that did not fail in it is skipped.

    Args:
        result: of a drill.
    """
    suite = ET.Element("testsuite", name=CLASS)
    _properties(suite, result)
    _whole(suite, result)
    unsure = result.judgement.verdict is Verdict.INCONCLUSIVE
    for row in counts.rows(result):
        _tested(suite, row, result, unsure=unsure)
    for kind, reason in counts.untested(result):
        _child(_case(suite, f"{kind}"), "skipped", f"{reason}, so not tested")
    found = {name: len(suite.findall(f"testcase/{name}")) for name in ("failure", "error")}
    suite.set("tests", str(len(suite.findall("testcase"))))
    suite.set("failures", str(found["failure"]))
    suite.set("errors", str(found["error"]))
    suite.set("skipped", str(len(suite.findall("testcase/skipped"))))
    suite.set("time", f"{_took_s(result):.3f}")
    if output := result.aftermath.output:
        ET.SubElement(suite, "system-out").text = _safe("\n".join(output))
    ET.indent(suite)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(suite, encoding="unicode")}\n'


def _properties(suite: ET.Element, result: Result) -> None:
    properties = ET.SubElement(suite, "properties")
    known = {
        "verdict": f"{result.judgement.verdict}",
        "software": result.subject.software,
        "how": result.subject.how,
        "again": result.subject.again,
    }
    for name, value in known.items():
        ET.SubElement(properties, "property", name=name, value=_safe(value))


def _whole(suite: ET.Element, result: Result) -> None:
    """What no single state can tell: whether it was a drill at all, and how the server ended."""
    case = _case(suite, "the server ends in order")
    judgement = result.judgement
    of_states = any(row.at_fault for row in counts.rows(result))
    if judgement.verdict is Verdict.INCONCLUSIVE:
        _child(case, "error", sentence(result), "\n".join(judgement.reasons))
    elif NOT_ENDED in judgement.reasons or (judgement.verdict is Verdict.LOSES and not of_states):
        _child(case, "failure", sentence(result), _why(result))
    ET.SubElement(case, "system-out").text = _safe(ending(result.aftermath))


def _tested(suite: ET.Element, row: Row, result: Result, *, unsure: bool) -> None:
    case = _case(suite, f"{row.kind}")
    if row.at_fault:
        told = ", ".join(f"{row.fates[fate]:,} {fate}" for fate in Fate if row.fates[fate])
        words = [f"{many(row.total, 'attempt')}: {told}"]
        words += [f"ledger: {row.ledger}"] if row.ledger else []
        message = ", ".join(words)
        _child(case, "failure", message, "\n".join([*_bad(row.kind, result), "", _why(result)]))
    elif unsure:
        _child(case, "skipped", "the drill is inconclusive, so this proves nothing")


def _bad(kind: Kind, result: Result) -> list[str]:
    """The attempts that came to a bad end, a line each."""
    found = [
        j
        for j in result.judgement.judged
        if j.attempt.kind is kind and (j.fate in BAD or j.work in {Work.HALF, Work.TWICE})
    ]
    lines = []
    for each in found[:_MOST_LINES]:
        attempt = each.attempt
        how = f" ({attempt.failure})" if attempt.failure else ""
        known = "" if each.work is Work.UNKNOWN else f", {each.work}"
        lines.append(f"#{attempt.id} {each.fate}{how} at {attempt.over_s:+.4f} s{known}")
    rest = len(found) - len(lines)
    return [*lines, f"and {rest:,} more"] if rest else lines


def _why(result: Result) -> str:
    lines = [*result.judgement.reasons[:_MOST_LINES]]
    for finding in result.findings:
        lines.append(f"{finding.severity}: {finding.title}")
        lines += [f"  do: {finding.advice}"] if finding.advice else []
    lines += [f"again: {result.subject.again}"] if result.subject.again else []
    return "\n".join(lines)


def _took_s(result: Result) -> float:
    ends = [moment.at_s for moment in result.moments]
    return max(ends) - min(ends) if ends else 0.0


def _case(suite: ET.Element, name: str) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=CLASS, name=_safe(name), time="0")


def _child(case: ET.Element, tag: str, message: str, text: str = "") -> None:
    child = ET.SubElement(case, tag, message=_safe(message))
    if tag != "skipped":
        child.set("type", CLASS)
    child.text = _safe(text) or None


def _safe(text: str) -> str:
    """The text without what XML cannot hold."""
    return _NO_CHARACTER.sub("\N{REPLACEMENT CHARACTER}", text)
