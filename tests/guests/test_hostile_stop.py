"""Hostile peers and failing surroundings through the whole of `lastcall stop` and `check`.

Whatever a monitor or an agent does, the command ends in time, says in words what is wrong with
which target, names no ending that nobody saw, and lets nobody else wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from cli.commands import COMMAND, Said, environment, lastcall
from guests import peers, stopping, zoo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from guests.peers import Handler, Reader, Writer

LIMIT_S = 100
QEMU = peers.Transcript(peers.TRANSCRIPTS / "qemu-7.2-pc.jsonl")
DEEP = b"[" * 200_000 + b"]" * 200_000
DONE = b'{"return": {}, "id": "@ID@"}\r\n'
POWERED_OFF = (
    b'{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}, '
    b'"timestamp": {"seconds": 1, "microseconds": 2}}\r\n'
)
PRESS = "system_powerdown"


def liar(
    command: str,
    *chunks: bytes,
    closes: bool = False,
    endless: bytes = b"",
    answers: Mapping[str, Any] | None = None,
) -> Handler:
    """As QEMU, but for one command; it takes a press, and nothing follows.

    Args:
        command: at which it misbehaves.
        *chunks: what it says then; the command's own number stands for `@ID@`.
        closes: whether it closes the connection then.
        endless: what it says again and again from then on.
        answers: what it returns to other commands than QEMU does.
    """

    async def serve(reader: Reader, writer: Writer) -> None:
        peers.say(writer, QEMU.greeting)
        commands = peers.Commands(reader)
        while (said := await commands.next()) is not None:
            name, number = said["execute"], str(said.get("id", ""))
            if name == command:
                for chunk in chunks:
                    writer.write(chunk.replace(b"@ID@", number.encode()))
                    await writer.drain()
                while endless:
                    writer.write(endless)
                    await writer.drain()
                    await asyncio.sleep(0)
                if closes:
                    return
            elif answers is not None and name in answers:
                peers.say(writer, {"return": answers[name], "id": number})
            elif name == PRESS:
                peers.say(writer, {"return": {}, "id": number})
            else:
                peers.say(writer, QEMU.answer(said))

    return serve


def another_comes() -> Handler:
    """It closes the connection at the press; who answers from then on is another guest."""
    pressed = asyncio.Event()

    async def serve(reader: Reader, writer: Writer) -> None:
        if pressed.is_set():
            other = {"query-uuid": {"UUID": "99999999-2222-3333-4444-555555555555"}}
            return await liar("nothing", answers=other)(reader, writer)
        await liar(PRESS, closes=True)(reader, writer)
        return pressed.set()

    return serve


@dataclass(frozen=True, slots=True)
class Hostile:
    """A peer, and what is said of it.

    Args:
        serve: what it does.
        word: stands in the error, or in what came of the press.
        ending: of the stop; empty: it cannot even be opened.
    """

    serve: Handler
    word: str
    ending: str = ""


STILL = "still running"
MAYBE = "it may have come through"
BEFORE = {
    "never-greets": Hostile(peers.silent, "did not greet within 3 s"),
    "half-a-greeting": Hostile(peers.hostile(greeting=peers.GREETING[:40]), "did not greet"),
    "another-protocol": Hostile(
        peers.hostile(greeting=b"SSH-2.0-OpenSSH_9.2\r\n"), "sent what is no JSON object"
    ),
    "a-megabyte": Hostile(peers.hostile(greeting=b"x" * (3 << 20)), "line longer than 1 MiB"),
    "no-utf-8": Hostile(peers.hostile(greeting=b'"\xff\xfe"\r\n'), "no JSON object"),
    "never-negotiates": Hostile(peers.hostile(answers=b""), "did not negotiate"),
    "floods-at-once": Hostile(
        peers.endlessly(b'{"event": "RTC_CHANGE"}\r\n' * 50), "does not speak QMP"
    ),
    "closes": Hostile(liar("query-uuid", closes=True), "closed the connection"),
    "half-an-answer": Hostile(
        liar("query-uuid", b'{"return": 7, "id": "@ID@"}'), "did not answer query-uuid"
    ),
    "an-answer-of-nonsense": Hostile(
        liar("query-uuid", b'{"return": 7, "id": "@ID@"}\r\n'), "UUID makes no sense"
    ),
    "a-name-of-half-a-megabyte": Hostile(
        liar("nothing", answers={"query-name": {"name": "A" * 500_000}}), "name makes no sense"
    ),
    "refuses-with-escapes": Hostile(
        liar(
            "query-uuid",
            b'{"id": "@ID@", "error": {"class": "X", "desc": "no \\u001b[31mway\\u202e"}}\r\n',
        ),
        "QEMU refused query-uuid: no ?[31mway",
    ),
}
AT_THE_PRESS = {
    "no-answer": Hostile(liar(PRESS), "it may come through later", STILL),
    "answers-nobody": Hostile(liar(PRESS, b'{"return": {}}\r\n'), "did not answer", STILL),
    "answers-another": Hostile(
        liar(PRESS, b'{"return": {}, "id": "other"}\r\n'), "did not answer", STILL
    ),
    "closes-then": Hostile(liar(PRESS, closes=True), MAYBE, STILL),
    "half-a-line-then": Hostile(liar(PRESS, b'{"retu', closes=True), "half a line", STILL),
    "nonsense-then": Hostile(liar(PRESS, b"\xff\xfe\r\n"), "no JSON object", STILL),
    "a-megabyte-then": Hostile(liar(PRESS, b"x" * (3 << 20)), "longer than 1 MiB", STILL),
    "too-deep-then": Hostile(liar(PRESS, DEEP + b"\r\n"), "no JSON object", STILL),
    "events-without-end": Hostile(
        liar(PRESS, endless=b'{"event": "RTC_CHANGE"}\r\n' * 50), "does not stop talking", STILL
    ),
    "refuses": Hostile(
        liar(PRESS, b'{"id": "@ID@", "error": {"class": "GenericError", "desc": "nope"}}\r\n'),
        "QEMU refused system_powerdown: nope",
        STILL,
    ),
    "says-off-and-runs-on": Hostile(liar(PRESS, DONE, POWERED_OFF), "button pressed", STILL),
    "says-off-and-closes": Hostile(
        liar(PRESS, DONE, POWERED_OFF, closes=True), "button pressed", "orderly"
    ),
    "becomes-another": Hostile(another_comes(), MAYBE, "unknown"),
    "status-never": Hostile(liar("query-status"), "button pressed", STILL),
    "registers-of-garbage": Hostile(
        liar("human-monitor-command", b'{"return": "what? \\u001b[31m", "id": "@ID@"}\r\n'),
        "button pressed",
        STILL,
    ),
    "numbers-below-zero": Hostile(
        liar("nothing", answers={"query-blockstats": [{"stats": {"wr_bytes": -5}}]}),
        "button pressed",
        STILL,
    ),
    "a-screen-of-nothing": Hostile(liar("screendump", DONE), "button pressed", STILL),
    "a-screen-never": Hostile(liar("screendump"), "button pressed", STILL),
}


@contextlib.asynccontextmanager
async def served(folder: Path, handlers: Mapping[str, Handler]) -> AsyncIterator[dict[str, str]]:
    """All of these at once: the address of each."""
    async with contextlib.AsyncExitStack() as stack:
        addresses = {}
        for name, handler in handlers.items():
            path = await stack.enter_async_context(peers.listening(folder / name, handler))
            addresses[name] = f"qmp:{path}"
        yield addresses


async def command(state: Path, *words: str) -> tuple[Said, float]:
    """Run the command beside what this loop serves; how long it took, in seconds."""
    begun_s = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(state),
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), LIMIT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    took_s = time.monotonic() - begun_s
    return Said(process.returncode or 0, out.decode(), err.decode()), took_s


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, stopping.Said], Said, float]:
    """What one command that stops all of them says, and how long it takes."""
    state = tmp_path_factory.mktemp("state")

    async def main() -> tuple[dict[str, stopping.Said], Said, float]:
        everybody = {name: peer.serve for name, peer in {**BEFORE, **AT_THE_PRESS}.items()}
        async with served(tmp_path_factory.mktemp("p"), everybody) as addresses:
            words = ("stop", "--json", "--grace", "1s", *addresses.values())
            said, took_s = await command(state, *words)
        by_address = stopping.read(said.out)
        return {name: by_address[address] for name, address in addresses.items()}, said, took_s

    return asyncio.run(main())


Shelf = tuple[dict[str, stopping.Said], Said, float]


@pytest.mark.parametrize("name", BEFORE)
def test_what_cannot_be_opened(name: str, shelf: Shelf) -> None:
    """A peer that is no QEMU in order is an error in words, and nothing was asked of it."""
    said = shelf[0][name]
    assert not said.events
    assert said.result["error"]["code"] == "guest", said.result
    assert BEFORE[name].word in json.dumps(said.result["error"], ensure_ascii=False), said.result
    assert said.result["exit_code"] == 1


@pytest.mark.parametrize("name", AT_THE_PRESS)
def test_what_goes_wrong_later(name: str, shelf: Shelf) -> None:
    """The stop goes on as far as it can, pressed once at most, and says what is known."""
    said, peer = shelf[0][name], AT_THE_PRESS[name]
    assert said.ending == peer.ending, said.result
    asked = said.of("asked")
    assert [peer.word in each["detail"] for each in asked] == [True], asked
    assert len(said.of("finished")) == 1


def test_nobody_waits_for_another(shelf: Shelf) -> None:
    """Thirty hostile peers at once take as long as the slowest, and every press comes soon."""
    by_name, said, took_s = shelf
    assert "Traceback" not in said.err
    assert took_s < 40
    prompt = set(AT_THE_PRESS) - {"status-never"}
    for name in prompt:
        first_s = next(at_s for kind, _, at_s in by_name[name].events if kind == "intended")
        begun_s = by_name[name].events[0][2]
        assert first_s - begun_s < 8, name


def test_errors_name_their_target(tmp_path: Path) -> None:
    """Of several targets in plain lines each error says which one it means, without escapes."""
    names = ("another-protocol", "refuses-with-escapes")

    async def main() -> None:
        handlers = {name: BEFORE[name].serve for name in names}
        async with served(tmp_path, handlers) as addresses:
            for words in (("stop",), ("stop", "--quiet"), ("check",)):
                said, _ = await command(tmp_path / "state", *words, *addresses.values())
                assert said.code == 1, said
                for address in addresses.values():
                    assert f"lastcall: {address}: QEMU" in said.err, said
                assert "\x1b" not in said.err
                assert "\u202e" not in said.err

    asyncio.run(main())


def test_check_says_what_it_could_not_learn(tmp_path: Path) -> None:
    """A check of hostile peers ends in time; garbage is "not known", not a verdict."""
    names = ("status-never", "registers-of-garbage", "a-screen-never")

    async def main() -> tuple[Said, float]:
        handlers = {name: AT_THE_PRESS[name].serve for name in names}
        async with served(tmp_path, handlers) as addresses:
            return await command(tmp_path / "state", "check", "--json", *addresses.values())

    said, took_s = asyncio.run(main())
    assert took_s < 20
    findings = [{finding["code"] for finding in message["findings"]} for message in said.messages]
    assert "monitor-busy" in findings[0]
    assert "listens" not in findings[1]
    assert "listens" in findings[2]


# Agents


def agent(answers: Mapping[str, Any], *, silent: bool = False, flood: bytes = b"") -> Handler:
    """A guest agent that answers from a table; what does not stand there is met with silence."""

    async def serve(reader: Reader, writer: Writer) -> None:
        commands = peers.Commands(reader)
        while (said := await commands.next()) is not None:
            while flood:
                writer.write(flood)
                await writer.drain()
                await asyncio.sleep(0)
            if silent:
                continue
            if said["execute"] == "guest-sync-delimited":
                writer.write(b"\xff")
                peers.say(writer, {"return": said["arguments"]["id"]})
            elif said["execute"] in answers:
                peers.say(writer, answers[said["execute"]])

    return serve


LINUX = {"return": {"id": "debian", "pretty-name": "Debian \x1b[2J\u202e12", "name": "x" * 9000}}
WINDOWS = {"return": {"id": "mswindows", "pretty-name": "Windows 11"}}
CROWD = {"return": [{"user": f"u{n}\n", "login-time": 1.0} for n in range(3000)]}


NOBODY: dict[str, Any] = {"return": []}
KNOWN = {"guest-get-osinfo": LINUX, "guest-get-users": NOBODY}
ASKED = "guest agent asked to power off"
SILENT = "no guest agent answers"
AGENTS = {
    "idle": (agent(KNOWN), ASKED),
    "a-crowd": (agent({**KNOWN, "guest-get-users": CROWD}), ASKED),
    "hangs-later": (agent({"guest-get-osinfo": LINUX}), SILENT),
    "hangs": (agent({}, silent=True), SILENT),
    "floods": (agent({}, flood=b'{"return": 1}\n' * 500), "does not stop talking"),
    "windows": (
        agent({"guest-get-osinfo": WINDOWS, "guest-get-users": NOBODY}),
        "ACPI power button pressed",
    ),
    "nonsense": (agent({"guest-get-osinfo": {"return": 7}}), "does not say what it runs"),
    "refuses": (
        agent({**KNOWN, "guest-shutdown": {"error": {"desc": "no"}}}),
        "the guest agent refused guest-shutdown: no",
    ),
}


def test_lying_agents(tmp_path: Path) -> None:
    """An agent that lies, hangs or floods ends in an ending that somebody saw, in time."""
    sockets = {name: f"{tmp_path}/{name}-agent" for name in AGENTS}
    monitors = {}
    for name, at in sockets.items():
        chardev = f"disconnected:unix:{at},server=on"
        row = {"frontend-open": True, "filename": chardev, "label": "ga0"}
        monitors[name] = liar("nothing", answers={"query-chardev": [row]})

    async def main() -> tuple[Said, float, dict[str, str]]:
        async with contextlib.AsyncExitStack() as stack:
            for name, (serve, _) in AGENTS.items():
                await stack.enter_async_context(peers.listening(sockets[name], serve))
            addresses = await stack.enter_async_context(served(tmp_path, monitors))
            words = ("stop", "--grace", "1s", "--ask", "agent", *addresses.values())
            return *(await command(tmp_path / "state", *words)), addresses

    said, took_s, addresses = asyncio.run(main())
    assert (said.code, took_s < 40) == (20, True), said
    for name, (_, word) in AGENTS.items():
        asked = [
            line for line in said.out.splitlines() if f" asked     {addresses[name]}  " in line
        ]
        assert [word in line for line in asked] == [True], (name, asked)
        assert f"still running: {addresses[name]}: " in said.out
    for bad in ("\x1b", "\u202e", "Traceback"):
        assert bad not in said.out + said.err


# A real QEMU in bad surroundings


def test_hung_and_taken_beside_a_healthy_one(tmp_path: Path) -> None:
    """A QEMU that hangs and one whose monitor is taken are taken away; nobody waits for them."""
    with (
        zoo.start("stops") as hung,
        zoo.start("stops") as taken,
        zoo.start("stops") as healthy,
        socket.socket(socket.AF_UNIX) as other,
    ):
        for guest in (hung, taken, healthy):
            guest.wait_up()
        other.connect(str(taken.qmp))
        assert other.recv(10)
        os.kill(hung.pid, signal.SIGSTOP)
        options = ("--grace", "1s", "--force", "--reason", "tests")
        targets = [f"qmp:{guest.qmp}" for guest in (hung, taken, healthy)]
        said = stopping.stop(targets, options, tmp_path)
        first, second, third = (said[target] for target in targets)
        assert (first.ending, second.ending, third.ending) == ("forced", "forced", "orderly")
        assert hung.wait_ended() == -signal.SIGKILL
        assert taken.wait_ended() == 0
        assert healthy.wait_ended() == 0
    for each in (first, second):
        assert "monitor-busy" in each.beforehand
    assert max(at_s for _, _, at_s in third.events) - third.events[0][2] < 8


@contextlib.contextmanager
def forwarding(path: Path, to: Path) -> Iterator[None]:
    """Another program that listens, and hands on to QEMU's monitor all that it is told."""
    program = (
        "import asyncio, sys\n"
        "async def pump(reader, writer):\n"
        "    while data := await reader.read(65536):\n"
        "        writer.write(data)\n"
        "    writer.close()\n"
        "async def serve(reader, writer):\n"
        "    r, w = await asyncio.open_unix_connection(sys.argv[2])\n"
        "    await asyncio.gather(pump(reader, w), pump(r, writer))\n"
        "async def main():\n"
        "    async with await asyncio.start_unix_server(serve, sys.argv[1]) as server:\n"
        "        print('ready', flush=True)\n"
        "        await server.serve_forever()\n"
        "asyncio.run(main())\n"
    )
    words = (sys.executable, "-c", program, str(path), str(to))
    child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        yield
        assert child.poll() is None, "the forwarder was ended"
    finally:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


def test_behind_a_forwarder(tmp_path: Path) -> None:
    """The process that listens is no QEMU: force is `quit` alone, and the forwarder lives on."""
    with zoo.start("takes-and-ignores") as guest:
        guest.wait_up()
        between = guest.folder / "between"
        with forwarding(between, guest.qmp):
            said = lastcall(tmp_path, "stop", f"qmp:{between}", "--grace", "1s", "--force")
            assert (said.code, "which is no QEMU" in said.out) == (11, True), said
            assert guest.wait_ended() == 0


def test_force_that_cannot_be_carried_out(tmp_path: Path) -> None:
    """A peer that refuses to quit, and is no QEMU: nobody is killed, and it is left running."""
    refusing = b'{"id": "@ID@", "error": {"class": "GenericError", "desc": "never"}}\r\n'

    async def main() -> Said:
        async with served(tmp_path, {"q": liar("quit", refusing)}) as at:
            words = ("stop", "--grace", "0s", "--force", at["q"])
            return (await command(tmp_path / "state", *words))[0]

    said = asyncio.run(main())  # this process listens there, and is still here
    assert (said.code, "its QEMU cannot be sent SIGKILL" in said.out) == (20, True), said


def test_not_permitted(tmp_path: Path) -> None:
    """A monitor that this user may not reach: code 4, and who may."""
    with zoo.start("stops") as guest:
        drop = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
        mode = guest.folder.stat().st_mode
        guest.folder.chmod(0)
        try:
            done = subprocess.run(
                [*(drop if os.geteuid() == 0 else ()), *COMMAND, "stop", f"qmp:{guest.qmp}"],
                env=environment(tmp_path),
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        finally:
            guest.folder.chmod(mode)
        assert (done.returncode, "ask as QEMU's user, or as root" in done.stderr) == (4, True), done
        assert guest.process.poll() is None


def test_a_full_disk_for_pictures(tmp_path: Path) -> None:
    """Pictures that find no room are left out without a trace; the explanation stands."""
    if shutil.which("unshare") is None:
        raise AssertionError("unshare is missing: apt-get install util-linux")
    state = tmp_path / "state"
    (state / "screens").mkdir(parents=True, mode=0o700)
    state.chmod(0o700)
    fill = (
        'mount -t tmpfs -o size=4k,mode=700 none "$0" && head -c 4096 /dev/zero > "$0/full" '
        '&& "$@"; code=$?; ls "$0"; exit $code'
    )
    own = () if os.geteuid() == 0 else ("--map-root-user",)
    with zoo.start("reason") as guest:
        guest.wait_up()
        words = ("stop", f"qmp:{guest.qmp}", "--grace", "6s")
        done = subprocess.run(
            [
                "unshare",
                "--mount",
                *own,
                "sh",
                "-c",
                fill,
                str(state / "screens"),
                *COMMAND,
                *words,
            ],
            env=environment(state),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (20, ""), done
    assert "it waits for a person to give the reason" in done.stdout
    assert "seen: picture:" not in done.stdout
    assert done.stdout.splitlines()[-1] == "full"


def test_nowhere_to_record(tmp_path: Path) -> None:
    """Without a state folder the guest is stopped all the same, and that is said."""
    (tmp_path / "state").write_text("in the way")
    with zoo.start("stops") as guest:
        guest.wait_up()
        said = lastcall(tmp_path / "state", "stop", f"qmp:{guest.qmp}")
        assert (said.code, "this stop is not recorded" in said.out) == (0, True), said
        assert guest.wait_ended() == 0
