"""The stacks of a JVM (by `jcmd`) and of CPython (by py-spy), as findings.

Both are other people's programs: each runs with a limit on its time and output, and whatever goes
wrong with it is a finding that names what is missing, never an exception.

Asking a JVM for its threads is not without effect, so it is asked only when it will not be hurt:
`jcmd` sends SIGQUIT to a JVM that has no attach socket yet, and what does not handle SIGQUIT dies
of it. Afterwards the JVM has one daemon thread more and a socket `.java_pidN` in its /tmp, which
stays behind when it is killed. py-spy changes nothing.

Source: JDK `sun.tools.attach.VirtualMachineImpl` (Linux) and HotSpot `attachListener_posix.cpp`;
py-spy README; ptrace(2), "Ptrace access mode checking"; Linux
`Documentation/admin-guide/LSM/Yama.rst`.
"""

from __future__ import annotations

import os
import signal
import stat
import sys

from lastcall.kernel import procfs
from lastcall.kernel.run import Ran, printable, run_limited
from lastcall.model import Finding
from lastcall.targets.process.condition import wchan
from lastcall.targets.process.during import javaholdups, pydump
from lastcall.targets.process.during.javadump import parse_jvm
from lastcall.targets.process.runtime import Runtime, recognise
from lastcall.targets.process.signals import states

_DUMP_LIMIT_BYTES = 16 * 1024 * 1024
_CAP_SYS_PTRACE = 19
_SAME_JDK = "install the JDK of that JVM (Debian: openjdk-17-jdk-headless): it brings jcmd"
# Meant for the user's own programs: an agent or a debug port in there would hit jcmd as well.
_JAVA_OPTIONS = {"JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"}


async def jvm(pid: int, limit_s: float) -> tuple[Finding, ...]:
    """What a JVM's threads say about why it does not end.

    Args:
        pid: the JVM.
        limit_s: how long `jcmd` may take, in seconds.
    """
    try:
        reason = _not_askable(pid)
        if reason is not None:
            return (_no_jvm_stacks(pid, *reason),)
        jcmd = find_jcmd(pid)
        if jcmd is None:
            why = "jcmd is neither beside its java nor in JAVA_HOME or PATH"
            return (_no_jvm_stacks(pid, why, _SAME_JDK),)
        return await _by_jcmd(jcmd, pid, limit_s)
    except ProcessLookupError:
        return ()  # it is gone: nothing holds it up any more
    except PermissionError as error:
        return (_no_jvm_stacks(pid, f"{error.filename}: not permitted", "run lastcall as root"),)


async def _by_jcmd(jcmd: str, pid: int, limit_s: float) -> tuple[Finding, ...]:
    before = _attach_files(pid)
    env = {name: value for name, value in os.environ.items() if name not in _JAVA_OPTIONS}
    argv = (jcmd, str(pid), "Thread.print")
    try:
        ran = await run_limited(argv, limit_s, _DUMP_LIMIT_BYTES, env)
    except OSError as error:
        return (_no_jvm_stacks(pid, f"{jcmd} cannot be run: {error.strerror}", _SAME_JDK),)
    if ran.timed_out:
        for path in _attach_files(pid) - before:
            _unlink(path)
        why = f"jcmd had no answer after {limit_s:g} s"
        advice = "the JVM does not reach a safepoint, or has no time to: look at its CPU and memory"
        return (_no_jvm_stacks(pid, why, advice),)
    text = ran.stdout.decode(errors="replace")
    if ran.cut:
        why = f"its thread dump is longer than {_DUMP_LIMIT_BYTES >> 20} MiB"
        return (_no_jvm_stacks(pid, why, f"read it yourself: {jcmd} {pid} Thread.print"),)
    if ran.returncode != 0 or "Full thread dump" not in text:
        procfs.stat(pid)  # raises when the cause is that it ended meanwhile
        return (_no_jvm_stacks(pid, f"jcmd failed: {_complaint(ran)}", f"use that of {_SAME_JDK}"),)
    return javaholdups.holdups(parse_jvm(text))


def _not_askable(pid: int) -> tuple[str, str] | None:
    """Why this JVM must not, or cannot, be asked, and what to do; None when it can be."""
    runtime = recognise(pid)
    if runtime is not Runtime.JVM:
        return "it is not seen to be a JVM (libjvm.so is not mapped, or may not be seen)", ""
    if procfs.stat(pid).state in "TtZX":
        return "it is paused or traced", f"wake it first: kill -CONT {pid}"
    user = _effective_uid(pid)
    if os.geteuid() not in {0, user}:
        return f"it belongs to another user (uid {user})", "run lastcall as root or as that user"
    if "-XX:+DisableAttachMechanism" in procfs.cmdline(pid):
        return "it was started with -XX:+DisableAttachMechanism", "start it without that"
    quits = states(pid)[signal.SIGQUIT]
    socket = f"/proc/{pid}/root/tmp/.java_pid{_inner_pid(pid)}"
    if not quits.handled and not os.path.exists(socket):
        why = (
            "it does not handle SIGQUIT (-Xrs?) and its socket in /tmp is gone: asking may kill it"
        )
        return why, "keep whatever cleans /tmp away from .java_pid* sockets"
    return None


def find_jcmd(pid: int) -> str | None:
    """The `jcmd` for a JVM: beside its own java, else in JAVA_HOME, else in PATH.

    The one beside its java is only taken when nobody but root and this user could have put it
    there: otherwise whoever runs a JVM could have root run a program of theirs.

    Raises:
        ProcessLookupError: the process is gone.
        PermissionError: this user may not see what it runs.
    """
    folder = os.path.dirname(procfs.exe(pid))
    for beside in (folder, os.path.join(folder, "..", "..", "bin")):  # the latter: a JDK 8's jre
        path = os.path.realpath(os.path.join(beside, "jcmd"))
        if os.access(path, os.X_OK) and _trusted(path):
            return path
    home = os.environ.get("JAVA_HOME", "")
    return _find("jcmd", [os.path.join(home, "bin")] if home else [])


def _find(name: str, first: list[str]) -> str | None:
    """A program in these folders, else in PATH."""
    for folder in (*first, *os.get_exec_path()):
        path = os.path.join(folder, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def _trusted(path: str) -> bool:
    """Whether nobody but root and this user can change what stands at `path` (a real path)."""
    while True:
        entry = os.lstat(path)
        open_to_others = entry.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if entry.st_uid not in {0, os.geteuid()} or (
            open_to_others and not entry.st_mode & stat.S_ISVTX
        ):
            return False
        if path == "/":
            return True
        path = os.path.dirname(path)


def _inner_pid(pid: int) -> int:
    """Its pid in the innermost pid namespace: what it calls itself."""
    return int(procfs.status(pid).get("NSpid", str(pid)).split()[-1])


def _effective_uid(pid: int) -> int:
    return int(procfs.status(pid)["Uid"].split()[1])


def _attach_files(pid: int) -> set[str]:
    """The files by which jcmd wakes a JVM; it removes them itself unless it is killed."""
    name = f".attach_pid{_inner_pid(pid)}"
    places = (f"/proc/{pid}/cwd/{name}", f"/proc/{pid}/root/tmp/{name}")
    return {path for path in places if os.path.lexists(path)}


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return  # left behind: harmless, it only means "listen" at the next SIGQUIT


def _no_jvm_stacks(pid: int, why: str, advice: str) -> Finding:
    return Finding(
        "jvm-stacks-unavailable",
        f"the threads of the JVM {pid} cannot be shown: {why}",
        advice=advice,
    )


async def cpython(pid: int, limit_s: float) -> tuple[Finding, ...]:
    """What a CPython process's threads say about why it does not end.

    Args:
        pid: the process.
        limit_s: how long py-spy may take, in seconds.
    """
    spy = _find("py-spy", [os.path.dirname(sys.executable)])
    if spy is None:
        return (
            _no_python_stacks(
                pid, "py-spy is missing", "install it: pip install 'lastcall[stacks]'"
            ),
        )
    try:
        if not _may_trace(pid):
            return (_no_python_stacks(pid, *_no_ptrace(pid)),)
        argv = (spy, "dump", "--nonblocking", "--json", "--pid", str(pid))
        ran = await run_limited(argv, limit_s, _DUMP_LIMIT_BYTES)
        if ran.timed_out:
            why = f"py-spy had no answer after {limit_s:g} s"
            return (_no_python_stacks(pid, why, "look at the load of the machine"),)
        if ran.returncode != 0 or ran.cut:
            procfs.stat(pid)  # raises when the cause is that it ended meanwhile
            why = f"py-spy failed: {_complaint(ran)}"
            return (_no_python_stacks(pid, why, "see whether a newer py-spy knows this Python"),)
        threads = pydump.parse_cpython(ran.stdout.decode(errors="replace"))
        return pydump.holdups(tuple(t.with_wchan(_wchan(pid, t.tid)) for t in threads), pid)
    except ProcessLookupError:
        return ()  # it is gone: nothing holds it up any more
    except (OSError, ValueError) as error:
        return (_no_python_stacks(pid, f"py-spy is of no use: {error}", "update it"),)


def _may_trace(pid: int) -> bool:
    """Whether the kernel lets us read its memory: opening `mem` makes just that check."""
    try:
        os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC))
    except FileNotFoundError as error:
        raise ProcessLookupError(error.errno, "no such process", str(pid)) from error
    except PermissionError:
        return False
    return True


def _no_ptrace(pid: int) -> tuple[str, str]:
    """What stands in the way of reading its memory, and what to do."""
    ours, user = os.geteuid(), _effective_uid(pid)
    may = int(procfs.status(os.getpid())["CapEff"], 16) >> _CAP_SYS_PTRACE & 1
    if ours == 0 and not may:
        why = "root has no CAP_SYS_PTRACE here (a container?)"
        return why, "give it that: docker run --cap-add SYS_PTRACE, or run lastcall outside"
    if ours not in {0, user}:
        return f"it belongs to another user (uid {user})", "run lastcall as root"
    scope = _yama_scope()
    if scope > 0 and not may:
        why = f"kernel.yama.ptrace_scope is {scope}: only root may look into processes"
        return why, "run lastcall as root, or: sysctl kernel.yama.ptrace_scope=0"
    why = "the kernel refuses (a security module, or the process keeps its memory to itself)"
    return why, "" if ours == 0 else "run lastcall as root"


def _yama_scope() -> int:
    try:
        return int(procfs.read_bytes("/proc/sys/kernel/yama/ptrace_scope"))
    except (OSError, ValueError):
        return 0


def _wchan(pid: int, tid: int | None) -> str:
    try:
        return wchan(pid, tid) if tid is not None else ""
    except ProcessLookupError:
        return ""


def _no_python_stacks(pid: int, why: str, advice: str) -> Finding:
    return Finding(
        "python-stacks-unavailable",
        f"the Python stacks of process {pid} cannot be shown: {why}",
        advice=advice,
    )


def _complaint(ran: Ran) -> str:
    """The first line of what a failed program said."""
    said = (ran.stderr or ran.stdout).decode(errors="replace").strip().splitlines()
    return printable(said[0]) if said else f"exit status {ran.returncode}, without a word"
