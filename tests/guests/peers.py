"""Stand-ins for QEMU's monitor and for the guest agent: replaying ones, and hostile ones.

`replaying` plays a transcript (`transcripts/*.jsonl`); `hostile` says what it is told to. As a
program (`python peers.py --endpoints 5000 --folder DIR`) it serves many replayed monitors at once.

A transcript is one JSON object a line: first `{"qemu": VERSION, "how": recorded or written}`, then
`{"greeting": ...}`, then `{"ask": {...}, "answer": {...}}` in any order. `{"after": COMMAND,
"events": [...], "closes": true}` says what follows a command by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

TRANSCRIPTS = Path(__file__).parent / "transcripts"
GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, '
    b'"capabilities": ["oob"]}}\r\n'
)
_CHUNK = 65536

Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter
Handler: TypeAlias = "Callable[[Reader, Writer], Awaitable[None]]"


class Commands:
    """Reads commands off a stream: JSON objects with or without lines between them."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._text = ""

    async def next(self) -> dict[str, Any] | None:
        """The next command; None: the other end has closed."""
        while True:
            text = self._text.lstrip()
            try:
                message, end = json.JSONDecoder().raw_decode(text)
            except ValueError:
                more = await self._reader.read(_CHUNK)
                if not more:
                    return None
                # The mark of an agent's client, no UTF-8.
                self._text = text + more.replace(b"\xff", b"").decode()
            else:
                self._text = text[end:]
                return dict(message)


class Transcript:
    """What one QEMU said."""

    def __init__(self, path: Path) -> None:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        self.about = lines[0]
        self.greeting: dict[str, Any] = {}
        self.answers: dict[str, dict[str, Any]] = {}
        self.after: dict[str, dict[str, Any]] = {}
        for line in lines[1:]:
            if "greeting" in line:
                self.greeting = line["greeting"]
            elif "ask" in line:
                self.answers[_key(line["ask"])] = line["answer"]
            elif "after" in line:
                self.after[line["after"]] = line

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """The recorded answer, with the command's own id."""
        known = self.answers.get(_key(command))
        if known is None and command.get("execute") == "qmp_capabilities":
            known = {"return": {}}
        if known is None:
            what = f"The command {command.get('execute')} has not been found"
            known = {"error": {"class": "CommandNotFound", "desc": what}}
        return {**known, **({"id": command["id"]} if "id" in command else {})}

    async def serve(self, reader: Reader, writer: Writer) -> None:
        """One conversation."""
        say(writer, self.greeting)
        commands = Commands(reader)
        while (command := await commands.next()) is not None:
            follows = self.after.get(command.get("execute", ""), {})
            say(writer, self.answer(command))
            for event in follows.get("events", ()):
                say(writer, event)
            if follows.get("closes"):
                return


def _key(ask: dict[str, Any]) -> str:
    return json.dumps([ask.get("execute"), ask.get("arguments") or {}], sort_keys=True)


def say(writer: Writer, message: object) -> None:
    """Send one message on a line of its own."""
    writer.write(json.dumps(message).encode() + b"\r\n")


@contextlib.asynccontextmanager
async def listening(path: Path | str, handler: Handler) -> AsyncIterator[str]:
    """Serve at a Unix socket, and take everything away at the end."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: Reader, writer: Writer) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handler(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    server = await asyncio.start_unix_server(serve, str(path), limit=1 << 22)
    try:
        yield str(path)
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def replaying(name: str) -> Handler:
    """A QEMU that says what another one said."""
    return Transcript(TRANSCRIPTS / f"{name}.jsonl").serve


def hostile(
    then: Handler | None = None, greeting: bytes = GREETING, answers: bytes | None = None
) -> Handler:
    """A peer that greets and negotiates, and then does what it likes.

    Args:
        then: what it does with the first command after that; None: it waits for the end.
        greeting: what it greets with.
        answers: what it says to the negotiation; None: as it should be.
    """

    async def serve(reader: Reader, writer: Writer) -> None:
        writer.write(greeting)
        commands = Commands(reader)
        command = await commands.next()
        if command is None:
            return
        writer.write(b'{"return": {}}\r\n' if answers is None else answers)
        if then is not None:
            await then(reader, writer)
        await reader.read()

    return serve


def saying(*chunks: bytes, closes: bool = False) -> Handler:
    """Say these bytes, the number of the command standing for `@ID@`, once a command came."""

    async def serve(reader: Reader, writer: Writer) -> None:
        command = await Commands(reader).next()
        number = str((command or {}).get("id", "")).encode()
        for chunk in chunks:
            writer.write(chunk.replace(b"@ID@", number))
            await writer.drain()
        if closes:
            writer.close()
        await reader.read()

    return serve


def endlessly(chunk: bytes) -> Handler:
    """Say these bytes again and again, whether it was asked or not."""

    async def serve(_reader: Reader, writer: Writer) -> None:
        while True:
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(0)

    return serve


async def silent(reader: Reader, _writer: Writer) -> None:
    """Never say a word."""
    await reader.read()


async def _serve_many(folder: Path, endpoints: int, transcript: str) -> None:
    handler = replaying(transcript)
    async with contextlib.AsyncExitStack() as stack:
        for number in range(endpoints):
            await stack.enter_async_context(listening(folder / f"{number}.qmp", handler))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def main() -> None:
    """Serve many monitors until the standard input closes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoints", type=int, default=1)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--transcript", default="qemu-7.2-pc")
    asked = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(_serve_many(asked.folder, asked.endpoints, asked.transcript))


if __name__ == "__main__":
    main()
