"""When a server is ready, in every way, and why it is not."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from contextlib import asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from lastcall.drill.place import Place
from lastcall.errors import ExitCode
from lastcall.proc.program import Program
from lastcall.proc.ready import BadReady, NotReady, Ready, wait_ready
from proc.running import heard, python, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LONG_S = 20.0
SHORT_S = 0.4


@asynccontextmanager
async def server(deed: str, place: str = "0", *rest: str) -> AsyncIterator[tuple[Program, int]]:
    """A server of our own, and its port once it listens (0 for a Unix socket)."""
    command = python("proc_server.py", deed, place, *rest)
    async with await Program.start(command) as program:
        port = 0
        if "/" not in place:
            port = int((await heard(program, r"^ready \(port: (\d+)\)"))[1])
        yield program, port


def free_port() -> int:
    """A port that nobody listened on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("text", "ready"),
    [
        ("port:8080", Ready("port", "8080")),
        ("port:[::1]:8080", Ready("port", "[::1]:8080")),
        ("port:localhost:80", Ready("port", "localhost:80")),
        ("http://127.0.0.1:1/x?y=z", Ready("url", "http://127.0.0.1:1/x?y=z")),
        ("https://[::1]/", Ready("url", "https://[::1]/")),
        ("/health", Ready("url", "/health")),
        ("line:Listening on: 80", Ready("line", "Listening on: 80")),
        ("notify", Ready("notify")),
    ],
)
def test_what_can_be_waited_for(text: str, ready: Ready) -> None:
    """Each way of writing it is understood, and can be told in words."""
    assert Ready.parse(text) == ready
    assert ready.value in str(ready)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "8080",
            "port",
            "port:",
            "port:0",
            "port:65536",
            "port:x",
            "port:-1",
            "line",
            "line:",
        ),
        *("notify:", "notify:x", "http:", "http://", "https:///x", "http://[::1", "http://h:x/"),
        *("ftp://host/", "/a b", "/a\r\nX: y", "health", "file:///etc/passwd", "http://h:99999/"),
    ],
)
def test_what_cannot_be_waited_for(text: str) -> None:
    """Whatever else is written is an error that tells what is allowed."""
    with pytest.raises(BadReady) as caught:
        Ready.parse(text)
    assert caught.value.advice
    assert caught.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize("deed", ["plain", "six", "busy", "missing", "flood"])
def test_a_server_answers(deed: str) -> None:
    """Any status below 500 will do, over IPv4 and IPv6, at last, and without an end."""

    async def story() -> None:
        async with server(deed) as (program, port):
            host = "::1" if deed == "six" else "127.0.0.1"
            began = monotonic()
            at = await wait_ready(program, Ready.parse("/x"), LONG_S, Place(host, port))
            assert began < at < monotonic()
            await heard(program, "^asked GET /x HTTP/1.1$")
            name = f"[{host}]" if ":" in host else host
            assert await wait_ready(None, Ready.parse(f"http://{name}:{port}/"), LONG_S) > at
            assert await wait_ready(program, Ready.parse(f"port:{port}"), LONG_S) > at
            assert await wait_ready(program, Ready.parse(f"port:{name}:{port}"), LONG_S) > at

    run(story())


def test_a_server_on_a_unix_socket(tmp_path: Path) -> None:
    """The server's own address may be a path, which is not there at first."""

    async def story() -> None:
        path = str(tmp_path / "app.sock")
        async with server("plain", path) as (program, _):
            await wait_ready(program, Ready.parse("/"), LONG_S, Place(unix=path))

    run(story())


def test_a_server_with_tls(tmp_path: Path) -> None:
    """Its certificate is not looked at."""
    pem = tmp_path / "both.pem"
    key = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=else")
    files = ("-keyout", str(pem), "-out", str(tmp_path / "cert.pem"))
    assert shutil.which("openssl"), "no openssl: install the package openssl"
    subprocess.run(["openssl", *key, *files], check=True, capture_output=True)
    pem.write_text(pem.read_text() + (tmp_path / "cert.pem").read_text())

    async def story() -> None:
        async with server("plain", "0", str(pem)) as (program, port):
            await wait_ready(program, Ready.parse(f"https://localhost:{port}/"), LONG_S)
            await wait_ready(program, Ready.parse("/"), LONG_S, Place(port=port, tls=True))
        async with server("plain") as (program, port):
            with pytest.raises(NotReady, match="within"):
                await wait_ready(program, Ready.parse(f"https://127.0.0.1:{port}/"), SHORT_S)

    run(story())


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        ("broken", "it answered HTTP/1.1 500 Internal Server Error"),
        ("garbage", "this is not HTTP"),
        ("close", "it closed the connection without an answer"),
        ("hang", "no answer yet"),
        ("endless", "its answer begins with a line without end"),
    ],
)
def test_a_server_that_gives_no_good_answer(deed: str, said: str) -> None:
    """At the limit the last thing seen is told."""

    async def story() -> None:
        async with server(deed) as (program, port):
            with pytest.raises(NotReady) as caught:
                await wait_ready(program, Ready.parse("/"), SHORT_S, Place(port=port))
            error = caught.value
            assert error.code == "not-ready"
            assert error.exit_code is ExitCode.INCONCLUSIVE
            assert error.ended is None
            assert said in error.evidence[0]
            assert f"127.0.0.1:{port}" in error.evidence[0]
            assert error.what.startswith("it was not ready within 0.4 s")

    run(story())


def test_a_port_that_stays_closed() -> None:
    """The refusal is told, and what the program printed."""

    async def story() -> None:
        async with await Program.start(["sh", "-c", "echo thinking; sleep 60"]) as program:
            await heard(program, "thinking")
            with pytest.raises(NotReady) as caught:
                await wait_ready(program, Ready.parse(f"port:{free_port()}"), SHORT_S)
            assert "connection refused" in caught.value.evidence[0]
            assert caught.value.evidence[-1] == "it printed: thinking"

    run(story())


def test_a_program_that_dies_before() -> None:
    """Its exit status and its last words are told at once, however long the limit."""

    async def story() -> None:
        script = "echo 'cannot bind' >&2; exit 3"
        for text in ("port:1", "http://127.0.0.1:1/", "line:never", "notify"):
            async with await Program.start(["sh", "-c", script], notify=True) as program:
                with pytest.raises(NotReady) as caught:
                    await wait_ready(program, Ready.parse(text), LONG_S)
                assert caught.value.what == "it ended before it was ready: exit status 3"
                assert caught.value.ended is program.ended
                assert "it printed: cannot bind" in caught.value.evidence

    run(story())


def test_a_program_that_goes_into_the_background() -> None:
    """What it leaves is named, and the advice is to stay in the foreground."""

    async def story() -> None:
        async with await Program.start(["sh", "-c", "sleep 60 & exit 0"]) as program:
            with pytest.raises(NotReady) as caught:
                await wait_ready(program, Ready.parse("line:never"), LONG_S)
            assert caught.value.evidence[0] == f"it left others behind: pid {program.left()[0]}"
            assert "foreground" in caught.value.advice

    run(story())


def test_a_line() -> None:
    """A line from before, a line to come, with the time at which it was read; else the limit."""

    async def story() -> None:
        script = "echo one two three; read x < /dev/null; sleep 0.1; echo four; sleep 60"
        async with await Program.start(["sh", "-c", script]) as program:
            first = await wait_ready(program, Ready.parse("line:two"), LONG_S)
            again = await wait_ready(program, Ready.parse("line:two"), LONG_S)
            assert first == again == program.lines[0][0]
            fourth = await wait_ready(program, Ready.parse("line:four"), LONG_S)
            assert fourth == program.lines[1][0]
            with pytest.raises(NotReady, match="a line with 'five'") as caught:
                await wait_ready(program, Ready.parse("line:five"), SHORT_S)
            assert caught.value.evidence == ("it printed: one two three", "it printed: four")

    run(story())


def test_a_notice() -> None:
    """READY=1 will do; a status alone is told when the time is over."""

    async def story() -> None:
        words = ("STATUS=warming up", "READY=1")
        async with await Program.start(python("proc_notify.py", *words), notify=True) as program:
            at = await wait_ready(program, Ready.parse("notify"), LONG_S)
            assert program.notify is not None
            assert at == program.notify.ready_at
            assert await wait_ready(program, Ready.parse("notify"), LONG_S) == at
        async with await Program.start(python("proc_notify.py", words[0]), notify=True) as program:
            await heard(program, "sent")
            with pytest.raises(NotReady) as caught:
                await wait_ready(program, Ready.parse("notify"), SHORT_S)
            assert caught.value.evidence[0] == "it told its status: warming up"

    run(story())


def test_what_makes_no_sense_here() -> None:
    """A path without a server, a line without a program, a notice without a socket."""

    async def story() -> None:
        async with await Program.start(["sleep", "60"]) as program:
            for whose, text in (
                (program, "/health"),
                (None, "line:x"),
                (None, "notify"),
                (program, "notify"),
            ):
                with pytest.raises(BadReady):
                    await wait_ready(whose, Ready.parse(text), LONG_S)

    run(story())


def test_a_cancelled_wait() -> None:
    """Who is cancelled stops asking."""

    async def story() -> None:
        async with server("hang") as (program, port):
            ready = Ready.parse(f"http://127.0.0.1:{port}/")
            task = asyncio.create_task(wait_ready(program, ready, LONG_S))
            await heard(program, "^asked")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert len(asyncio.all_tasks()) == 1

    run(story())
