"""What a program tells by sd_notify, and who is not listened to."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.proc.notify import DATAGRAM_BYTES, KEPT_NOTICES, Notify, parse_notice
from lastcall.proc.program import Program
from proc.running import heard, python, run


def test_fields_are_read() -> None:
    """Each field that has a meaning is found; the last value of a name counts."""
    notice = parse_notice(
        b"READY=1\nSTATUS=up = \xc3\xa4\nMAINPID=42\nEXTEND_TIMEOUT_USEC=1500000\nSTATUS=b=c",
        1.5,
        7,
    )
    assert (notice.at, notice.pid) == (1.5, 7)
    assert notice.ready
    assert not notice.stopping
    assert notice.status == "b=c"
    assert notice.main_pid == 42
    assert notice.extend_s == 1.5
    assert notice.get("X") is None
    assert parse_notice(b"STOPPING=1").stopping


@pytest.mark.parametrize(
    "raw", [b"", b"\n\n", b"READY", b"=1", b"READY=0", b"READY =1", b"READY=1 ", b"\xff=1"]
)
def test_what_is_not_ready(raw: bytes) -> None:
    """Nothing but the very line READY=1 means ready."""
    assert not parse_notice(raw).ready


@pytest.mark.parametrize("value", ["", "-1", "1.5", "x", "٣", "1" * 3000])
def test_numbers_that_are_none(value: str) -> None:
    """A number that is none, or beyond reason, is as if it were not there or harmless."""
    notice = parse_notice(f"MAINPID={value}\nEXTEND_TIMEOUT_USEC={value}".encode())
    assert notice.main_pid is None
    assert notice.extend_s is None


@given(st.binary(max_size=300))
def test_any_datagram_can_be_read(raw: bytes) -> None:
    """No content makes the parser fail."""
    notice = parse_notice(raw)
    for fact in (notice.ready, notice.stopping, notice.status, notice.main_pid, notice.extend_s):
        assert fact is None or fact == fact  # noqa: PLR0124 (none raises, none is NaN)


def send(path: str, *words: bytes) -> None:
    """Send datagrams from this process."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.connect(path)
        for word in words:
            link.send(word)


def test_the_socket_is_private_and_goes_away() -> None:
    """Its directory is for its owner only, and nothing is left after closing, done twice."""
    with Notify.open() as notify:
        folder = Path(notify.path).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        notify.close()
        assert not folder.exists()


def test_a_long_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the path would be too long for a socket, another place is taken."""
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with Notify.open() as notify:
        send(notify.path, b"READY=1")
        notify.receive()
        assert notify.ready_at is not None
    assert list(deep.iterdir()) == []


def test_limits() -> None:
    """Too long a datagram is refused, many are kept only up to a limit, descriptors are closed."""

    async def story() -> None:
        with Notify.open() as notify:
            link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            link.connect(notify.path)
            link.send(b"STATUS=" + b"x" * DATAGRAM_BYTES)
            notify.receive()
            assert (notify.refused, len(notify.notices)) == (1, 0)
            for number in range(KEPT_NOTICES + 50):
                link.send(b"STATUS=%d" % number)
                notify.receive()
            assert len(notify.notices) == KEPT_NOTICES
            assert notify.notices[-1].status == str(KEPT_NOTICES + 49)
            before = len(os.listdir("/proc/self/fd"))
            socket.send_fds(link, [b"FDSTORE=1"], [0] * 40)
            socket.send_fds(link, [b"FDSTORE=1"], [0])
            notify.receive()
            assert len(os.listdir("/proc/self/fd")) == before
            assert notify.notices[-1].pid == os.getpid()
            link.close()

    run(story())


def test_a_program_tells() -> None:
    """Main process, child and grandchild may speak; a barrier is passed; each says who it is."""

    async def story() -> None:
        words = ("STATUS=warming up", "barrier", "READY=1\\nSTATUS=up")
        async with await Program.start(python("proc_notify.py", *words), notify=True) as program:
            await heard(program, "barrier passed")
            await heard(program, "^sent$")
            notify = program.notify
            assert notify is not None
            await until_ready(notify)
            assert [notice.status for notice in notify.notices if notice.status] == [
                "warming up",
                "up",
            ]
            assert {notice.pid for notice in notify.notices} == {program.pid}
            assert notify.refused == 0
        command = python("proc_notify.py", "--child", "READY=1", "end")
        async with await Program.start(command, notify=True) as program:
            assert program.notify is not None
            await until_ready(program.notify)

    run(story())


async def until_ready(notify: Notify) -> None:
    """Wait for READY=1."""
    ready = asyncio.Event()
    unwatch = notify.watch(lambda notice: ready.set() if notice.ready else None)
    while notify.ready_at is None:
        await ready.wait()
    unwatch()


def test_a_stranger_is_not_listened_to() -> None:
    """A process that does not belong to the program cannot say that it is ready."""

    async def story() -> None:
        async with await Program.start(["sleep", "60"], notify=True) as program:
            notify = program.notify
            assert notify is not None
            env = {**os.environ, "NOTIFY_SOCKET": notify.path}
            command = python("proc_notify.py", "READY=1", "barrier")
            async with await Program.start(command, env=env) as stranger:
                send(notify.path, b"READY=1")
                await heard(stranger, "barrier passed")
                assert notify.refused == 3
                assert notify.ready_at is None

    run(story())


def test_it_works_from_a_pid_namespace() -> None:
    """PID 1 of a namespace of its own is known by its pid as seen from here."""

    async def story() -> None:
        command = python("proc_notify.py", "READY=1")
        async with await Program.start(command, notify=True, pid1=True) as program:
            assert program.notify is not None
            await until_ready(program.notify)
            assert program.notify.notices[-1].pid == program.pid

    run(story())
