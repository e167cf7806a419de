"""A session with QEMU's monitor: its limits, against peers that keep none."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from guests import fuzz_qmp, peers
from lastcall.targets.guest.machine import Fault, Trouble
from lastcall.targets.guest.qmp import reading, session
from lastcall.targets.guest.qmp.session import Session

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PATIENCE_S = 20.0
DEEP = b"[" * 200_000 + b"]" * 200_000


class Heard:
    """What a session tells."""

    def __init__(self) -> None:
        self.events: list[Mapping[str, object]] = []
        self.ended: list[Trouble] = []

    def event(self, event: Mapping[str, object]) -> None:
        """An event came; it must make sense."""
        reading.happening(event, 0.0)
        self.events.append(event)


async def _open(path: str, heard: Heard, greeting_s: float = 3.0) -> Session:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    return await Session.open(sock, heard.event, heard.ended.append, greeting_s)


async def _until(fact: Any, what: str) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not fact():
        assert time.monotonic() < end_s, f"waited in vain for: {what}"
        await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("greeting", "answers", "fault", "word"),
    [
        (b"", None, Fault.HUNG, "did not greet"),
        (peers.GREETING[:40], None, Fault.HUNG, "did not greet"),
        (peers.GREETING, b"", Fault.HUNG, "did not negotiate"),
        (b'{"QMP": 3}\r\n', None, Fault.BROKEN, "does not speak QMP"),
        (b'{"return": {}}\r\n', None, Fault.BROKEN, "does not speak QMP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", None, Fault.BROKEN, "no JSON object"),
        (b"[1]\r\n", None, Fault.BROKEN, "no JSON object"),
        (b'"\xff\xfe"\r\n', None, Fault.BROKEN, "no JSON object"),
        (DEEP + b"\r\n", None, Fault.BROKEN, "no JSON object"),
        (b"x" * (3 << 20), None, Fault.BROKEN, "longer than 1 MiB"),
        (peers.GREETING, b'{"error": {}}\r\n', Fault.BROKEN, "does not speak QMP"),
        (peers.GREETING, b'{"return": {}}\r\n{"retu\r\n', Fault.BROKEN, "no JSON object"),
        (peers.GREETING, b'{"return": {}}\r\n{"error": {}}\r\n', Fault.BROKEN, "does not speak"),
    ],
)
def test_bad_greetings(
    tmp_path: Path, greeting: bytes, answers: bytes | None, fault: Fault, word: str
) -> None:
    """A peer that does not greet and negotiate as QEMU does is refused with a word, in time."""

    async def main() -> Trouble:
        handler = peers.hostile(greeting=greeting, answers=answers)
        async with peers.listening(tmp_path / "q", handler) as path:
            try:
                opened = await _open(path, Heard(), 0.5)
            except Trouble as trouble:
                return trouble
            with pytest.raises(Trouble) as raised:
                await opened.execute("query-status")
            return raised.value

    trouble = asyncio.run(main())
    assert (trouble.fault, word in trouble.what) == (fault, True), trouble.what


def test_a_taken_monitor_is_explained(tmp_path: Path) -> None:
    """Silence instead of a greeting says that another program may hold the monitor."""

    async def main() -> None:
        async with peers.listening(tmp_path / "q", peers.silent) as path:
            with pytest.raises(Trouble, match="did not greet") as raised:
                await _open(path, Heard(), 0.2)
            assert "libvirt:NAME" in raised.value.advice

    asyncio.run(main())


@pytest.mark.parametrize(
    ("then", "fault", "word"),
    [
        (peers.saying(b'{"return": 7, "id": "@ID@"}'), Fault.HUNG, "did not answer"),
        (peers.saying(b'{"return": 7, "id": "other"}\r\n'), Fault.HUNG, "did not answer"),
        (peers.saying(b'{"return": 7}\r\n'), Fault.HUNG, "did not answer"),
        (peers.silent, Fault.HUNG, "did not answer query-status within"),
        (peers.saying(closes=True), Fault.BROKEN, "closed the connection"),
        (peers.saying(b'{"retu', closes=True), Fault.BROKEN, "half a line"),
        (peers.saying(b'{"return": 7, "id": 7}\r\n'), Fault.BROKEN, "an id that was never"),
        (peers.saying(b'{"return": 7, "id": ["@ID@"]}\r\n'), Fault.BROKEN, "an id that was"),
        (peers.saying(b'{"id": "@ID@"}\r\n'), Fault.BROKEN, "does not speak QMP"),
        (peers.saying(b'{"id": "@ID@", "error": {"class": 1}}\r\n'), Fault.BROKEN, "not speak"),
        (peers.saying(b'{"error": {"class": "X", "desc": "Y"}}\r\n'), Fault.BROKEN, "not speak"),
        (peers.saying(peers.GREETING), Fault.BROKEN, "a second greeting"),
        (peers.saying(b"\xff\xfe\r\n"), Fault.BROKEN, "no JSON object"),
        (peers.saying(b"x" * (3 << 20)), Fault.BROKEN, "longer than 1 MiB"),
        (peers.saying(DEEP + b"\r\n"), Fault.BROKEN, "no JSON object"),
        (peers.saying(b'{"event": 7}\r\n'), Fault.BROKEN, "event makes no sense"),
        (peers.saying(b'{"event": "STOP", "data": 7}\r\n'), Fault.BROKEN, "event makes no"),
        (
            peers.saying(b'{"event": "SHUTDOWN", "data": {"guest": "yes"}}\r\n'),
            Fault.BROKEN,
            "event makes no sense",
        ),
        (
            peers.saying(b'{"id": "@ID@", "error": {"class": "X", "desc": "a\\u001bb"}}\r\n'),
            Fault.REFUSED,
            "QEMU refused query-status: a?b",
        ),
        (peers.endlessly(b'{"event": "RTC_CHANGE"}\r\n' * 50), Fault.BROKEN, "stop talking"),
        (peers.endlessly(b'{"return": 1, "id": "x"}\r\n'), Fault.BROKEN, "stop talking"),
        (
            peers.endlessly(b'{"event": "X", "data": {"a": "' + b"y" * 500_000 + b'"}}\r\n'),
            Fault.BROKEN,
            "stop talking",
        ),
    ],
)
def test_bad_answers(tmp_path: Path, then: peers.Handler, fault: Fault, word: str) -> None:
    """A peer that answers badly fails the command with a word; other work goes on meanwhile."""

    async def main() -> Trouble:
        heard = Heard()
        async with peers.listening(tmp_path / "q", peers.hostile(then)) as path:
            opened = await _open(path, heard)
            turns = 0

            async def count() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            counting = asyncio.ensure_future(count())
            with pytest.raises(Trouble) as raised:
                await opened.execute("query-status", limit_s=0.5 if fault is Fault.HUNG else 15)
            counting.cancel()
            assert turns > 1
            if fault is Fault.BROKEN:
                await opened.over(PATIENCE_S)
                with pytest.raises(Trouble):
                    await opened.execute("query-status")
                assert [each.fault for each in heard.ended] in ([Fault.BROKEN], [])
                assert not opened.alive
            else:
                assert opened.alive
                opened.close()
                await opened.over(PATIENCE_S)
            return raised.value

    trouble = asyncio.run(main())
    assert (trouble.fault, word in trouble.what) == (fault, True), trouble.what


def test_a_late_answer_is_dropped(tmp_path: Path) -> None:
    """What comes after its limit neither confuses the next command nor stays in memory."""

    async def then(reader: peers.Reader, writer: peers.Writer) -> None:
        commands = peers.Commands(reader)
        first, second = await commands.next(), await commands.next()
        assert first is not None
        assert second is not None
        peers.say(writer, {"return": "late", "id": first["id"]})
        peers.say(writer, {"return": "right", "id": second["id"]})

    async def main() -> None:
        async with peers.listening(tmp_path / "q", peers.hostile(then)) as path:
            opened = await _open(path, Heard())
            with pytest.raises(Trouble, match="did not answer"):
                await opened.execute("query-status", limit_s=0.1)
            assert await opened.execute("query-name", limit_s=PATIENCE_S) == "right"
            assert not opened._client._pending
            opened.close()
            await opened.over(PATIENCE_S)

    asyncio.run(main())


def test_events_are_told_and_not_kept(tmp_path: Path) -> None:
    """Each event is told at once, and the library keeps none of them."""
    event = b'{"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}}\r\n'

    async def main() -> None:
        heard = Heard()
        handler = peers.hostile(peers.saying(event * 100))
        async with peers.listening(tmp_path / "q", handler) as path:
            opened = await _open(path, heard)
            with pytest.raises(Trouble):
                await opened.execute("query-status", limit_s=0.2)
            await _until(lambda: len(heard.events) == 100, "a hundred events")
            assert opened._client.events.empty()
            assert not opened._client.events.history
            opened.close()
            await opened.over(PATIENCE_S)
            assert not heard.ended

    asyncio.run(main())


def test_the_last_word_is_heard_while_we_ask() -> None:
    """What a peer said before it closed is told, even where we write to it after that."""
    last = b'{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-panic"}}\r\n'

    async def main() -> None:
        heard = Heard()
        ours, theirs = socket.socketpair()
        theirs.sendall(peers.GREETING + b'{"return": {}}\r\n')
        opened = await Session.open(ours, heard.event, heard.ended.append)
        theirs.sendall(last)
        theirs.close()  # nothing is read between this and the next line
        with pytest.raises(Trouble):
            await opened.execute("query-status", limit_s=PATIENCE_S)
        await opened.over(PATIENCE_S)
        assert [each["event"] for each in heard.events] == ["SHUTDOWN"]
        assert len(heard.ended) == 1

    asyncio.run(main())


def test_a_peer_that_does_not_read_holds_nothing_up(tmp_path: Path) -> None:
    """Commands to a peer that does not read fail in time, and closing does not wait for it."""

    async def then(_reader: peers.Reader, writer: peers.Writer) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    async def main() -> None:
        async with peers.listening(tmp_path / "q", peers.hostile(then)) as path:
            opened = await _open(path, Heard())
            large = {"x": "y" * 700_000}
            for fault in (Fault.HUNG, Fault.CUT, Fault.CUT):
                with pytest.raises(Trouble) as raised:
                    await opened.execute("query-status", large, 0.1)
                assert raised.value.fault is fault
            assert "was not sent" in raised.value.what
            opened.close()
            await asyncio.wait_for(opened.over(PATIENCE_S), PATIENCE_S)
            assert opened._watcher.done()

    asyncio.run(main())


def test_nothing_reaches_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The library's own log of errors is kept quiet, even where the root logger prints."""
    printing = logging.StreamHandler()
    logger = logging.getLogger("qemu.qmp")
    # pytest listens to loggers that do not propagate: as it is without pytest.
    logger.handlers[:] = [logging.NullHandler()]
    logging.getLogger().addHandler(printing)

    async def main() -> None:
        async with peers.listening(tmp_path / "q", peers.hostile(greeting=b"x\r\n")) as path:
            with pytest.raises(Trouble):
                await _open(path, Heard())

    try:
        asyncio.run(main())
        gc.collect()
        assert capfd.readouterr() == ("", "")
        assert not logger.propagate
    finally:
        logging.getLogger().removeHandler(printing)


def test_many_sessions_are_light(tmp_path: Path) -> None:
    """A few hundred sessions at once cost tens of KB each, not more."""
    import tracemalloc

    many = 200

    async def main() -> None:
        async with peers.listening(tmp_path / "q", peers.replaying("qemu-7.2-pc")) as path:
            opened = [await _open(path, Heard()) for _ in range(3)]  # what all of them share
            tracemalloc.start()
            before, _ = tracemalloc.get_traced_memory()
            opened += [await _open(path, Heard()) for _ in range(many)]
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            said = await asyncio.gather(*(each.execute("query-status") for each in opened))
            assert {reading.run_state(each) for each in said} == {"running"}
            for each in opened:
                each.close()
            await asyncio.gather(*(each.over(PATIENCE_S) for each in opened))
            # The stand-in's own ends are counted with them.
            assert (after - before) / many < 80 * 1024

    asyncio.run(main())


def test_fuzz_for_a_moment() -> None:
    """Damaged conversations of the corpus bring nothing but `Trouble` (a few seconds of it)."""
    counts = asyncio.run(fuzz_qmp.fuzz(time.monotonic() + 4, seed=5))
    assert any(came.startswith("commands") for came in counts)
    assert any(came.startswith("agent") for came in counts)
    assert any(came.startswith("greeting") for came in counts)


def test_the_fuzzer_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted fault (a reader that lets another error through) is found by the fuzzer."""

    def careless(_said: object) -> object:
        raise KeyError("planted")

    monkeypatch.setattr(fuzz_qmp, "_ASKS", (("query-uuid", {}, careless),))
    with pytest.raises(AssertionError, match="planted"):
        asyncio.run(fuzz_qmp.fuzz(time.monotonic() + 20, seed=5))


def test_missing_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without qemu.qmp the error names the extra to install."""
    import sys

    from lastcall.errors import MissingExtra

    session._client_kind.cache_clear()
    monkeypatch.delitem(sys.modules, "lastcall.targets.guest.qmp.client", raising=False)
    monkeypatch.setitem(sys.modules, "qemu.qmp", None)

    async def main() -> None:
        async with peers.listening(tmp_path / "q", peers.silent) as path:
            with pytest.raises(MissingExtra) as raised:
                await _open(path, Heard())
            assert "lastcall[qemu]" in raised.value.advice

    asyncio.run(main())
    session._client_kind.cache_clear()
