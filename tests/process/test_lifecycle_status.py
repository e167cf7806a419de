"""What a lifecycle tells of itself: read with care, and shown by `lastcall check` and `stop`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.commands import lastcall
from helpers import python, victim
from lastcall.kernel.identity import Handle
from lastcall.model import Severity
from lastcall.targets.process.during import lifecycle
from lastcall.targets.process.during.lifecycle import LINE_BYTES, Snapshot, parse
from lastcall.targets.process.during.lifecyclewords import before, holdups, so_far

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cli.commands import Said

WHOLE = {
    "lastcall": 1,
    "name": "shop",
    "state": "stopping",
    "grace_s": 25.0,
    "ceiling_s": None,
    "reason": "SIGTERM",
    "since_s": 5.0,
    "left_s": 20.0,
    "phase": {"name": "drain", "left_s": 2.0},
    "hooks": [
        {
            "phase": "drain",
            "hook": "close_pool",
            "where": "/app/shop.py:31",
            "inner": False,
            "outcome": "running",
            "took_s": 4.2,
            "detail": "",
        }
    ],
    "stuck": [
        {
            "what": "hook 'close_pool'",
            "where": "/app/shop.py:31",
            "since_s": 4.2,
            "waiting_for": "lock `b` held by hook 'flush_cache'",
            "holders": ["hook 'flush_cache'"],
            "stack": ["/app/shop.py:33 in close_pool: with b:"],
        }
    ],
    "deadlocks": [],
    "looks": 3,
    "in_flight": {"count": 3, "oldest": [{"work": "GET /report", "age_s": 12.0}]},
    "extensions": [],
    "objections": [],
    "previous": "",
}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def snapshot(**more: object) -> Snapshot:
    """A snapshot in the middle of a stop, with some fields otherwise."""
    found = parse(json.dumps({**WHOLE, **more}).encode())
    assert found is not None
    return found


# -- reading


@given(st.binary(max_size=300))
def test_any_bytes_are_read_without_harm(raw: bytes) -> None:
    """What is not of the form is nothing."""
    assert parse(raw) is None


@given(st.dictionaries(st.sampled_from(sorted(WHOLE)), ANYTHING))
def test_any_fields_become_words_and_numbers(more: dict[str, object]) -> None:
    """Whatever stands in them, findings can be made of it, fit for a terminal."""
    found = parse(json.dumps({**WHOLE, "lastcall": 1, "state": "stopping", **more}).encode())
    if found is None:
        return
    for finding in (*holdups(1, found), *before(1, found, 10.0)):
        assert all(line.isprintable() for line in (finding.title, *finding.evidence))
        assert len(finding.title) < 3000


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[" * 100_000,
        b"1" * 10_000,
        json.dumps({**WHOLE, "lastcall": 2}).encode(),
        json.dumps({**WHOLE, "state": "asleep"}).encode(),
        json.dumps({**WHOLE, "name": "x" * LINE_BYTES}).encode(),
    ],
)
def test_what_is_not_of_the_form_is_refused(raw: bytes) -> None:
    """Too deep, too long, of another version, in a state that there is none of."""
    assert parse(raw) is None


def test_a_stuck_hook_is_told_with_its_place_and_what_it_waits_for() -> None:
    """The sentence that a person needs, and the stack below it."""
    hook, flight, phase = holdups(7, snapshot())
    assert hook.title == (
        "hook 'close_pool' (shop.py:31) has run for 4.2 s: "
        "waits for lock `b` held by hook 'flush_cache'"
    )
    assert hook.severity is Severity.BLOCKER
    assert "/app/shop.py:33 in close_pool: with b:" in hook.evidence
    assert flight.title == "3 in flight, the oldest 'GET /report' for 12 s"
    assert flight.advice == "its phase 'drain' has 2.0 s left; then what is in flight is cut off"
    assert phase.code == "lifecycle-phase"


def test_a_hook_that_has_just_begun_is_no_reason() -> None:
    """Looks come when they come; what has run for a moment holds nothing up."""
    quick = {**WHOLE["hooks"][0], "took_s": 0.1}  # type: ignore[index]
    found = holdups(7, snapshot(hooks=[quick], stuck=[], in_flight={"count": 0}))
    assert [finding.code for finding in found] == ["lifecycle-phase"]


def test_where_a_stop_is_changes_only_when_it_moves() -> None:
    """Ages are left out: each change is a line for people, and in the journal."""
    assert (
        so_far(snapshot())
        == so_far(snapshot(since_s=9.0))
        == ("phase drain: close_pool, 3 in flight")
    )


# -- the socket


@contextlib.contextmanager
def taken(name: str) -> Iterator[socket.socket]:
    """An abstract name that this process took."""
    with socket.socket(socket.AF_UNIX) as link:
        link.bind(name)
        link.listen()
        yield link


def test_a_squatter_is_refused() -> None:
    """Another process that took the name of a victim's socket is not believed."""
    code = "print('ready', flush=True)\nwhile True: __import__('time').sleep(600)"
    with (
        victim(sys.executable, "-c", code) as one,
        contextlib.closing(Handle.open(one.pid)) as handle,
    ):
        identity = handle.identity
        assert lifecycle.connect(identity) is None
        with taken(f"\0lastcall/{one.pid}/{identity.start_ticks}"):
            assert lifecycle.connect(identity) is None


def ours() -> Handle:
    """This process, which plays a target."""
    return Handle.open(os.getpid())


def place(handle: Handle) -> str:
    """Where its status socket would be."""
    return f"\0lastcall/{handle.identity.pid}/{handle.identity.start_ticks}"


def test_one_who_says_nothing_is_given_up() -> None:
    """It has a socket, and nothing to tell within the limit."""
    with contextlib.closing(ours()) as handle:
        with taken(place(handle)):
            assert asyncio.run(lifecycle.ask(handle.identity, 0.1)) == (True, None)
        assert asyncio.run(lifecycle.ask(handle.identity, 0.1)) == (False, None)


@pytest.mark.parametrize("said", [b"no json\n", b"x" * 200_000, b'{"lastcall": 9}\n'])
def test_one_who_talks_nonsense_is_left(said: bytes) -> None:
    """The follower hangs up; nothing is told."""

    async def main() -> None:
        told: list[Snapshot] = []
        with contextlib.closing(ours()) as handle, taken(place(handle)) as listener:
            link = lifecycle.connect(handle.identity)
            assert link is not None
            follower = lifecycle.Follower(link, told.append)
            peer, _ = listener.accept()
            with peer:
                peer.setblocking(False)
                loop = asyncio.get_running_loop()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    await loop.sock_sendall(peer, said)
                    assert await loop.sock_recv(peer, 1) == b""
            assert follower.closed
        assert not told

    asyncio.run(main())


# -- the commands, against a real program


@contextlib.contextmanager
def program(mode: str) -> Iterator[int]:
    """The victim of the status tests, in one of its modes."""
    with victim(*python("app_status.py", mode)) as one:
        yield one.pid


def findings(said: Said) -> dict[str, dict[str, Any]]:
    """All findings of a stop's JSON, by their code; the latest of each."""
    events = [each["data"] for each in said.messages if "data" in each]
    return {each["code"]: each for data in events for each in data.get("findings") or ()}


def test_check_tells_of_the_lifecycle_and_of_a_grace_that_is_too_short(tmp_path: Path) -> None:
    """Its own grace period against ours, and what is in flight now."""
    with program("plain") as pid:
        [report] = lastcall(tmp_path, "check", "--json", f"pid:{pid}").messages
        found = {each["code"]: each for each in report["findings"]}
        assert "within 25 s" in found["lifecycle"]["title"]
        assert any(line.endswith(": GET /report") for line in found["lifecycle"]["evidence"])
        assert "lifecycle-grace" not in found
        short = lastcall(tmp_path, "check", "--grace", "10s", f"pid:{pid}")
        assert "its own shutdown may take 25 s, and it is given 10 s" in short.out
        assert "--grace 26s" in short.out


CUT_OFF = "import threading; from lastcall import Lifecycle; lifecycle = Lifecycle(grace_s=1)"
WAITS = "with lifecycle: print('ready', flush=True); lifecycle.draining.wait()"


def test_a_stop_shows_a_deadlock_of_hooks_live(tmp_path: Path) -> None:
    """Phases as they go, who is stuck on what, and what was cut off in the end."""
    with program("deadlock") as pid:
        said = lastcall(tmp_path, "stop", "--json", f"pid:{pid}")
    stages = [m["data"]["detail"] for m in said.messages if m["event"] == "reached"]
    assert "phase close: close_pool, flush_cache" in stages
    assert [each.split(" after ")[0] for each in stages[-2:]] == [
        "hook 'close_pool' was cut off",
        "hook 'flush_cache' was cut off",
    ]
    found = findings(said)
    assert "hook 'close_pool' waits for lock `cache_lock`" in found["lifecycle-deadlock"]["title"]
    hook = found["lifecycle-hook"]
    assert "(app_status.py:" in hook["title"]
    assert "waits for lock" in hook["title"]
    assert hook["severity"] == "blocker"
    assert any("with pool_lock:" in line or "with cache_lock:" in line for line in hook["evidence"])


def test_what_it_cut_off_at_its_own_deadline_is_no_crash(tmp_path: Path) -> None:
    """Exit status 22, by the lifecycle or, with the GIL held, by its backstop alone."""
    gil = "import ctypes; lifecycle.on('close')(lambda: ctypes.PyDLL(None).sleep(60))"
    for hook in ("lifecycle.on('close')(threading.Event().wait)", gil):
        with victim(sys.executable, "-c", f"{CUT_OFF}\n{hook}\n{WAITS}") as one:
            said = lastcall(tmp_path, "stop", "--json", f"pid:{one.pid}")
        ending = said.messages[-1]
        assert (said.code, ending["ending"]) == (22, "cut off"), (said, hook)
        assert "exit status 22: its lifecycle cut work off" in said.out


def test_22_of_a_program_without_a_lifecycle_is_a_failure(tmp_path: Path) -> None:
    """Then it means whatever that program wants it to mean."""
    code = "import signal, sys; signal.signal(15, lambda *_: sys.exit(22))"
    with victim(sys.executable, "-c", f"{code}; print('ready', flush=True); signal.pause()") as one:
        said = lastcall(tmp_path, "stop", "--json", f"pid:{one.pid}")
    assert (said.code, said.messages[-1]["ending"]) == (13, "crashed")


def test_a_stop_says_it_in_words(tmp_path: Path) -> None:
    """The same for people."""
    with program("thread") as pid:
        said = lastcall(tmp_path, "stop", "--grace", "2s", f"pid:{pid}")
    assert "phase work: waits for user threads" in said.out
    assert "thread 'pump' has been waited for" in said.out
    assert "Event.wait" in said.out
    assert "its own shutdown may take 25 s, and it is given 2.0 s" in said.out


def test_work_in_flight_is_named_with_its_age(tmp_path: Path) -> None:
    """How much, and the oldest of it."""
    with program("flight") as pid:
        said = lastcall(tmp_path, "stop", "--grace", "2s", "--json", f"pid:{pid}")
    title = findings(said)["lifecycle-in-flight"]["title"]
    assert title.startswith("1 in flight, the oldest 'GET /report' for ")


def test_a_plea_moves_the_deadline_up_to_the_ceiling(tmp_path: Path) -> None:
    """The hook needs longer than the grace; the reason is passed on, and the end is orderly."""
    with program("pleads") as pid:
        said = lastcall(
            tmp_path, "stop", "--grace", "2s", "--extend-up-to", "25s", "--json", f"pid:{pid}"
        )
    [plea] = [m["data"] for m in said.messages if m["event"] == "progressed"]
    assert plea["reason"] == "hook 'push' asks for 6 s: flushing 40 MB"
    assert 5 < plea["more_s"] <= 20
    assert said.messages[-1]["ending"] == "orderly"


def test_without_a_ceiling_a_plea_changes_nothing(tmp_path: Path) -> None:
    """It is told, and the grace is what it was."""
    with program("pleads") as pid:
        said = lastcall(tmp_path, "stop", "--grace", "2s", "--json", f"pid:{pid}")
        assert [m for m in said.messages if m["event"] == "progressed"]
        assert said.messages[-1]["ending"] == "still running"


def test_a_stop_that_is_called_off_is_told(tmp_path: Path) -> None:
    """Who objected, why, and that the next ask counts."""
    with program("objects") as pid:
        said = lastcall(tmp_path, "stop", "--grace", "2s", "--json", f"pid:{pid}")
        finding = findings(said)["lifecycle-called-off"]
        assert finding["title"] == (
            "it called the stop off: hook 'guard' objects: a backup is being written"
        )
        stages = [m["data"]["detail"] for m in said.messages if m["event"] == "reached"]
        assert any("called off by 'guard'" in each for each in stages)
        assert said.messages[-1]["ending"] == "still running"
        again = lastcall(tmp_path, "stop", "--json", f"pid:{pid}")
        assert again.messages[-1]["ending"] == "orderly"


def test_a_program_that_no_python_runs_in_is_told_as_such(tmp_path: Path) -> None:
    """C code that holds the GIL: the socket takes connections, and nobody answers."""
    with victim(*python("app_status.py", "gil")) as one:
        os.kill(one.pid, signal.SIGTERM)
        while one.line() != "holding":
            pass
        said = lastcall(tmp_path, "stop", "--grace", "2s", "--json", f"pid:{one.pid}")
    assert findings(said)["lifecycle-silent"]["severity"] == "blocker"


def test_a_program_without_a_lifecycle_is_stopped_as_before(tmp_path: Path) -> None:
    """Nothing of this is told."""
    with victim(sys.executable, "-c", "print('ready', flush=True)\nwhile True: pass") as one:
        said = lastcall(tmp_path, "stop", "--json", f"pid:{one.pid}")
    assert not any(code.startswith("lifecycle") for code in findings(said))
