"""The count of many stops, and the file in which it is kept."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drill.results import inconclusive, keeping, losing
from lastcall.drill.history import Kind
from lastcall.drill.installed import Found
from lastcall.drill.judge import NOT_ENDED, Fate, Verdict
from lastcall.drill.servers import Server
from lastcall.drill.tally import Tally
from lastcall.drill.tally_file import (
    CannotKeep,
    identity,
    kept_in,
    load,
    path_of,
    save,
    source_digest,
)
from lastcall.drill.together import together

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lastcall.drill.result import Result

SERVER = Server("one", ("{python}", "-m", "one"))
FOUND = Found(SERVER, "one 1.0", ("python", "-m", "one"), ())
TWIN = Found(replace(SERVER, name="one, with lastcall", beside="one"), "one 1.0", (), ())


def counted(*results: Result, unreached: tuple[Kind, ...] = ()) -> Tally:
    """The count of these."""
    tally = Tally()
    for result in results:
        tally = tally.added(result, unreached, 1.5, "exit status 0")
    return tally


@pytest.mark.parametrize(
    ("make", "stops", "losing_stops", "unsaid"),
    [(keeping, 1, 0, 0), (losing, 1, 1, 0), (inconclusive, 0, 0, 1)],
)
def test_only_what_said_something_counts(
    make: Callable[[], Result], stops: int, losing_stops: int, unsaid: int
) -> None:
    """An inconclusive stop is counted beside the others and is never a pass."""
    tally = counted(make())
    assert (tally.stops, tally.losing, tally.unsaid) == (stops, losing_stops, unsaid)
    assert tally.number == 2
    assert (not tally.fates) == (stops == 0)


def test_a_pass_needs_every_state() -> None:
    """A stop that lost nothing and missed a state says nothing; one that lost work still does."""
    assert counted(keeping(), unreached=(Kind.SILENT,)).unsaid == 1
    assert counted(losing(), unreached=(Kind.SILENT,)).losing == 1
    [detail] = counted(keeping(), unreached=(Kind.SILENT,)).details
    assert detail.reasons[0] == "not reached: silent"


@pytest.mark.parametrize(
    ("results", "wanted", "verdict"),
    [
        ((keeping, keeping), 2, Verdict.KEEPS),
        ((keeping,), 2, Verdict.INCONCLUSIVE),
        ((keeping, inconclusive), 2, Verdict.INCONCLUSIVE),
        ((keeping, losing), 9, Verdict.LOSES),
        ((), 0, Verdict.INCONCLUSIVE),
    ],
)
def test_the_verdict_of_many_stops(
    results: tuple[Callable[[], Result], ...], wanted: int, verdict: Verdict
) -> None:
    """One loss is enough; nothing lost counts only once enough stops have said so."""
    assert counted(*(make() for make in results)).verdict(wanted) is verdict


def test_attempts_are_added_up() -> None:
    """Each attempt after the stop is in the count once, under what it came to."""
    result = losing()
    once, twice = counted(result), counted(result, result)
    after = [
        j
        for j in result.judgement.judged
        if j.attempt.kind is not Kind.NEWCOMER or j.attempt.attempted_s > 0
    ]
    assert sum(once.of(Kind).values()) == len(after)
    assert once.bad == sum(j.fate in {Fate.LOST, Fate.REFUSED_BADLY, Fate.HUNG} for j in after) > 0
    assert twice.bad == 2 * once.bad
    assert {kind: 2 * n for kind, n in once.of(Kind).items()} == dict(twice.of(Kind))
    assert twice.ends == {"exit status 0": 2}
    assert len(twice.ended_s) == 2
    assert twice.took_s == 3.0
    assert twice.causes


def test_reasons_are_faults_without_their_numbers() -> None:
    """`3 x` and `2 x` of the same are the same; what was not tested is no fault."""
    result = losing()
    said = (
        "2 x in the handler: lost",
        NOT_ENDED,
        "not reached, so not tested: x",
        "left behind: 7",
    )
    other = ("3 x in the handler: lost", "left behind: 8")
    tally = counted(
        *(replace(result, judgement=replace(result.judgement, reasons=r)) for r in (said, other))
    )
    assert tally.reasons == {
        "in the handler: lost": 2,
        NOT_ENDED: 1,
        "left behind: processes of it": 2,
    }


def test_details_are_few() -> None:
    """A server that always loses fills no disk, and still shows what else happened to it."""
    tally = counted(*[losing()] * 30, inconclusive())
    assert len(tally.details) == 11
    assert tally.details[0].number == 1
    assert tally.details[-1].verdict == Verdict.INCONCLUSIVE
    failed = tally.failed("no room", ("a", "b"), 0.1)
    assert (failed.unsaid, failed.details[-1].reasons) == (2, ("no room",))


# -- kept


ABOUT = dict.fromkeys(("server", "python", "lastcall", "probe", "drill"), "x")


def file_of(folder: Path, *results: Result) -> tuple[str, Tally]:
    """A count that was kept, and where."""
    path = path_of(str(folder), "one")
    tally = counted(*results)
    save(path, ABOUT, tally)
    return path, tally


def test_a_count_is_kept_and_read_back(tmp_path: Path) -> None:
    """What was kept is the same, and nobody else's to read."""
    path, tally = file_of(tmp_path, keeping(), losing(), inconclusive())
    kept = load(path, ABOUT)
    assert (kept.tally, kept.anew) == (tally, "")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert os.listdir(tmp_path) == ["one.json"]
    assert load(path_of(str(tmp_path), "other"), ABOUT).tally == Tally()


@pytest.mark.parametrize("name", sorted(ABOUT))
def test_a_count_of_something_else_is_not_added_to(tmp_path: Path, name: str) -> None:
    """Another version, source, application or traffic: begun anew, and it says why."""
    path, _ = file_of(tmp_path, keeping())
    kept = load(path, {**ABOUT, name: "y"})
    assert kept.tally == Tally()
    assert "not the same any more: " in kept.anew


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row.pop("tally"),
        lambda row: row.pop("about"),
        lambda row: row.update(format=0),
        lambda row: row["tally"].update(losing=99),
        lambda row: row["tally"].update(stops="many"),
        lambda row: row["tally"].update(more=1),
        lambda row: row["tally"].update(fates={"no-such": {}}),
        lambda row: row["tally"]["fates"].update({"silent": {"no such": 1}}),
        lambda row: row["tally"].update(details=[{}]),
        lambda row: row["tally"].update(ended_s=None),
    ],
)
def test_a_damaged_count_is_begun_anew(
    tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    """What cannot have been a count is none, and that is said."""
    path, _ = file_of(tmp_path, keeping(), losing())
    row = json.loads((tmp_path / "one.json").read_text())
    change(row)
    (tmp_path / "one.json").write_text(json.dumps(row))
    kept = load(path, ABOUT)
    assert kept.tally == Tally()
    assert kept.anew


@given(st.data())
def test_any_bytes_are_no_crash(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A file that was cut or torn is a count begun anew, or says what it said before."""
    folder = tmp_path_factory.mktemp("torn")
    path, tally = file_of(folder, keeping())
    raw = (folder / "one.json").read_bytes()
    at = data.draw(st.integers(0, len(raw) - 1))
    (folder / "one.json").write_bytes(raw[:at] + data.draw(st.binary(max_size=5)))
    kept = load(path, ABOUT)
    assert kept.tally == (Tally() if kept.anew else tally)


def test_no_file_is_a_clear_error(tmp_path: Path) -> None:
    """A folder in its place is named, and so is one that cannot be written to."""
    os.mkdir(tmp_path / "one.json")
    with pytest.raises(CannotKeep, match="cannot be read"):
        load(path_of(str(tmp_path), "one"), ABOUT)
    with pytest.raises(CannotKeep, match="cannot be written"):
        save(path_of(str(tmp_path / "none"), "one"), ABOUT, Tally())


def test_two_do_not_count_in_one_folder(tmp_path: Path) -> None:
    """The second is told; once the first is done, it may."""
    folder = str(tmp_path / "new" / "kept")
    with kept_in(folder), pytest.raises(CannotKeep, match="another lastcall"), kept_in(folder):
        pass
    with kept_in(folder):
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotKeep, match="cannot be used"), kept_in(str(tmp_path / "file")):
        pass


def test_what_a_count_is_about() -> None:
    """Lastcall's source matters only to those that run with it; the traffic matters to all."""
    scenario = together(SERVER)
    bare, twin = identity(FOUND, scenario, "TERM"), identity(TWIN, scenario, "TERM")
    assert set(bare) == set(ABOUT)
    assert bare["lastcall"] == ""
    assert twin["lastcall"]
    assert bare == identity(FOUND, scenario, "TERM")
    assert bare["drill"] != identity(FOUND, scenario, "INT")["drill"]
    assert bare["drill"] != identity(FOUND, replace(scenario, states=()), "TERM")["drill"]


def test_a_digest_is_of_the_sources_alone(tmp_path: Path) -> None:
    """Text and names count; compiled files and times do not."""
    (tmp_path / "a.py").write_text("1")
    before = source_digest(str(tmp_path))
    (tmp_path / "a.pyc").write_text("x")
    os.utime(tmp_path / "a.py", (0, 0))
    assert source_digest(str(tmp_path)) == before
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    renamed = source_digest(str(tmp_path))
    (tmp_path / "b.py").write_text("2")
    assert len({before, renamed, source_digest(str(tmp_path))}) == 3
