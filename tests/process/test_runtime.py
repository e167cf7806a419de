"""Which runtime a process runs on: with real Go, Node, Java, Python and shell programs."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import struct
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import python, victim, wait_until
from lastcall.kernel import procfs
from lastcall.targets.process import runtime, signals
from lastcall.targets.process.runtime import Runtime, look, recognise
from runtimes import go_command, java_command, node_command, program

if TYPE_CHECKING:
    from collections.abc import Callable

TERM = int(signal.SIGTERM)
# (how to start it, what it runs on, whether it finishes its job on SIGTERM, how it ends then)
PROGRAMS: dict[str, tuple[Callable[[], list[str]], Runtime, bool, int]] = {
    "go": (lambda: go_command("sig_go_plain.go"), Runtime.GO, False, -TERM),
    "go with a handler": (lambda: go_command("sig_go_handler.go"), Runtime.GO, True, 0),
    "node": (node_command, Runtime.NODE, False, -TERM),
    "node with a handler": (lambda: node_command("handler"), Runtime.NODE, True, 0),
    "jvm": (java_command, Runtime.JVM, False, 143),
    "jvm with a hook": (lambda: java_command("hook"), Runtime.JVM, True, 143),
}


@pytest.mark.parametrize("which", PROGRAMS)
def test_caught_by_a_runtime_never_proves_that_work_survives(which: str) -> None:
    """Go, Node and a JVM show SIGTERM as caught with and without a handler of the program."""
    command, kind, finishes, status = PROGRAMS[which]
    with victim(*command()) as process:
        assert recognise(process.pid) is kind
        assert signals.states(process.pid)[TERM].handled
        os.kill(process.pid, TERM)
        said = process.out.read()
        assert process.wait() == status
    assert ("job done" in said) is finishes


def test_a_file_that_does_not_come_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program on a dead file server: it is left out, once for all, and known by its libraries."""
    asked: list[int] = []
    server = threading.Event()

    def hang(pid: int) -> runtime.Recognised | None:
        asked.append(pid)
        server.wait()
        return None

    monkeypatch.setattr(runtime, "_by_file", hang)
    monkeypatch.setattr(runtime, "_answers", {})
    monkeypatch.setattr(runtime, "_FILE_LIMIT_S", 0.05)
    try:
        with victim("sh", "-c", "echo ready; exec sleep 600", ready="ready") as process:
            wait_until(lambda: procfs.exe(process.pid).endswith("sleep"), "the program to start")
            assert [recognise(process.pid) for _ in range(3)] == [Runtime.OTHER] * 3
            assert asked == [process.pid]
    finally:
        server.set()


def test_go_tells_whether_its_program_can_handle_signals() -> None:
    """A Go program without signal.Notify cannot handle one; with it, it may."""
    with victim(*go_command("sig_go_plain.go")) as process:
        assert look(process.pid).asks_for_signals is False
    with victim(*go_command("sig_go_handler.go")) as process:
        assert look(process.pid).asks_for_signals is True


def test_a_go_program_without_sections_is_known_by_its_note(tmp_path: Path) -> None:
    """A file stripped of its section table still carries Go's build note."""
    raw = bytearray(Path(go_command("sig_go_plain.go")[0]).read_bytes())
    struct.pack_into("<Q", raw, 40, 0)  # where the section table stands
    struct.pack_into("<HHH", raw, 58, 0, 0, 0)
    stripped = tmp_path / "stripped"
    stripped.write_bytes(raw)
    stripped.chmod(0o700)
    with victim(str(stripped)) as process:
        found = look(process.pid)
    assert (found.runtime, found.asks_for_signals) == (Runtime.GO, None)


def test_a_renamed_node_is_still_node(tmp_path: Path) -> None:
    """Node is known by its symbols where its name says nothing."""
    renamed = tmp_path / "server"
    command = node_command()
    shutil.copy(command[0], renamed)
    with victim(str(renamed), *command[1:]) as process:
        assert recognise(process.pid) is Runtime.NODE


def test_a_program_whose_file_was_deleted_is_still_known(tmp_path: Path) -> None:
    """A program that was replaced by an update while it runs is read through /proc."""
    copy = tmp_path / "worker"
    shutil.copy(go_command("sig_go_plain.go")[0], copy)
    with victim(str(copy)) as process:
        copy.unlink()
        assert recognise(process.pid) is Runtime.GO


def test_python_and_shells_are_known() -> None:
    """CPython and shells are told by their program, whatever name they were started by."""
    with victim(*python("sig_modes.py", "plain")) as process:
        assert recognise(process.pid) is Runtime.CPYTHON
    for shell in ("sh", "bash"):
        with victim(program(shell), "-c", "echo ready; kill -STOP $$; :") as process:
            assert recognise(process.pid) is Runtime.SHELL


def test_anything_else_is_other(tmp_path: Path) -> None:
    """A program that sets no trap is not taken for one that does."""
    shutil.copy("/bin/sleep", tmp_path / "napping")
    with victim(str(tmp_path / "napping"), "60", ready="") as process:
        # Until it has run its program it is still ours, a copy of this Python.
        while os.readlink(f"/proc/{process.pid}/exe") == os.path.realpath(sys.executable):
            time.sleep(0)
        assert recognise(process.pid) is Runtime.OTHER


def test_a_zombie_runs_on_nothing() -> None:
    """A process that has ended has no program, and that is no error."""
    with victim(*python("sig_modes.py", "plain")) as process:
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert recognise(process.pid) is Runtime.OTHER
    with pytest.raises(ProcessLookupError):
        recognise(process.pid)


@pytest.mark.parametrize(
    ("name", "words", "kind"),
    [
        ("busybox", ["sh", "-c", "x"], Runtime.SHELL),
        ("busybox", ["busybox", "ash"], Runtime.SHELL),
        ("busybox", ["httpd", "-f"], None),
        ("dash", ["/bin/sh", "run"], Runtime.SHELL),
        ("bash", ["-bash"], Runtime.SHELL),
        ("python3.11", ["python", "x.py"], Runtime.CPYTHON),
        ("python2.7", ["python"], None),
        ("ruby3.1", ["puma"], Runtime.RUBY),
        ("nodejs", ["nodejs"], Runtime.NODE),
        ("bun", ["bun", "x.js"], None),
        ("deno", ["deno"], None),
        ("pythonista", ["x"], None),
    ],
)
def test_names_of_programs(name: str, words: list[str], kind: Runtime | None) -> None:
    """A program's name decides only where it is beyond doubt."""
    found = runtime.by_program(name, words)
    assert (found and found.runtime) == kind


@pytest.mark.parametrize(
    ("library", "kind"),
    [
        ("libjvm.so", Runtime.JVM),
        ("libcoreclr.so", Runtime.DOTNET),
        ("libnode.so.108", Runtime.NODE),
        ("libruby-3.1.so.3.1", Runtime.RUBY),
        ("libpython3.12.so.1.0", Runtime.CPYTHON),
    ],
)
def test_names_of_libraries(library: str, kind: Runtime) -> None:
    """A mapped library tells the runtime of an embedded one."""
    found = runtime.by_libraries({"libc.so.6", library})
    assert found is not None
    assert found.runtime is kind
    assert library in found.evidence


GO_HEAD = 96 * 1024


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_a_hostile_program_file_neither_crashes_nor_reads_much(data: st.DataObject) -> None:
    """Any change in the headers of an ELF file gives an answer or ValueError, and soon."""
    raw = bytearray(Path(go_command("sig_go_plain.go")[0]).read_bytes()[:GO_HEAD])
    for at, value in data.draw(
        st.lists(st.tuples(st.integers(0, 1023), st.integers(0, 255)), max_size=24)
    ):
        raw[at] = value
    fd = os.memfd_create("hostile")
    try:
        os.write(fd, raw[: data.draw(st.integers(0, GO_HEAD))])
        began_s = time.process_time()
        with contextlib.suppress(ValueError):
            runtime.by_elf(fd)
        assert time.process_time() - began_s < 1
    finally:
        os.close(fd)


def test_something_else_than_elf_is_said_to_be_so() -> None:
    """A text, an empty file and a cut header are no ELF files."""
    for raw in (b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF" + bytes(60)):
        fd = os.memfd_create("text")
        try:
            os.write(fd, raw)
            with pytest.raises(ValueError, match="ELF"):
                runtime.by_elf(fd)
        finally:
            os.close(fd)
