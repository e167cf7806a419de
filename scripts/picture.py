"""Draw docs/pictures/stop.svg: what a terminal really shows of two stops."""

from __future__ import annotations

import fcntl
import os
import pty
import socket
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).parent.parent
PROGRAMS = ROOT / "examples/programs"
# Colours without the bar that is redrawn, which a still picture cannot show.
STILL = (
    "import sys; sys.modules['rich'] = None\nfrom lastcall.cli.main import run; run(sys.argv[1:])"
)
COLUMNS = 100
FRAME = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" \
aria-label="lastcall stop in a terminal">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; \
font-size: {char_height}px; line-height: {line_height}px; white-space: pre; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" \
height="{terminal_height}" /></clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def shown(*words: str) -> str:
    """What a terminal shows of one command."""
    seen = bytearray()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    pid, fd = pty.fork()
    if pid == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
        os.execve(sys.executable, [sys.executable, "-c", STILL, *words], env)  # noqa: S606
    try:
        while chunk := os.read(fd, 65536):
            seen += chunk
    except OSError:  # EIO: it is over
        os.waitpid(pid, 0)
    command = f"\x1b[1;32m$\x1b[0m \x1b[1mlastcall {' '.join(words)}\x1b[0m\n"
    return command + seen.decode().replace("\r\n", "\n")


def start(*command: str) -> subprocess.Popen[str]:
    """A program that has said `ready`."""
    child = subprocess.Popen(["python3", *command], stdout=subprocess.PIPE, text=True, cwd=PROGRAMS)
    if child.stdout is None or child.stdout.readline() != "ready\n":
        raise SystemExit(f"{command} did not get ready")
    return child


def main() -> None:
    """Stop a server with requests in hand, and one that hangs; draw what was shown."""
    with tempfile.TemporaryDirectory() as state:
        os.environ["LASTCALL_STATE_DIR"] = state
        shop, clients = start("shop.py", "8080"), []
        for seconds in (3, 4, 4):
            client = socket.create_connection(("127.0.0.1", 8080))
            client.sendall(f"GET /{seconds} HTTP/1.0\r\n\r\n".encode())
            clients.append(client)
        first = shown("stop", "port:8080")
        stuck = start("stuck.py")
        second = shown("stop", f"pid:{stuck.pid}", "--grace", "2s")
        stuck.kill()
        shop.wait()
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(Text.from_ansi(f"{first}\n{second}"))
    picture = console.export_svg(title="lastcall", theme=MONOKAI, code_format=FRAME)
    (ROOT / "docs/pictures/stop.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
