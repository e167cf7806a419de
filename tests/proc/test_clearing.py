"""Nothing that a program started is left: orphans, daemons, forks, whatever kills whom."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from helpers import victim, wait_until
from lastcall.proc import keeper
from lastcall.proc.program import CannotClear, KeeperLost, Program
from proc.running import comm, exists, heard, own_keepers, python, run, text_of


def test_an_orphan_is_found_and_cleared() -> None:
    """What a shell leaves in the background is listed, and gone after the clearing."""

    async def story() -> None:
        script = "sleep 60 & echo $!; exit 0"
        async with await Program.start(["sh", "-c", script]) as program:
            await program.wait()
            orphan = int(text_of(program)[0])
            assert program.left() == [orphan]
            assert await program.clear() == [orphan]
            assert not exists(orphan)
            assert program.left() == []
            assert await program.clear() == [orphan]

    run(story())


def test_a_daemon_is_cleared() -> None:
    """Two forks and a session of its own do not help it away."""

    async def story() -> None:
        async with await Program.start(python("proc_tree.py", "daemon")) as program:
            await program.wait()
            daemon = int((await heard(program, r"daemon (\d+)"))[1])
            assert os.getsid(daemon) != program.pid
            assert program.left() == [daemon]
            assert await program.clear() == [daemon]
            assert not exists(daemon)

    run(story())


def test_the_deaf_are_cleared() -> None:
    """Processes that ignore SIGTERM, each in a session of its own, below one another."""

    async def story() -> None:
        async with await Program.start(python("proc_tree.py", "leaf")) as program:
            await heard(program, "^ready")
            left = program.left()
            for pid in left:
                os.kill(pid, signal.SIGSTOP)  # stopped ones, too
            assert set(left) <= set(await program.clear())
            assert not any(map(exists, left))
            ended = await program.wait()
            assert os.WTERMSIG(ended.status) == signal.SIGKILL

    run(story())


def test_a_command_that_ignores_sigterm() -> None:
    """The signal does nothing; the clearing does."""

    async def story() -> None:
        script = "trap '' TERM; echo ready; while :; do sleep 60; done"
        async with await Program.start(["sh", "-c", script]) as program:
            await heard(program, "ready")
            program.send(signal.SIGTERM)
            program.send(signal.SIGTERM)
            assert program.ended is None
            assert program.pid in await program.clear()

    run(story())


@pytest.mark.parametrize("words", [("chain",), ("chain", "sessions"), ("bomb",)])
def test_quick_forkers_are_cleared(words: tuple[str, ...]) -> None:
    """A chain in which each forks the next and ends, and one that fills the table."""

    async def story() -> None:
        async with await Program.start(python("proc_tree.py", *words)) as program:
            await heard(program, "^ready")
            await program.clear()
            assert members_of(program.pid) == []

    run(story())


def members_of(session: int) -> list[int]:
    """The live processes of a session, and those that run our forking program."""
    return keeper.members(session) + processes_with("proc_tree.py")


def processes_with(word: str) -> list[int]:
    """The pids of processes, below this one or orphaned, whose command line has this word."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid():
            try:
                if word.encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                    found.append(int(name))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def driver(deed: str, *command: str) -> tuple[str, ...]:
    """A program that starts `command` as lastcall does."""
    return python("proc_driver.py", deed, *command)


def told(line: str) -> tuple[list[int], str]:
    """The pids and the notify socket that a driver told."""
    _, *pids, place = line.split()
    return [int(pid) for pid in pids], place


def keeper_of(pid: int) -> int:
    """The one child of a driver."""
    (found,) = keeper.children(pid)
    return found


@pytest.mark.parametrize("to", ["one", "group"])
def test_a_killed_parent_leaves_nothing(to: str) -> None:
    """After SIGKILL to the parent (or to its whole group) everything goes, the keeper too."""
    with victim(*driver("notify", *python("proc_tree.py", "leaf")), ready="") as parent:
        pids, place = told(parent.line())
        kept_by = keeper_of(parent.pid)
        assert len(pids) >= 4
        assert os.path.exists(place)
        (os.killpg if to == "group" else os.kill)(parent.pid, signal.SIGKILL)
        assert parent.wait() == -signal.SIGKILL
        wait_until(lambda: not any(map(exists, pids)) and keeper._over(kept_by), "all is gone")
        assert not os.path.exists(os.path.dirname(place))


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_the_keeper_takes_no_hint(signum: signal.Signals) -> None:
    """Signals that end other programs do not end the keeper: it is needed."""

    async def story() -> None:
        async with await Program.start(["sleep", "60"]) as program:
            (kept_by,) = own_keepers()
            os.kill(kept_by, signum)
            assert await program.clear() == [program.pid]

    run(story())


def test_ctrl_c_clears() -> None:
    """SIGINT at the parent ends it by KeyboardInterrupt, and everything is gone when it ends."""
    with victim(*driver("wait", *python("proc_tree.py", "leaf")), ready="") as parent:
        pids, _ = told(parent.line())
        os.kill(parent.pid, signal.SIGINT)
        said = parent.out.read()
        assert parent.wait() == -signal.SIGINT
        assert said.startswith("leaving")
        assert "KeyboardInterrupt" in said
        assert not any(map(exists, pids))


def test_an_error_clears() -> None:
    """An exception in the block clears, and goes on."""
    with victim(*driver("fail", *python("proc_tree.py", "leaf")), ready="") as parent:
        pids, _ = told(parent.line())
        said = parent.out.read()
        assert parent.wait() == 1
        assert "RuntimeError: on purpose" in said
        assert not any(map(exists, pids))


def test_a_cancelled_clearing_still_clears() -> None:
    """Who is cancelled in the middle of the clearing leaves nothing behind either."""

    async def story() -> None:
        program = await Program.start(python("proc_tree.py", "leaf"))
        await heard(program, "^ready")
        left = program.left()
        task = asyncio.create_task(program.clear())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not any(map(exists, left))
        assert set(left) <= set(await program.clear())

    run(story())


def test_two_clear_at_once() -> None:
    """Both wait for the same clearing and hear the same."""

    async def story() -> None:
        program = await Program.start(["sleep", "60"])
        one, two = await asyncio.gather(program.clear(), program.clear())
        assert one == two == [program.pid]

    run(story())


def test_a_lost_keeper_is_told() -> None:
    """When somebody kills the keeper, waiting ends with an error, and the main session goes."""

    async def story() -> None:
        script = "sleep 60 & sleep 61 & echo ready; wait"
        program = await Program.start(["sh", "-c", script])
        await heard(program, "^ready")
        left = program.left()
        waiting = asyncio.create_task(program.wait())
        (kept_by,) = own_keepers()
        os.kill(kept_by, signal.SIGKILL)
        with pytest.raises(KeeperLost, match=f"pid {kept_by}"):
            await waiting
        assert len(left) == 3
        wait_until(lambda: all(keeper._over(pid) for pid in left), "the session is gone")
        with pytest.raises(KeeperLost):
            await program.clear()
        with pytest.raises(KeeperLost):
            await program.clear()

    run(story())


def test_a_lost_keeper_does_not_hide_an_error() -> None:
    """An error in the block matters more than the loss; without one the loss is told."""

    async def story() -> None:
        async with await Program.start(["sleep", "60"]):
            (kept_by,) = own_keepers()
            os.kill(kept_by, signal.SIGKILL)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError):
        run(story())


def test_a_stopped_keeper_does_not_hang_us(monkeypatch: pytest.MonkeyPatch) -> None:
    """A keeper that was stopped (SIGSTOP) is given up after a while, and the rest is killed."""
    monkeypatch.setattr("lastcall.proc.program._CLEAR_LIMIT_S", 0.2)

    async def story() -> None:
        program = await Program.start(["sleep", "60"])
        (kept_by,) = own_keepers()
        os.kill(kept_by, signal.SIGSTOP)
        with pytest.raises(KeeperLost):
            await program.clear()
        wait_until(lambda: keeper._over(program.pid), "the program is gone")
        assert not exists(kept_by)

    run(story())


def test_others_are_left_alone() -> None:
    """Only what came of the program is killed: a neighbour in the test's own session lives on."""
    with victim("sh", "-c", "echo ready; exec sleep 60", own_session=False) as neighbour:

        async def story() -> None:
            async with await Program.start(python("proc_tree.py", "daemon")) as program:
                await program.wait()

        run(story())
        assert neighbour.child.poll() is None


def with_fault(patch: pytest.MonkeyPatch, fault: str) -> None:
    """Let keepers be started with a fault, in words of Python, `keeper` being the module."""
    code = f"import sys; sys.path.append(sys.argv[1]); import keeper\n{fault}\nkeeper.main()"
    words = ("-I", "-S", "-B", "-c", code, os.path.dirname(keeper.__file__))
    patch.setattr("lastcall.proc.program._KEEPER", words)


def test_a_fault_of_the_keeper_clears(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the keeper breaks in the middle of its work, it clears before it ends."""
    with_fault(monkeypatch, "keeper._Keeper._serve = lambda self: 1 / 0")

    async def story() -> None:
        program = await Program.start(["sleep", "60"])
        with pytest.raises(KeeperLost) as caught:
            await program.wait()
        assert "ZeroDivisionError" in caught.value.evidence[0]
        assert await program.clear() == [program.pid]
        assert not exists(program.pid)

    run(story())


def test_what_cannot_be_killed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that outlives SIGKILL is named, and nobody hangs."""
    nothing = "lambda pid: None"
    with_fault(
        monkeypatch,
        f"keeper._kill_child = keeper._kill_deep = {nothing}; keeper.CLEAR_LIMIT_S = 0.2; "
        "keeper._Keeper._prctl_was = keeper._Keeper._prctl\n"
        "def prctl(self, option, value):\n"
        "    if option != keeper._PR_SET_PDEATHSIG: self._prctl_was(option, value)\n"
        "keeper._Keeper._prctl = prctl",
    )

    async def story() -> None:
        program = await Program.start(["sleep", "60"])
        pidfd = os.pidfd_open(program.pid)
        try:
            for _ in range(2):
                with pytest.raises(CannotClear) as caught:
                    await program.clear()
                assert caught.value.pids == (program.pid,)
            signal.pidfd_send_signal(pidfd, 0)
        finally:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)

    run(story())


def test_what_hides_below_a_stuck_child_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a child of the keeper does not go, those below it are killed all the same."""
    with_fault(monkeypatch, "keeper._kill_child = lambda pid: None")

    async def story() -> None:
        async with await Program.start(python("proc_tree.py", "leaf")) as program:
            await heard(program, "^ready")
            left = program.left()
            assert set(left) <= set(await program.clear())
            assert not any(map(exists, left))

    run(story())


def test_a_name_that_breaks_stat_apart() -> None:
    """A process whose name looks like fields of /proc/PID/stat is read right."""

    async def story() -> None:
        script = (
            "open('/proc/self/comm', 'w').write(') Z 1 1'); print('ready', flush=True); input()"
        )
        code = f"import os, time; {script.replace('input()', 'time.sleep(60)')}"
        async with await Program.start([sys.executable, "-c", code]) as program:
            await heard(program, "ready")
            assert comm(program.pid) == ") Z 1 1"
            assert program.left() == [program.pid]

    run(story())


def test_without_the_list_of_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that keeps no list of children (CONFIG_PROC_CHILDREN) is read another way."""

    def no_list(path: str, *, known: object = keeper._read) -> bytes:
        if path.endswith("/children"):
            raise FileNotFoundError(path)
        return known(path)  # type: ignore[operator, no-any-return]

    async def story() -> None:
        async with await Program.start(["sh", "-c", "sleep 60 & echo ready; wait"]) as program:
            await heard(program, "ready")
            with_list = program.left()
            monkeypatch.setattr(keeper, "_read", no_list)
            monkeypatch.setattr(os.path, "exists", lambda _path: False)
            assert program.left() == with_list
            assert len(with_list) == 2
            monkeypatch.undo()

    run(story())
