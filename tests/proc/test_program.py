"""A started program: how it begins, what it prints, how it ends, why it cannot be started."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import sys
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from lastcall.errors import ExitCode
from lastcall.proc.ending import Exit, status_in_words
from lastcall.proc.output import KEPT_LINES, LINE_BYTES
from lastcall.proc.program import CannotStart, Program
from proc.running import heard, own_keepers, run, text_of

if TYPE_CHECKING:
    from pathlib import Path


def test_a_program_ends_by_itself() -> None:
    """Its exit status, the times and both its outputs come back, and then nothing is left."""

    async def story() -> None:
        before = monotonic()
        async with await Program.start(["sh", "-c", "echo out; echo err >&2; exit 3"]) as program:
            ended = await program.wait()
            assert os.waitstatus_to_exitcode(ended.status) == 3
            assert str(ended) == "exit status 3"
            assert before < program.started_at < ended.at < monotonic()
            assert program.ended is ended
            assert text_of(program) == ["out", "err"]
            assert program.left() == []
            with pytest.raises(ProcessLookupError):
                program.send(signal.SIGTERM)
            assert await program.clear() == []
        assert await program.clear() == []
        assert await program.wait() is ended

    run(story())


def test_a_signal_ends_it() -> None:
    """A signal reaches the main process, and its wait status tells of it."""

    async def story() -> Exit:
        async with await Program.start(["sleep", "60"]) as program:
            assert program.left() == [program.pid]
            program.send(signal.SIGTERM)
            return await program.wait()

    ended = run(story())
    assert os.WTERMSIG(ended.status) == signal.SIGTERM
    assert str(ended) == "died of SIGTERM"


@pytest.mark.parametrize("old_kernel", [False, True])
def test_a_signal_to_the_group(old_kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001 (a parameter of the test)
    """It reaches all in the group, also when its leader has ended; then nobody is there."""
    known = signal.pidfd_send_signal

    def of_old(fd: int, signum: int, info: None = None, flags: int = 0) -> None:
        if flags:
            raise OSError(errno.EINVAL, "unknown flags")
        known(fd, signum, info)

    if old_kernel:
        monkeypatch.setattr(signal, "pidfd_send_signal", of_old)

    async def story() -> None:
        child = "(trap 'echo child; exit' TERM; echo ready; while :; do sleep 0.01; done)"
        script = f"trap 'echo main; exit' TERM; {child} & wait"
        async with await Program.start(["sh", "-c", script]) as program:
            await heard(program, "ready")
            program.send_group(signal.SIGTERM)
            await heard(program, "main")
            await heard(program, "child")
        with pytest.raises(ProcessLookupError):
            program.send_group(signal.SIGTERM)
        async with await Program.start(["sh", "-c", f"{child} & exit 0"]) as program:
            await heard(program, "ready")
            await program.wait()
            program.send_group(signal.SIGTERM)
            await heard(program, "child")
        async with await Program.start(["true"]) as program:
            await program.wait()
            with pytest.raises(ProcessLookupError):
                program.send_group(signal.SIGTERM)

    run(story())


def test_statuses_in_words() -> None:
    """Every kind of wait status reads well, also a signal without a name."""
    assert status_in_words(0) == "exit status 0"
    assert status_in_words(255 << 8) == "exit status 255"
    assert status_in_words(signal.SIGSEGV | 0x80) == "died of SIGSEGV, core dumped"
    assert status_in_words(40) == "died of signal 40"


def test_a_program_starts_afresh() -> None:
    """A session of its own, no ignored or blocked signal, no descriptor but the three."""
    script = (
        "import os; print(os.getpid() == os.getsid(0) == os.getpgid(0));"
        "print([line for line in open('/proc/self/status') if line[:6] in ('SigBlk', 'SigIgn')]);"
        "print(sorted(os.listdir('/proc/self/fd'))[:-1], os.readlink('/proc/self/fd/0'))"
    )

    # The victim's Python ignores SIGPIPE and SIGXFSZ by itself: so let a shell look, too.
    async def story() -> list[str]:
        shell = "grep -E '^Sig(Blk|Ign)' /proc/self/status"
        async with await Program.start(
            ["sh", "-c", f'{shell}; exec "$@"', "-", sys.executable, "-c", script]
        ) as program:
            await program.wait()
            return text_of(program)

    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        lines = run(story())
    finally:
        signal.signal(signal.SIGHUP, old)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    # 32 and 33 are the C library's own: no program can name, block or unblock them. nptl(7)
    masks = [int(line.partition(":")[2], 16) & ~(0b11 << 31) for line in lines[:2]]
    assert masks == [0, 0], lines
    assert lines[2] == "True"
    assert lines[4] == "['0', '1', '2'] /dev/null"


def test_environment_and_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are as given, byte for byte; what our own service manager said is not passed on."""
    odd = os.fsdecode(b"\xff=\xc3\xa4\n")

    async def told(env: dict[str, str] | None, cwd: str | None) -> bytes:
        out = tmp_path / "out"
        script = f'env -0 > "{out}"; pwd >> "{out}"'
        async with await Program.start(["/bin/sh", "-c", script], env=env, cwd=cwd) as program:
            await program.wait()
        return out.read_bytes()

    monkeypatch.setenv("NOTIFY_SOCKET", "/somewhere")
    monkeypatch.setenv("LISTEN_FDNAMES", "http")
    monkeypatch.setenv("KEPT", "yes")
    mine = run(told({"PATH": os.environ["PATH"], "ODD": odd}, str(tmp_path)))
    assert b"ODD=\xff=\xc3\xa4\n\0" in mine
    assert mine.endswith(os.fsencode(tmp_path) + b"\n")
    assert b"KEPT" not in mine
    ours = run(told(None, None))
    assert b"KEPT=yes\0" in ours
    assert b"NOTIFY_SOCKET" not in ours
    assert b"LISTEN_FDNAMES" not in ours


def test_a_large_order() -> None:
    """Arguments and an environment that fill many socket buffers arrive; too many are told."""
    words = ["x" * 100_000] * 8

    async def story() -> None:
        env = {"PATH": os.environ["PATH"], "LONG": "y" * 100_000}
        async with await Program.start(
            ["sh", "-c", "echo ${#7} ${#LONG}", *words], env=env
        ) as program:
            await program.wait()
            assert text_of(program) == ["100000 100000"]
        with pytest.raises(CannotStart) as caught:
            await Program.start(["sh", "x" * 200_000])  # MAX_ARG_STRLEN is 128 KiB
        assert caught.value.number == errno.E2BIG

    run(story())


@pytest.mark.parametrize(
    ("name", "content", "mode", "number", "said"),
    [
        ("nonexistent-program", None, 0, errno.ENOENT, "was not found"),
        ("./missing", None, 0, errno.ENOENT, "was not found"),
        ("./plain", "#!/bin/sh\n", 0o644, errno.EACCES, "may not be executed"),
        ("./empty", "no program", 0o755, errno.ENOEXEC, "not a program"),
        ("./orphan", "#!/no/such/interpreter\n", 0o755, errno.ENOENT, "interpreter of"),
        ("here", "#!/bin/sh\n", 0o755, errno.ENOENT, "was not found"),
        ("/", None, 0, errno.EACCES, "is a directory"),
    ],
)
def test_what_cannot_be_executed(
    tmp_path: Path, name: str, content: str | None, mode: int, number: int, said: str
) -> None:
    """The kernel's reason is told exactly, with advice, and nothing stays behind."""
    if content is not None:
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(mode)
    with pytest.raises(CannotStart) as caught:
        run(Program.start([name], cwd=str(tmp_path)))
    error = caught.value
    assert error.number == number
    assert said in error.what
    assert error.advice
    assert errno.errorcode[number] in error.evidence[0]
    assert error.code == "cannot-start"
    assert error.exit_code is ExitCode.USAGE


def test_near_names_are_offered(tmp_path: Path) -> None:
    """A misspelt command is told what it may have meant, and where it was looked for."""
    (tmp_path / "serve-it").touch(0o755)
    with pytest.raises(CannotStart) as caught:
        run(Program.start(["serve-ti"], env={"PATH": str(tmp_path)}))
    assert caught.value.advice == "did you mean serve-it ?"
    assert f"looked in PATH: {tmp_path}" in caught.value.evidence


def test_orders_without_sense() -> None:
    """No command, a NUL, a name with `=`, a missing directory: each is told before any harm."""
    for command, env, cwd in (
        ([], None, None),
        ([""], None, None),
        (["true", "\0"], None, None),
        (["true"], {"A=B": "c"}, None),
        (["true"], None, "/no/such/directory"),
    ):
        with pytest.raises(CannotStart):
            run(Program.start(command, env=env, cwd=cwd))


def test_a_python_that_cannot_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the keeper itself cannot be started, or breaks off, that is said."""
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(CannotStart, match="Python could not be started"):
        run(Program.start(["true"]))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(CannotStart, match="broke off"):
        run(Program.start(["true"]))


def test_lines_are_told_as_they_come() -> None:
    """Each line comes with its time; CRLF and bad UTF-8 do no harm; the last needs no end."""
    lines: list[tuple[float, str]] = []

    async def story() -> None:
        command = ["printf", r"one\r\n\xff\n\nlast"]
        async with await Program.start(
            command, on_line=lambda *line: lines.append(line)
        ) as program:
            await program.wait()
            await program.clear()
            assert list(program.lines) == lines

    run(story())
    assert [text for _, text in lines] == ["one", "\ufffd", "", "last"]
    assert lines == sorted(lines, key=lambda line: line[0])


@pytest.mark.parametrize(
    "script",
    [
        "yes | head -c 1000000000",
        "head -c 1000000000 /dev/zero",
    ],
    ids=["a gigabyte of lines", "a line of a gigabyte"],
)
def test_a_flood_of_output(script: str) -> None:
    """A gigabyte neither blocks the program nor grows our memory, and what matters is kept."""

    async def story() -> None:
        async with await Program.start(["sh", "-c", f"{script}; echo; echo done"]) as program:
            await heard(program, "^done$") if "zero" in script else await program.wait()
            await program.wait()
            assert text_of(program)[-1] == "done"
            assert len(program.lines) <= KEPT_LINES
            assert max(len(text) for text in text_of(program)) <= LINE_BYTES

    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run(story())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 32 * 1024


def test_a_line_without_end_is_cut() -> None:
    """Its beginning is told at once, its rest is dropped, and the next line is whole again."""

    async def story() -> None:
        script = "head -c 100000 /dev/zero | tr '\\0' x; sleep 60"
        async with await Program.start(["sh", "-c", script]) as program:
            assert len((await heard(program, "^x+$"))[0]) == LINE_BYTES
        script = "head -c 100000 /dev/zero | tr '\\0' x; echo; echo next"
        async with await Program.start(["sh", "-c", script]) as program:
            await program.wait()
            assert text_of(program) == ["x" * LINE_BYTES, "next"]

    run(story())


def test_cancelled_while_it_starts() -> None:
    """Whoever stops waiting for the start leaves neither a process nor a descriptor behind."""

    async def story() -> None:
        for delay_s in (0.0, 0.003, 0.006, 0.01, 0.015):
            task = asyncio.create_task(Program.start(["sleep", "60"]))
            _, waiting = await asyncio.wait([task], timeout=delay_s)
            if waiting:
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                await (await task).clear()
        assert own_keepers() == []

    run(story())


def test_many_at_once() -> None:
    """Programs side by side do not meddle with each other."""

    async def one(status: int) -> int:
        async with await Program.start(["sh", "-c", f"exit {status}"]) as program:
            return os.waitstatus_to_exitcode((await program.wait()).status)

    async def story() -> list[int]:
        return await asyncio.gather(*(one(status) for status in range(20)))

    assert run(story()) == list(range(20))


def test_a_pid_is_not_reaped_before_it_is_held() -> None:
    """The pidfd means the main process however quickly that ends."""

    async def story() -> None:
        async with await Program.start(["true"]) as program:
            assert program.pidfd >= 0
            await program.wait()
            with pytest.raises(ProcessLookupError):
                signal.pidfd_send_signal(program.pidfd, 0)

    for _ in range(5):
        run(story())


def test_output_of_what_is_left_behind(tmp_path: Path) -> None:
    """Output of a background process that outlives the main one is still read."""
    fifo = tmp_path / "go"
    os.mkfifo(fifo)

    async def story() -> None:
        script = f"(read go < {fifo}; echo late; sleep 60) & exit 0"
        async with await Program.start(["sh", "-c", script]) as program:
            await program.wait()
            fd = os.open(fifo, os.O_RDWR)
            os.write(fd, b"go\n")
            await heard(program, "late")
            os.close(fd)
            assert await program.clear()

    run(story())
