"""Reading a JVM's thread dump: who waits for whom, and what keeps the JVM from ending. Pure.

How an end looks in a dump (read from dumps of JDK 17 and 25):

    the shutdown sequence    runs in the thread that began it: `SIGTERM handler`, the caller of
                             `System.exit`, or `DestroyJavaVM` after the last user thread; it
                             stands in `ApplicationShutdownHooks.runHooks`, which starts every
                             hook and joins them one by one
    a hook                   is not marked; it was started after the sequence began, so its
                             `elapsed` is not longer than that of the handler's thread
    no shutdown yet          nobody stands in `Shutdown`; `DestroyJavaVM`, if there, only waits
                             for the last user thread

Source: JDK `java.lang.Shutdown`, `ApplicationShutdownHooks`, `Runtime.addShutdownHook` (API
documentation); HotSpot `runtime/threads.cpp` (`destroy_vm`), `services/threadService.cpp`.
"""

from __future__ import annotations

import re

from lastcall.record import record

_HEADER = re.compile(r'"(?P<name>.*)" (?:#(?P<number>\d+) (?:\[\d+\] )?)?(?P<rest>.*\btid=0x.*)')
_ELAPSED = re.compile(r"\belapsed=([\d.]+)s")
_STATE = re.compile(r"\s+java\.lang\.Thread\.State: (.+)")
_FRAME = re.compile(r"\s+at (.+)\((.*)\)$")
_LOCK = re.compile(r"\s+- (.+?)\s+<(0x[0-9a-f]+)> \(an? (.+)\)$")
_DEADLOCK_LOCK = re.compile(r"\s+waiting .*?(0x[0-9a-f]+), (?:\(an? (.+?)\)|an? (.+?)\)),?$")
_DEADLOCK_HOLDER = re.compile(r'\s+(?:in JNI, )?which is held by (?:"(.*)"|(.+))$')
_WANTS = {"waiting to lock", "waiting to re-lock in wait()"}
_WAITS = {"waiting on", "waiting to re-lock in wait()"}


@record
class Lock:
    """A Java object that somebody holds or waits for.

    Args:
        address: as the dump prints it.
        type: its class, such as `java.lang.Object`.
    """

    address: str
    type: str

    def __str__(self) -> str:
        short = self.type.removeprefix("java.lang.Class for ").rpartition(".")[2].partition("$")[0]
        kind = "class " if self.type.startswith("java.lang.Class for ") else ""
        return f"{kind}{short}@{self.address[2:].lstrip('0')}"


@record
class JavaThread:
    """One Java thread of a dump.

    Args:
        number: its Java thread id; None for the JVM's own threads, which run no Java.
        daemon: nobody waits for it at the end.
        elapsed_s: seconds since it was started; None where the dump does not tell (before JDK 11).
        state: as Java tells it, such as `WAITING (parking)`; empty for the JVM's own.
        frames: `Class.method (File:line)`, the innermost first.
        wants: the monitor that it cannot enter.
        parked_for: the lock or latch of java.util.concurrent that it waits for.
        holds: the monitors that it holds.
    """

    name: str
    number: int | None
    daemon: bool
    elapsed_s: float | None
    state: str = ""
    frames: tuple[str, ...] = ()
    wants: Lock | None = None
    parked_for: Lock | None = None
    holds: tuple[Lock, ...] = ()

    def stands_in(self, place: str) -> bool:
        """Whether one of its frames begins with these words."""
        return any(frame.startswith(place) for frame in self.frames)


@record
class Link:
    """One step of a deadlock: a thread waits for a lock which another one holds."""

    thread: str
    lock: Lock
    holder: str


@record
class JavaDump:
    """A thread dump.

    Args:
        threads: in the order of the dump.
        deadlocks: the circles that the JVM itself found.
    """

    threads: tuple[JavaThread, ...]
    deadlocks: tuple[tuple[Link, ...], ...]

    def thread(self, name: str) -> JavaThread | None:
        """The first thread of that name."""
        return next((t for t in self.threads if t.name == name), None)


def parse_jvm(text: str) -> JavaDump:
    """Read what `jcmd PID Thread.print` prints. What is not understood is left out.

    Args:
        text: the dump; it may be cut off anywhere.
    """
    body, *circles = re.split(r"^Found (?:one|a) Java-level deadlock.*$", text, flags=re.MULTILINE)
    threads: list[JavaThread] = []
    block: list[str] = []
    for line in body.splitlines():
        if line.startswith('"'):
            threads += _thread(block)
            block = [line]
        elif block and line[:1].isspace():
            block.append(line)
    threads += _thread(block)
    return JavaDump(tuple(threads), tuple(filter(None, map(_circle, circles))))


def _thread(block: list[str]) -> list[JavaThread]:
    """The thread of a header line and the indented lines below it; none when it is no thread."""
    head = _HEADER.fullmatch(block[0]) if block else None
    if head is None:
        return []
    state, parked = "", None
    frames: list[str] = []
    locks: list[tuple[str, Lock]] = []
    for line in block[1:]:
        if match := _FRAME.match(line):
            frames.append(f"{match[1]} ({match[2].rpartition('/')[2]})")
        elif match := _STATE.match(line):
            state = match[1]
        elif match := _LOCK.match(line):
            locks.append((match[1], Lock(match[2], match[3])))
    waited = {lock.address for how, lock in locks if how in _WAITS}
    wants = next((lock for how, lock in locks if how in _WANTS), None)
    parked = next((lock for how, lock in locks if how.startswith("parking")), None)
    # A thread in Object.wait() has let go of the monitor, though the dump says "locked" still.
    holds = [lock for how, lock in locks if how == "locked" and lock.address not in waited]
    elapsed = _ELAPSED.search(head["rest"])
    return [
        JavaThread(
            name=head["name"],
            number=None if head["number"] is None else int(head["number"]),
            daemon=head["rest"].startswith("daemon "),
            elapsed_s=float(elapsed[1]) if elapsed else None,
            state=state,
            frames=tuple(frames),
            wants=wants,
            parked_for=parked,
            holds=tuple(dict.fromkeys(holds)),
        )
    ]


def _circle(section: str) -> tuple[Link, ...]:
    """The steps of one deadlock, from the lines after its headline."""
    links: list[Link] = []
    thread, lock = "", None
    for line in section.partition("Java stack information")[0].splitlines():
        if line.startswith('"') and line.endswith('":'):
            thread, lock = line[1:-2], None
        elif match := _DEADLOCK_LOCK.match(line.replace("(object ", "")):
            lock = Lock(match[1], match[2] or match[3])
        elif (match := _DEADLOCK_HOLDER.match(line)) and thread and lock:
            links.append(Link(thread, lock, match[1] if match[1] is not None else match[2]))
    return tuple(links)
