"""Servers and stop commands of a drill: started, found, told apart from strangers, cleared away."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from helpers import python, victim
from lastcall.drill import getting_ready
from lastcall.drill import serving as serving_module
from lastcall.drill.commanding import NOT_ENDED
from lastcall.drill.how import How
from lastcall.drill.listening import free_port, refuse_taken
from lastcall.drill.place import Place
from lastcall.drill.plan import Plan
from lastcall.drill.serving import Serving, serving
from lastcall.errors import NotPermitted, NotRunning, UsageError
from lastcall.kernel import procfs
from lastcall.kernel.identity import Handle
from lastcall.proc.ready import NotReady, Ready
from proc.running import exists, run

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

PLAIN = tuple(python("proc_server.py", "plain", "{port}"))
SERVER = Plan(PLAIN, ready=Ready.parse("/"))
# What it starts outlives it, in a session of its own.
ROLLING = "import subprocess as s; print(s.Popen(['sleep', '60'], start_new_session=True).pid)"


def inline(code: str, *words: str) -> tuple[str, ...]:
    """A command that is a few lines of Python."""
    return (sys.executable, "-u", "-c", code, *words)


def during(plan: Plan, deed: Callable[[Serving], Coroutine[None, None, object]]) -> list[str]:
    """Do something while a server serves; returns what was told when all was cleared away."""
    told: list[str] = []

    async def story() -> None:
        def tell(code: str, what: str) -> None:
            if code == "cleared":
                told.append(what)

        async with serving(plan, tell) as server:
            await deed(server)

    run(story())
    return told


async def nothing(_server: Serving) -> None:
    """It is enough that the server got ready."""


def fails(plan: Plan) -> NotReady:
    """Why a server does not get ready."""
    with pytest.raises(NotReady) as caught:
        during(plan, nothing)
    return caught.value


@contextlib.contextmanager
def running(*, started: bool) -> Iterator[Plan]:
    """A server to be started, or one that runs already."""
    if started:
        yield SERVER
        return
    port = free_port()
    command = [word.replace("{port}", str(port)) for word in PLAIN]
    with victim(*command) as server:
        yield Plan(pid=server.pid, ready=SERVER.ready)
        assert server.child.poll() is None, "it is not ours to end"


# -- the command that stops or replaces it


@pytest.mark.parametrize("started", [True, False])
def test_what_a_rolling_command_started_lives_as_long_as_the_drill(*, started: bool) -> None:
    """It serves next, and is gone once the drill is over, whoever started the first server."""
    born: list[int] = []

    async def replaced(server: Serving) -> None:
        how = How(command=inline(ROLLING), rolling=True)
        assert await server.carry_out(how) == 0
        born.append(int(server.command_output[-1]))
        assert exists(born[0])

    with running(started=started) as plan:
        told = during(plan, replaced)
    assert not exists(born[0])
    if started:
        assert told == ["the drill ended what still ran: 2 processes"]
    else:
        assert told == ["the drill ended what the stop command had left: 1 process"]


def test_a_stop_command_that_does_not_end() -> None:
    """It is given up before the drill's patience is over, as a number and no error."""
    code = "import os, time; print(os.getpid()); print(); time.sleep(60)"
    plan = Plan(PLAIN, ready=SERVER.ready, patience_s=0.5)
    pids: list[int] = []

    async def stopped(server: Serving) -> None:
        assert await server.carry_out(How(command=inline(code))) == NOT_ENDED
        assert len(server.command_output) == 1
        pids.append(int(server.command_output[0]))

    during(plan, stopped)
    assert not exists(pids[0])


def test_what_a_stop_command_prints_is_kept_apart(capfd: pytest.CaptureFixture[str]) -> None:
    """Our own output may be JSON."""

    async def stopped(server: Serving) -> None:
        code = "import sys; print('noise'); print('more', file=sys.stderr); sys.exit(3)"
        assert await server.carry_out(How(command=inline(code))) == 3
        assert sorted(server.command_output) == ["more", "noise"]

    during(SERVER, stopped)
    assert capfd.readouterr() == ("", "")


# -- what the server is told


def test_what_our_service_manager_told_us_is_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server must not tell READY=1 to our manager, nor take file descriptors for its sockets."""
    names = {"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"}
    names |= {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}
    for name in names:
        monkeypatch.setenv(name, "1")

    async def look(server: Serving) -> None:
        assert names.isdisjoint(procfs.environ(server.pid or 0))

    during(SERVER, look)


def test_a_port_in_a_variable() -> None:
    """`{port}` is filled in there, too, and asks for a free port as one in the command does."""
    command = ("/bin/sh", "-c", f'exec "{PLAIN[0]}" -u "{PLAIN[2]}" plain "$WHERE"')

    async def look(server: Serving) -> None:
        variables = procfs.environ(server.pid or 0)
        assert variables["WHERE"] == variables["PORT"] == str(server.place.port)

    during(Plan(command, env=(("WHERE", "{port}"),), ready=SERVER.ready), look)


# -- who listens there


@pytest.mark.parametrize("kind", ["port", "path"])
def test_nobody_listens_where_a_server_runs_already(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is refused soon, however long a server may take to get ready."""
    monkeypatch.setattr(getting_ready, "_NOBODY_S", 0.1)
    place = Place(port=free_port()) if kind == "port" else Place(unix=str(tmp_path / "none"))
    with pytest.raises(NotRunning, match=r"nobody listens on .*; nothing was started"):
        during(Plan(place=place), nothing)


def test_the_port_is_taken_as_the_server_says() -> None:
    """Its own words are understood: more time would not help."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        error = fails(Plan(tuple(word.replace("{port}", port) for word in PLAIN)))
    assert "its port is taken" in error.what
    assert "{port}" in error.advice
    assert any("Address already in use" in line for line in error.evidence)


def test_a_stranger_on_the_port_is_not_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two drills may pick the same port: the other's server is named, and not drilled."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        monkeypatch.setattr(serving_module, "free_port", lambda: port)
        error = fails(Plan(inline("import time; time.sleep(60)", "{port}"), ready_within_s=0.3))
    assert "another program does" in error.what
    assert f"pid {os.getpid()} " in error.evidence[0]


def test_a_port_that_is_shared_with_a_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """With SO_REUSEPORT either may get a connection: that is no experiment."""
    code = (
        "import socket, sys, time\n"
        "s = socket.create_server(('127.0.0.1', int(sys.argv[1])), reuse_port=True)\n"
        "time.sleep(60)"
    )
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as listener:
        port = listener.getsockname()[1]
        monkeypatch.setattr(serving_module, "free_port", lambda: port)
        with pytest.raises(UsageError, match="taken already"):
            during(Plan(inline(code, "{port}")), nothing)


def test_a_unix_socket_that_is_taken(tmp_path: Path) -> None:
    """Who takes connections there already is in the way; the file of a dead one is not."""
    place = Place(unix=str(tmp_path / "app.sock"))
    refuse_taken(place)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place.unix)
        refuse_taken(place)
        listener.listen()
        with pytest.raises(UsageError, match="taken already"):
            during(Plan(inline("raise SystemExit('started')"), place=place), nothing)
    refuse_taken(place)


# -- a pid that was listed belongs to a stranger by now


def test_strangers_are_neither_paused_nor_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the number of a worker had been given to another process after the list was made."""
    with victim("/bin/sleep", "60", ready="") as stranger:

        async def look(server: Serving) -> None:
            with monkeypatch.context() as patched:
                patched.setattr(procfs, "family", lambda pid: [pid, stranger.pid])
                await server.beforehand(How(command=("true",)))
            assert server.left() == ()
            with monkeypatch.context() as patched:
                inodes, _ = server._listening()
                patched.setattr(server, "_listening", lambda: (inodes, {stranger.pid}))
                await server.find_accepting()
            with server.paused():
                assert procfs.stat(stranger.pid).state != "T"

        during(SERVER, look)


def test_a_server_of_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be signalled: that is told before any traffic; and it is not paused."""

    def refuse(_handle: Handle, _signum: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    async def look(server: Serving) -> None:
        await server.find_accepting()
        with monkeypatch.context() as patched:
            patched.setattr(Handle, "send", refuse)
            with pytest.raises(NotPermitted, match="nothing was stopped"):
                await server.beforehand(How())
            with server.paused():
                pass
            await server.find_accepting()
        with server.paused():
            assert procfs.stat(server.pid or 0).state != "T"

    during(SERVER, look)


# -- why it did not get ready, and what became of it


def test_the_last_words_of_a_server_that_ends() -> None:
    """Twenty lines, for the error may stand above a long trace; empty ones tell nothing."""
    code = "for n in range(19): print(f'line {n}\\n')\nraise SystemExit('over')"
    error = fails(Plan(inline(code)))
    assert error.evidence == (*(f"line {n}" for n in range(19)), "over")


@pytest.mark.parametrize("ends", [True, False])
def test_what_became_of_it(*, ends: bool) -> None:
    """Whether the server went by itself or was ended is told apart."""

    async def stop(server: Serving) -> None:
        if ends:
            os.kill(server.pid or 0, signal.SIGTERM)
            await server.ended()

    told = during(SERVER, stop)
    if ends:
        assert told == ["nothing that it had started is left"]
    else:
        assert told == ["the drill ended what still ran: 1 process"]
