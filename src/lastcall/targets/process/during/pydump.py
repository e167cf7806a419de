"""What the stacks of a CPython process say about why it does not end. Pure.

py-spy shows Python frames only: a thread in `lock.acquire()` stands in the line that calls it. What
it waits in is the kernel's word (wchan), read by whoever took the stacks.

Source: py-spy README ("dump --json"); CPython Lib/threading.py (`_shutdown` joins the threads that
are not daemons), Lib/concurrent/futures/thread.py (`_python_exit` joins the workers before that).
"""

from __future__ import annotations

import json
from dataclasses import replace

from lastcall.kernel.run import printable
from lastcall.model import Confidence, Finding, Severity
from lastcall.record import record

_MANY = 12
_TOP = 3
_BOOTSTRAP = {"_bootstrap", "_bootstrap_inner"}
_JOINS = {"_shutdown", "join", "_wait_for_tstate_lock"}
# Waiting here is idling for work or for a thread, not for somebody's lock.
_IDLE = {
    ("threading.py", "wait"),
    ("threading.py", "join"),
    ("threading.py", "_shutdown"),
    ("threading.py", "_wait_for_tstate_lock"),
    ("thread.py", "_worker"),
    ("queue.py", "get"),
}
# What a kernel function means, by how its name begins.
_WAITS = (
    ("futex", "waits for a lock"),
    ("hrtimer_nanosleep", "sleeps"),
    ("do_nanosleep", "sleeps"),
    ("ep_poll", "waits for events"),
    ("do_epoll", "waits for events"),
    ("poll_", "waits for events"),
    ("do_poll", "waits for events"),
    ("do_sys_poll", "waits for events"),
    ("do_select", "waits for events"),
    ("core_sys_select", "waits for events"),
    ("pipe_read", "reads a pipe"),
    ("anon_pipe_read", "reads a pipe"),
    ("inet_csk_accept", "accepts connections"),
    ("sk_wait_data", "reads a connection"),
    ("wait_woken", "reads a connection or a terminal"),
    ("unix_stream_read", "reads a socket"),
    ("unix_stream_data_wait", "reads a socket"),
    ("do_wait", "waits for a child process"),
    ("locks_lock", "waits for a file lock"),
    ("flock_lock", "waits for a file lock"),
    ("posix_lock", "waits for a file lock"),
)


@record
class PyFrame:
    """One Python frame: the function without its class, the file without its folder, the line."""

    function: str
    file: str
    line: int
    shown: str


@record
class PyThread:
    """One Python thread.

    Args:
        name: its name; empty when it was not started by `threading`.
        tid: its number for the kernel; None when py-spy could not tell.
        active: it runs, as far as py-spy could tell.
        owns_gil: it held the interpreter at that moment.
        frames: the innermost first.
        wchan: the kernel function that it waits in; empty when it runs or that is not known.
    """

    name: str
    tid: int | None
    active: bool
    owns_gil: bool
    frames: tuple[PyFrame, ...]
    wchan: str = ""

    def with_wchan(self, wchan: str) -> PyThread:
        """The same thread, with what it waits in."""
        return replace(self, wchan=wchan)

    @property
    def top(self) -> PyFrame | None:
        """Where it is."""
        return self.frames[0] if self.frames else None


def parse_cpython(text: str) -> tuple[PyThread, ...]:
    """Read what `py-spy dump --json` prints.

    Raises:
        ValueError: that is not what it is.
    """
    try:
        return tuple(_thread(row) for row in json.loads(text))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"py-spy printed something of another shape: {error!r}") from error


def _thread(row: dict[str, object]) -> PyThread:
    frames = row["frames"]
    if not isinstance(frames, list):
        raise TypeError("frames is not a list")
    tid = row["os_thread_id"]
    return PyThread(
        name=str(row["thread_name"] or ""),
        tid=tid if isinstance(tid, int) else None,
        active=bool(row["active"]),
        owns_gil=bool(row["owns_gil"]),
        frames=tuple(_frame(frame) for frame in frames),
    )


def _frame(row: dict[str, object]) -> PyFrame:
    path = str(row.get("short_filename") or row["filename"])
    raw = row["line"]
    line = raw if isinstance(raw, int) else 0
    return PyFrame(
        # From 3.11 on py-spy prints the qualified name: `Thread.join`.
        function=str(row["name"]).rpartition(".")[2],
        file=path.rpartition("/")[2],
        line=line,
        shown=f"{row['name']} ({path}:{line})",
    )


def holdups(threads: tuple[PyThread, ...], pid: int) -> tuple[Finding, ...]:
    """What keeps the process from ending, and all its stacks.

    Args:
        threads: as `parse_cpython` gives them, with what they wait in.
        pid: that of the process: the thread of that number is the main thread.
    """
    found = []
    main = next((t for t in threads if t.tid == pid), None)
    if main is not None and (waits := _waits_for_threads(main, threads)):
        found.append(waits)
    if locked := [t for t in threads if _sits_in_lock(t)]:
        found.append(_lock(locked, gil_busy=any(t.owns_gil for t in threads)))
    if threads:
        found.append(
            Finding(
                "python-stacks",
                f"where the {len(threads)} Python thread{'s' * (len(threads) > 1)} of process "
                f"{pid} {'are' if len(threads) > 1 else 'is'}",
                evidence=_lines(sorted(threads, key=lambda t: t is not main)),
            )
        )
    return tuple(found)


def _waits_for_threads(main: PyThread, threads: tuple[PyThread, ...]) -> Finding | None:
    joins = [f for f in main.frames if f.file == "threading.py" and f.function in _JOINS]
    top = main.top
    if not joins or top is None or top.file != "threading.py" or top.function not in _JOINS:
        return None
    others = [t for t in threads if t is not main and _started_by_threading(t)]
    if not others:
        return None
    ending = any(frame.function == "_shutdown" for frame in joins)
    names = ", ".join(_called(t) for t in others[:_MANY])
    more = f" and {len(others) - _MANY} more" if len(others) > _MANY else ""
    one = len(others) == 1
    return Finding(
        "python-waits-for-threads",
        f"the main thread {'has ended and waits' if ending else 'waits'} for "
        f"{'the thread' if one else 'threads, one or more of'} {names}{more}",
        Severity.BLOCKER,
        Confidence.LIKELY,
        evidence=(_line(main), *_lines(others)),
        advice="tell these threads to end (an event, a sentinel in their queue); daemon threads "
        "among them are not awaited at the end, the stacks do not tell which those are"
        if ending
        else "tell these threads to end before joining them, or join them with a limit",
    )


def _started_by_threading(thread: PyThread) -> bool:
    return any(f.file == "threading.py" and f.function in _BOOTSTRAP for f in thread.frames[-2:])


def _sits_in_lock(thread: PyThread) -> bool:
    top = thread.top
    return (
        top is not None
        and not thread.active
        and thread.wchan.startswith("futex")
        and (top.file, top.function) not in _IDLE
        and not (top.file == "threading.py" and top.function in _BOOTSTRAP | {"run"})
    )


def _lock(locked: list[PyThread], *, gil_busy: bool) -> Finding:
    one = len(locked) == 1
    return Finding(
        "python-lock",
        f"{len(locked)} thread{'' if one else 's'} wait{'s' if one else ''} for a lock: "
        f"{', '.join(_called(t) for t in locked[:_MANY])}",
        Severity.BLOCKER,
        # Who waits for the interpreter itself looks the same, for a moment.
        Confidence.POSSIBLE if gil_busy else Confidence.LIKELY,
        evidence=_lines(locked),
        advice="find who holds the lock taken in that line; two such threads may hold each "
        "other's: take locks in one order",
    )


def _lines(threads: list[PyThread]) -> tuple[str, ...]:
    lines = [_line(thread) for thread in threads[:_MANY]]
    if len(threads) > _MANY:
        lines.append(f"and {len(threads) - _MANY} more threads")
    return tuple(lines)


def _line(thread: PyThread) -> str:
    """One thread on one line: name, what it waits in, where it is."""
    telling = [
        f
        for f in thread.frames
        if not (f.file == "threading.py" and f.function in _BOOTSTRAP | {"run"})
    ]
    # A C function run by Thread.run leaves no other frame than that.
    frames = telling or thread.frames
    place = " < ".join(frame.shown for frame in frames[:_TOP]) or "no Python frames"
    return printable(f"{_called(thread)} {_doing(thread)}: {place}", 300)


def _called(thread: PyThread) -> str:
    name = printable(thread.name, 60)
    return f'"{name}"' if name else f"thread {thread.tid or '?'}"


def _doing(thread: PyThread) -> str:
    if thread.active:
        return "runs"
    top = thread.top
    if top is not None and (top.file, top.function) in _IDLE:
        return "waits for a thread" if top.function in _JOINS else "waits to be woken"
    words = next((words for head, words in _WAITS if thread.wchan.startswith(head)), "")
    return words or (f"waits in {thread.wchan}" if thread.wchan else "waits")
