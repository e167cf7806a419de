"""Fuzzes what QEMU's monitor and the guest agent may say, through real sessions.

    python tests/guests/fuzz_qmp.py --minutes 10 [--seed 1]

Each case takes a conversation of the corpus, damages it, and plays it to a real `Session` (over a
socket pair) or to the agent's client (over a Unix socket). Nothing but `Trouble` may come of it,
within its limits of time and memory. What breaks that is written to `--keep`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import resource
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

from guests import peers
from lastcall.targets.guest.machine import Trouble
from lastcall.targets.guest.qmp import agent, reading
from lastcall.targets.guest.qmp.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CORPUS = Path(__file__).parent / "corpus" / "qmp"
SPLIT = b"----\n"
CASE_S = 10.0
MEMORY_KB = 400 * 1024
_LIMIT_S = 0.5
_ASKS: tuple[tuple[str, dict[str, object], Callable[[object], object]], ...] = (
    ("query-uuid", {}, reading.uuid),
    ("query-status", {}, reading.power),
    ("query-current-machine", {}, lambda said: reading.flag(said, "wakeup-suspend-support")),
    ("query-cpus-fast", {}, reading.threads),
    ("query-blockstats", {}, reading.block_totals),
    ("query-chardev", {}, lambda said: reading.chardev(said, "ga0")),
    ("qom-list", {"path": "/machine/peripheral"}, reading.children),
    ("human-monitor-command", {}, lambda said: reading.port(said, "l", 0x600)),
    ("human-monitor-command", {}, lambda said: reading.port(said, "w", 0x604)),
)
_TOKENS = (
    *(b"null", b"true", b"{}", b"[]", b'""', b"-1", b"1e999", b"NaN", b"184467440737095516160"),
    *(b"\xff", b"\x00", b"\\ud800", b"\n", b"\r\n", b"{", b"}", b'"', b",", b'{"QMP": 1}\n'),
    *(b'"id": []', b'"event": 1', b'"data": []', b'"error": {}', b'"return": null', b"9" * 5000),
)


def mutate(  # noqa: C901 (a table of wounds)
    data: bytes, others: list[bytes], dice: random.Random
) -> bytes:
    """A damaged conversation: a few wounds of any kind."""
    for _ in range(dice.choice((0, 1, 1, 1, 2, 3, 8))):
        at = dice.randrange(len(data) + 1)
        end = min(len(data), at + dice.choice((1, 2, 8, 64, 1024)))
        match dice.randrange(9):
            case 0:
                data = data[:at] + bytes([dice.randrange(256)]) + data[at + 1 :]
            case 1:
                data = data[:at] + data[end:]
            case 2:
                data = data[:at] + dice.choice(_TOKENS) + data[at:]
            case 3:
                data = data[:end] + data[at:end] * dice.choice((1, 2, 50)) + data[end:]
            case 4:
                data = data[:at]
            case 5:
                other = dice.choice(others)
                data = data[:at] + other[dice.randrange(len(other)) :]
            case 6:
                depth = dice.choice((10, 1000, 100_000))
                data = data[:at] + b"[" * depth + data[at:]
            case 7:  # a value of another kind in its place
                found = list(re.finditer(rb'"[^"]*"|\d+|true|false|\[\]|\{\}', data))
                if found:
                    hit = dice.choice(found)
                    data = data[: hit.start()] + dice.choice(_TOKENS) + data[hit.end() :]
            case _:
                data = data[:at] + b"x" * dice.choice((100, 70_000, 1_100_000)) + data[at:]
    return data


async def _play(sock: socket.socket, data: bytes) -> None:
    """The peer: its greeting first, the rest once it was asked something, then nothing."""
    loop = asyncio.get_running_loop()
    first, _, rest = data.partition(SPLIT)
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(CASE_S):
            await loop.sock_sendall(sock, first)
            for _ in range(2):  # the negotiation, then the commands
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await loop.sock_recv(sock, 65536)
            await loop.sock_sendall(sock, rest)
            sock.shutdown(socket.SHUT_WR)


def _hear(event: Mapping[str, object]) -> None:
    reading.port_change(event)
    reading.happening(event, 0.0)


async def session_case(data: bytes) -> str:
    """Play it to a session: what came of it, in a word."""
    ours, theirs = socket.socketpair()
    ended: list[Trouble] = []
    theirs.setblocking(False)
    peer = asyncio.ensure_future(_play(theirs, data))
    try:
        session = await Session.open(ours, _hear, ended.append, _LIMIT_S)
    except Trouble as trouble:
        return f"greeting: {trouble.fault}"
    else:
        try:
            said = await asyncio.gather(
                *(_ask(session, name, words, read) for name, words, read in _ASKS)
            )
        finally:
            session.close()
            await session.over(1.0)
        return f"commands: {len([word for word in said if word == 'ok'])} ok"
    finally:
        peer.cancel()
        await asyncio.gather(peer, return_exceptions=True)
        theirs.close()


async def _ask(
    session: Session, name: str, words: dict[str, object], read: Callable[[object], object]
) -> str:
    try:
        read(await session.execute(name, words, _LIMIT_S))
    except Trouble as trouble:
        return trouble.fault
    return "ok"


async def agent_case(data: bytes, folder: str) -> str:
    """Play it to the agent's client: what came of it, in a word."""

    async def serve(reader: peers.Reader, writer: peers.Writer) -> None:
        command = await peers.Commands(reader).next()
        number = json.dumps((command or {}).get("arguments", {}).get("id")).encode()
        first, _, rest = data.replace(b"@SYNC@", number).partition(SPLIT)
        writer.write(first)
        await asyncio.sleep(0)
        writer.write(rest)
        await writer.drain()

    async with peers.listening(f"{folder}/agent", serve) as path:
        seen = await agent.sight(path, _LIMIT_S)
        with contextlib.suppress(Trouble):
            await agent.shutdown(path, _LIMIT_S)
    return f"agent: answers {seen.answers}"


async def fuzz(until_s: float, seed: int, keep: Path | None = None) -> dict[str, int]:
    """Play damaged conversations until then (monotonic clock): how often each thing came of it.

    Raises:
        AssertionError: something else than `Trouble` came, or it took too long or too much.
    """
    dice = random.Random(seed)
    conversations = {path.name: path.read_bytes() for path in sorted(CORPUS.iterdir())}
    others = list(conversations.values())
    counts: dict[str, int] = {}
    stray: list[object] = []  # errors that nobody takes are errors too
    asyncio.get_running_loop().set_exception_handler(lambda _loop, what: stray.append(what))
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        while time.monotonic() < until_s:
            name = dice.choice(list(conversations))
            data = mutate(conversations[name], others, dice)
            try:
                async with asyncio.timeout(CASE_S):
                    is_agent = name.startswith("agent")
                    came = await (agent_case(data, folder) if is_agent else session_case(data))
            except Exception as error:
                if keep is not None:
                    _keep(keep, f"{seed}-{sum(counts.values())}-{name}", data)
                raise AssertionError(f"seed {seed}, {name}: {error!r}") from error
            counts[came] = counts.get(came, 0) + 1
            assert not stray, f"seed {seed}, {name}: {stray}"
            grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
            assert grown_kb < MEMORY_KB, f"seed {seed}, {name}: {grown_kb} KB more memory"
    return counts


def _keep(folder: Path, name: str, data: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def main() -> None:
    """Fuzz for so many minutes, with a new seed each minute, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz-qmp"))
    asked = parser.parse_args()
    end_s = time.monotonic() + asked.minutes * 60
    total: dict[str, int] = {}
    seed = asked.seed
    while time.monotonic() < end_s:
        until_s = min(end_s, time.monotonic() + 60)
        for came, count in asyncio.run(fuzz(until_s, seed, asked.keep)).items():
            total[came] = total.get(came, 0) + count
        seed += 1
    for came in sorted(total):
        sys.stdout.write(f"{total[came]:8d}  {came}\n")
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sys.stdout.write(f"{sum(total.values())} cases, seeds {asked.seed}..{seed - 1}, {peak_kb} KB\n")


if __name__ == "__main__":
    main()
