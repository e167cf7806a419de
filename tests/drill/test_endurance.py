"""One server, stopped again and again: real servers, and what their stops came to."""

from __future__ import annotations

import asyncio
import itertools
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from drill.results import keeping, losing
from lastcall.drill import tally_file
from lastcall.drill.before_after import end_of, lost_of, never_reached, notes_of, pairs, table
from lastcall.drill.endurance import Endured, Wanted, endure
from lastcall.drill.history import Kind
from lastcall.drill.judge import Fate, Verdict
from lastcall.drill.servers import Server
from lastcall.drill.tally import Tally

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from lastcall.drill.installed import Found

PROBE = ("{python}", "-P", "-m")
CAREFUL = Server("careful", (*PROBE, "lastcall.drill.probe.careful", "{port}"), beside="careless")
CARELESS = Server("careless", (*PROBE, "lastcall.drill.probe.careless", "{port}"))


def endured(server: Server, wanted: Wanted) -> tuple[Endured, list[Endured]]:
    """What a server's stops came to, and all that was told on the way."""
    told: list[Endured] = []
    return asyncio.run(endure(server, wanted, told.append)), told


def steps(told: list[Endured]) -> list[int]:
    """How the count went on; a stop that said nothing, on a busy machine, is no step."""
    return [stops for stops, _ in itertools.groupby(row.tally.stops for row in told)]


def test_a_server_with_a_good_end_and_one_without() -> None:
    """The careful one keeps its word in all states at once; the careless one loses its work."""
    row, told = endured(CAREFUL, Wanted(2))
    assert (row.verdict, row.tally.losing, row.tally.bad) == (Verdict.KEEPS, 0, 0), row
    assert steps(told) == [0, 1, 2]
    assert row.tally.of([Kind.IN_HANDLER])[Fate.ACKNOWLEDGED] >= 20
    assert row.tally.of([Kind.BACKLOG, Kind.JUST_SENT])[Fate.ACKNOWLEDGED] == 8
    assert row.tally.of([Kind.NEWCOMER])[Fate.REFUSED_CLEANLY]
    row, _ = endured(CARELESS, Wanted(1))
    assert (row.verdict, row.tally.stops, row.tally.losing) == (Verdict.LOSES, 1, 1), row
    assert row.tally.of([Kind.IN_HANDLER])[Fate.LOST] >= 10
    assert "no-handler" in row.tally.causes


def test_what_was_kept_is_gone_on_from(tmp_path: Path) -> None:
    """Finished stops count in the next run, and in a run that wants no more none is made."""
    wanted = Wanted(1, keep=str(tmp_path))
    endured(CAREFUL, wanted)
    row, told = endured(CAREFUL, replace(wanted, stops=2))
    assert steps(told) == [1, 2]
    again, told = endured(CAREFUL, replace(wanted, stops=2))
    assert len(told) == 1
    assert again.tally == row.tally
    other, _ = endured(CAREFUL, replace(wanted, patience_s=9.0))
    assert other.tally.stops == 1
    assert "how it is stopped" in other.anew


def test_an_interrupted_stop_costs_only_itself(tmp_path: Path) -> None:
    """What was finished before is in the file, also when we are ended in the middle of a stop."""

    async def interrupted() -> None:
        enough = asyncio.Event()

        def tell(row: Endured) -> None:
            if row.tally.stops == 1:
                enough.set()

        task = asyncio.create_task(endure(CAREFUL, Wanted(50, keep=str(tmp_path)), tell))
        waiting = asyncio.create_task(enough.wait())
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0)  # the next stop begins
        task.cancel()
        await asyncio.gather(task, waiting, return_exceptions=True)

    asyncio.run(interrupted())
    kept = json.loads((tmp_path / "careful.json").read_text())
    assert kept["tally"]["stops"] == 1


def test_a_server_that_never_starts_is_given_up() -> None:
    """It is tried a few times, and what it said last is told."""
    broken = Server("broken", (*PROBE, "lastcall.no_such_module", "{port}"))
    row, _ = endured(broken, Wanted(20))
    assert row.verdict is Verdict.INCONCLUSIVE
    assert (row.tally.stops, row.tally.unsaid) == (0, 5)
    assert "no_such_module" in row.missing


def test_what_is_not_installed_is_told() -> None:
    """A missing package is the reason, and nothing is counted."""
    row, told = endured(Server("x", ("x",), packages=("no-such",)), Wanted(2))
    assert "no-such" in row.missing
    assert not told
    assert row.tally == Tally()


def test_a_source_that_changes_meanwhile_begins_the_count_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stops of before and after a change are never mixed."""
    known = tally_file.identity
    asked = 0

    def identity(found: Found, *rest: object) -> dict[str, str]:
        nonlocal asked
        asked += 1
        return {**known(found, *rest), "lastcall": "old" if asked < 3 else "new"}  # type: ignore[arg-type]

    monkeypatch.setattr(tally_file, "identity", identity)
    row, told = endured(CAREFUL, Wanted(2))
    assert steps(told)[-3:] == [0, 1, 2]
    assert row.tally.number <= asked - 2
    assert "changed" in row.anew


def test_how_many_stops() -> None:
    """A server as it comes is stopped less often than one with lastcall, unless told."""
    assert Wanted().stops_of(CARELESS) == 20
    assert Wanted().stops_of(CAREFUL) == 200
    assert Wanted(3).stops_of(CAREFUL) == 3


# -- before and after


def row_of(server: Server, wanted: int, *, loses: int = 0, keeps: int = 0) -> Endured:
    """A server with made up stops."""
    tally = Tally()
    for result in [*[losing()] * loses, *[keeping()] * keeps]:
        tally = tally.added(result, (), 1.0, "exit status 0")
    return Endured(server, wanted, "x 1.0", tally)


def test_the_table_has_a_line_a_server() -> None:
    """What it lost without stands beside what it lost with; a pass is set in bold."""
    rows = [row_of(CARELESS, 2, loses=2), row_of(CAREFUL, 3, keeps=3)]
    [pair] = pairs([*reversed(rows)])
    assert (pair.name, pair.bare, pair.twin) == ("careless", *rows)
    lines = table(rows).splitlines()
    assert [line for line in lines if line.startswith("|")] == [*lines[:2], lines[2]]
    assert {line.count("|") for line in lines[:3]} == {8}
    assert "| careless | 2 of 2 (34.2 to 100 %) | in flight" in lines[2]
    assert "| **0 of 3 (0 to 56" in lines[2]
    assert "lost" not in lines[2].split("|")[5]


def test_a_table_hides_nothing() -> None:
    """Losses with lastcall, stops that are missing and servers without any are all told."""
    bad = row_of(CAREFUL, 200, loses=1, keeps=5)
    text = table([row_of(CARELESS, 20), bad, Endured(Server("c", ("c",)), 20, missing="none")])
    assert "1 of 6 (" in text
    assert "200 were wanted" in text
    assert "**1 of 6" not in text
    assert "- 1 stop: " in text
    assert all(code in text for code in bad.tally.causes)
    assert "not drilled: none" in text
    assert "| careless | not drilled |" in text


def test_what_was_never_reached_is_told() -> None:
    """A state that no stop reached is named; one that some stop reached is not."""
    tally = replace(Tally(), stops=3, missed={"silent": 3, "events": 2}, unsaid=2, unsaid_losing=1)
    assert never_reached(tally) == [Kind.SILENT]
    said = dict(notes_of(Endured(CAREFUL, 3, tally=tally)))
    assert said["never reached"] == "silent"
    assert said["repeated"] == "2 stops that proved nothing, 1 of which had lost something"


def test_the_words_of_a_cell() -> None:
    """Losses by column with how many there were, what concerns the whole, and the ends."""
    counts = {"silent": {"lost": 2, "let go": 1}, "events": {"hung": 1}, "backlog": {"lost": 0}}
    reasons = {"half executed: paid, and no order made": 2, f"{Kind.SILENT}: lost (reset)": 2}
    ended = {"exit status 0": 2, "not ended in time": 1}
    tally = replace(Tally(), stops=3, fates=counts, reasons=reasons, ends=ended)
    assert lost_of(tally) == (
        "half sent 2 lost of 3; streams 1 hung of 1; half executed: paid, and no order made"
    )
    assert end_of(replace(tally, ended_s=(0.1, 0.5))) == (
        "0.30 s, 0.50 s at most; 1 times not in time"
    )
    assert end_of(tally) == "not in time"
    assert end_of(Tally()) == ""
