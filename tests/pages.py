"""Reading the code blocks and headings of our Markdown pages, and running the console sessions."""

from __future__ import annotations

import contextlib
import doctest
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLE_LANGUAGES = {"console", "python", "sh", "bash", "shell"}
_FENCE = re.compile(r"^(`{3,})(.*)$")
_MARK = re.compile(r"<!-- (run|not run: \S.*) -->")
_END_OF_COMMAND = "--lastcall-docs-end-of-command--"


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced code block: where it begins, its language, its text, and the line before it."""

    line: int
    language: str
    text: str
    before: str

    @property
    def is_example(self) -> bool:
        """Whether a reader would try it."""
        return self.language in EXAMPLE_LANGUAGES

    @property
    def mark(self) -> str | None:
        """`run` or `not run: why`; None when nobody said."""
        match = _MARK.fullmatch(self.before)
        return match[1] if match else None


def read(text: str) -> tuple[list[int], list[Block]]:
    """The levels of a page's headings, and its code blocks, in order."""
    levels: list[int] = []
    blocks: list[Block] = []
    before, fence, language, start, body = "", "", "", 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if fence:
            if line.rstrip() == fence:
                blocks.append(Block(start, language, "\n".join(body), before))
                fence, before = "", ""
            else:
                body.append(line)
        elif opened := _FENCE.match(line):
            fence, language, start, body = opened[1], opened[2].strip(), number, []
        else:
            before = line.strip()
            if heading := re.match(r"(#+) ", line):
                levels.append(len(heading[1]))
    return levels, blocks


def commands(session: str) -> list[tuple[str, str]]:
    """The (command, expected output) pairs of a console session."""
    pairs: list[tuple[str, str]] = []
    for line in session.splitlines():
        if line.startswith("$ "):
            pairs.append((line[2:], ""))
        elif line.startswith("> "):
            pairs[-1] = (pairs[-1][0] + "\n" + line[2:], "")
        else:
            pairs[-1] = (pairs[-1][0], pairs[-1][1] + line + "\n")
    return pairs


def run_session(pairs: list[tuple[str, str]], folder: Path) -> list[str]:
    """Run the commands in one shell in `folder`; what went otherwise than expected."""
    lines = ["set -e", "exec 2>&1"]
    for command, _ in pairs:
        # Disowned: the shell does not report how its background jobs ended, as in a terminal.
        lines += [command, "disown -a", f"echo {_END_OF_COMMAND}"]
    script = folder / "session.sh"
    script.write_text("\n".join(lines) + "\n")
    status, output = _run(["bash", str(script)], folder)
    said = output.split(_END_OF_COMMAND + "\n")
    faults = []
    for (command, expected), got in zip(pairs, said, strict=False):
        if not doctest.OutputChecker().check_output(expected, got, doctest.ELLIPSIS):
            faults.append(f"$ {command}\nexpected:\n{expected}\ngot:\n{got}")
    if status:
        last = pairs[min(len(said), len(pairs)) - 1][0]
        faults.append(f"$ {last}\nfailed with status {status}")
    return faults


def run_python(text: str, folder: Path) -> list[str]:
    """Run a Python example in `folder`; its traceback if it failed."""
    status, output = _run([sys.executable, "-c", text], folder)
    return [output] if status else []


def _run(command: list[str], folder: Path) -> tuple[int, str]:
    """Run to the end in a session of its own, and take along everything that it left running."""
    place = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    env = os.environ | {
        "PATH": place,
        "LASTCALL_STATE_DIR": str(folder / "state"),
        "NO_COLOR": "1",
        "COLUMNS": "100",
    }
    with open(folder / "output", "wb") as output:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            # Leave it a zombie: then its number, and so the group's, cannot belong to another.
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            status = child.wait()
    return status, (folder / "output").read_text()
