"""What many stops of one server came to, counted stop by stop. Pure.

A stop counts when it said something: when it lost work, or when it lost none and every state that
this server can be brought to was reached. All others are inconclusive: counted beside, repeated,
never passed.
"""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import field, replace
from typing import TYPE_CHECKING

from lastcall.drill.history import Kind
from lastcall.drill.judge import BAD, NOT_ENDED, Fate, Verdict
from lastcall.drill.sweep import wilson
from lastcall.model import Severity
from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lastcall.drill.result import Result

LEFT_BEHIND = "left behind:"
# Enough to see what goes wrong; a server that loses at every stop must not fill the disk.
_DETAILS = 10
_TEXTS = 40
_OUTPUT_LINES = 20


@record
class Detail:
    """One stop that lost work, or said nothing.

    Args:
        number: of the stop, from 1, the inconclusive ones included.
        verdict: of it.
        reasons: of the verdict.
        causes: why, as the findings say.
        output: the last lines of the server.
    """

    number: int
    verdict: str
    reasons: tuple[str, ...]
    causes: tuple[str, ...] = ()
    output: tuple[str, ...] = ()


@record
class Tally:
    """The count so far.

    Args:
        stops: how many said something.
        losing: how many of them lost work, refused it badly, hung or did not end.
        unsaid: how many said nothing, and were repeated.
        unsaid_losing: how many of those had lost something, too.
        fates: how many attempts of each kind came to which fate, in the stops that said something;
            by `Kind.key` and the fate's word. Newcomers: those after the stop.
        missed: in how many of the stops a state was not reached, by `Kind.key`.
        reasons: what went wrong in how many of the stops, without the numbers.
        causes: the findings of the losing stops: code, then title and advice of the first one.
        ends: how the server ended, in words, and how often.
        ended_s: how long after the stop it ended, for each, in seconds; those that did not: none.
        took_s: how long all stops took together with the starts, in seconds.
        details: of some that lost or said nothing, the first ones.
    """

    stops: int = 0
    losing: int = 0
    unsaid: int = 0
    unsaid_losing: int = 0
    fates: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    missed: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    causes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    ends: Mapping[str, int] = field(default_factory=dict)
    ended_s: tuple[float, ...] = ()
    took_s: float = 0.0
    details: tuple[Detail, ...] = ()

    @property
    def interval(self) -> tuple[float, float]:
        """Between which rates that of losing stops lies with 95 % confidence."""
        return wilson(self.losing, self.stops)

    @property
    def number(self) -> int:
        """Of the next stop."""
        return self.stops + self.unsaid + 1

    @property
    def bad(self) -> int:
        """How many attempts were lost, refused badly, or hung."""
        return sum(self.count(fate) for fate in BAD)

    def count(self, fate: Fate) -> int:
        """How many attempts came to this fate."""
        return sum(each.get(fate.value, 0) for each in self.fates.values())

    def of(self, kinds: Iterable[Kind]) -> Counter[Fate]:
        """The fates of the attempts of these kinds."""
        found = Counter[Fate]()
        for kind in kinds:
            for word, number in self.fates.get(kind.key, {}).items():
                found[Fate(word)] += number
        return found

    @property
    def end_s(self) -> tuple[float, float] | None:
        """When it ended: the median and the latest, in seconds after the stop; None: never."""
        if not self.ended_s:
            return None
        return statistics.median(self.ended_s), max(self.ended_s)

    def verdict(self, wanted: int) -> Verdict:
        """What it says of the server.

        Args:
            wanted: how many stops had to say something.
        """
        if self.losing:
            return Verdict.LOSES
        return Verdict.KEEPS if self.stops >= wanted > 0 else Verdict.INCONCLUSIVE

    # -- one stop more

    def added(self, result: Result, unreached: Sequence[Kind], took_s: float, end: str) -> Tally:
        """With one more stop.

        Args:
            result: of it.
            unreached: the states that were not reached, though this server can be.
            took_s: how long it took, with the start, in seconds.
            end: how the server ended, in words.
        """
        judgement = result.judgement
        if judgement.verdict is Verdict.INCONCLUSIVE:
            lost = any(_after(j.fate, j.attempt.over_s) for j in judgement.judged)
            return self._said_nothing(result, judgement.reasons, took_s, lost=lost)
        if judgement.verdict is Verdict.KEEPS and unreached:
            why = f"not reached: {', '.join(kind.key for kind in unreached)}"
            return self._said_nothing(result, (why, *judgement.reasons), took_s)
        losing = judgement.verdict is Verdict.LOSES
        ended_s = result.aftermath.ended_s
        return replace(
            self,
            stops=self.stops + 1,
            losing=self.losing + losing,
            fates=_more_fates(self.fates, result),
            missed=_more(self.missed, [kind.key for kind in judgement.not_reached]),
            reasons=_more(self.reasons, _faults_of(judgement.reasons) if losing else ()),
            causes=_more_causes(self.causes, result),
            ends=_more(self.ends, [end]),
            ended_s=self.ended_s if ended_s is None else (*self.ended_s, round(ended_s, 3)),
            took_s=round(self.took_s + took_s, 2),
            details=self._detailed(result, judgement.reasons) if losing else self.details,
        )

    def failed(self, what: str, evidence: Sequence[str], took_s: float) -> Tally:
        """With one more stop that could not be made at all.

        Args:
            what: the reason.
            evidence: what it rests on.
            took_s: how long it took, in seconds.
        """
        detail = Detail(self.number, "not made", (what,), output=tuple(evidence)[-_OUTPUT_LINES:])
        return replace(
            self,
            unsaid=self.unsaid + 1,
            took_s=round(self.took_s + took_s, 2),
            details=self._with(detail),
        )

    def _said_nothing(
        self, result: Result, reasons: Sequence[str], took_s: float, *, lost: bool = False
    ) -> Tally:
        return replace(
            self,
            unsaid=self.unsaid + 1,
            unsaid_losing=self.unsaid_losing + lost,
            took_s=round(self.took_s + took_s, 2),
            details=self._detailed(result, reasons),
        )

    def _detailed(self, result: Result, reasons: Sequence[str]) -> tuple[Detail, ...]:
        causes = tuple(f"{f.code}: {f.title}" for f in result.findings)
        output = result.aftermath.output[-_OUTPUT_LINES:]
        evidence = tuple(line for f in result.findings for line in f.evidence)
        said = output or evidence[-_OUTPUT_LINES:]
        verdict = f"{result.judgement.verdict}"
        return self._with(Detail(self.number, verdict, tuple(reasons), causes, said))

    def _with(self, detail: Detail) -> tuple[Detail, ...]:
        """The first of each verdict stay; one more of it does not push out the others."""
        alike = sum(each.verdict == detail.verdict for each in self.details)
        return self.details if alike >= _DETAILS else (*self.details, detail)


def _after(fate: Fate, over_s: float) -> bool:
    return fate in BAD and over_s > 0


def _more(before: Mapping[str, int], more: Iterable[str]) -> dict[str, int]:
    """One more of each; what is new beyond a limit is left out: texts may differ for ever."""
    found = dict(before)
    for text in more:
        if text in found or len(found) < _TEXTS:
            found[text] = found.get(text, 0) + 1
    return found


def _faults_of(reasons: Iterable[str]) -> list[str]:
    """What went wrong, without its numbers, each once: `half of the headers sent: lost (closed)`.

    The other reasons of a verdict tell what was not tested.
    """
    bare = []
    for reason in reasons:
        first, _, rest = reason.partition(" ")
        if first.isdigit():
            bare.append(rest.removeprefix("x "))
        elif reason.startswith(LEFT_BEHIND):
            bare.append(f"{LEFT_BEHIND} processes of it")
        elif reason == NOT_ENDED:
            bare.append(reason)
    return list(dict.fromkeys(bare))


def _more_fates(
    before: Mapping[str, Mapping[str, int]], result: Result
) -> dict[str, dict[str, int]]:
    found = {key: dict(fates) for key, fates in before.items()}
    for judged in result.judgement.judged:
        attempt = judged.attempt
        if attempt.kind is Kind.NEWCOMER and attempt.attempted_s <= 0:
            continue
        of = found.setdefault(attempt.kind.key, {})
        of[judged.fate.value] = of.get(judged.fate.value, 0) + 1
    return found


def _more_causes(
    before: Mapping[str, tuple[str, str]], result: Result
) -> Mapping[str, tuple[str, str]]:
    found = dict(before)
    for finding in result.findings:
        if finding.severity is not Severity.NOTE:
            found.setdefault(finding.code, (finding.title, finding.advice))
    return found
