"""Signals: their names, what they mean for a stop, and what a process would do with them.

Source: signal(7), proc(5) (SigCgt, SigIgn, SigBlk, SigPnd, ShdPnd), Linux kernel/signal.c.
"""

from __future__ import annotations

import signal

from lastcall.durations import LONGEST_S, parse_duration
from lastcall.errors import BadPolicy
from lastcall.kernel import procfs
from lastcall.record import record

LAST = 64
# Neither can be handled, so neither can be soft; glibc keeps 32 and 33 for its own threads.
_NEVER_SOFT = {int(signal.SIGKILL), int(signal.SIGSTOP)}
_RTMIN, _RTMAX = int(signal.SIGRTMIN), int(signal.SIGRTMAX)

# What the kernel does when nobody handles the signal; everything else ends the process.
DOES_NOTHING = frozenset(
    int(s) for s in (signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH)
)
PAUSES = frozenset(int(s) for s in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU))


@record
class Meaning:
    """What a signal means for a stop, by common convention.

    Args:
        says: what it asks for.
        customs: what well-known programs make of it, where that differs.
        default: what happens when nobody handles it.
    """

    says: str
    customs: tuple[str, ...] = ()
    default: str = "ends it"


# By convention only: a program may do anything on any of these. In the order in which a person
# would want to read them, the usual asks first.
#
# Sources: signal(7); GNU libc manual, "Termination Signals"; nginx.org/en/docs/control.html;
# HAProxy management guide 4 ("Stopping and restarting HAProxy"); docs.gunicorn.org/en/stable/
# signals.html; PostgreSQL manual, "Shutting Down the Server"; httpd.apache.org/docs/2.4/
# stopping.html; php-fpm(8); systemd(1) "SIGNALS"; HotSpot "Signals used by the JVM" (Java
# Troubleshooting Guide, docs.oracle.com); Go package os/signal; nodejs.org/api/process.html
# #signal-events; bash(1) "SIGNALS"; uWSGI "Managing the uWSGI server".
MEANING: dict[int, Meaning] = {
    int(signal.SIGTERM): Meaning(
        "please end, in order: the usual ask",
        (
            "PostgreSQL: smart, waits for every client to leave",
            "nginx, HAProxy: at once, requests are cut",
            "uWSGI before 2.1: a reload, no stop",
            "systemd as PID 1: starts itself anew",
        ),
    ),
    int(signal.SIGINT): Meaning(
        "interrupted by a person (Ctrl+C)",
        (
            "PostgreSQL: fast, clients are cut and their work rolled back",
            "gunicorn: quick, requests are cut",
            "Python: raises KeyboardInterrupt wherever the program stands",
            "bash: waits for its child first",
        ),
    ),
    int(signal.SIGQUIT): Meaning(
        "end at once (Ctrl+\\)",
        (
            "nginx, PHP-FPM: the soft stop",
            "gunicorn: quick, requests are cut",
            "PostgreSQL: immediate, recovers at the next start",
            "a JVM: prints its threads and goes on",
            "Go: prints its goroutines and dies",
        ),
        "ends it, core dump",
    ),
    int(signal.SIGHUP): Meaning(
        "the terminal is gone; for a daemon: read the settings again",
        (
            "nginx, gunicorn, PostgreSQL, HAProxy's master: reload",
            "a JVM: shuts down as on SIGTERM",
        ),
    ),
    int(signal.SIGUSR1): Meaning(
        "the program's own",
        (
            "HAProxy: the soft stop",
            "Apache httpd: graceful restart",
            "nginx, gunicorn: reopen the logs",
            "Node: opens its debugger",
        ),
    ),
    int(signal.SIGUSR2): Meaning(
        "the program's own",
        ("nginx, gunicorn: start the new program beside the old", "HAProxy's master: reload"),
    ),
    int(signal.SIGWINCH): Meaning(
        "the window's size changed",
        ("Apache httpd: the soft stop (graceful-stop)", "nginx, gunicorn: end the workers softly"),
        "nothing",
    ),
    _RTMIN + 3: Meaning("systemd: halt the machine or container"),
    _RTMIN + 4: Meaning("systemd: power off the machine or container"),
    _RTMIN + 5: Meaning("systemd: reboot the machine or container"),
    int(signal.SIGALRM): Meaning("a timer of its own ran out"),
    int(signal.SIGPIPE): Meaning("the reader of its output is gone"),
    int(signal.SIGABRT): Meaning(
        "fail now, with a core dump",
        ("systemd's watchdog sends it to a service that no longer answers",),
        "ends it, core dump",
    ),
    int(signal.SIGTSTP): Meaning("pause (Ctrl+Z)", default="pauses it"),
    int(signal.SIGCONT): Meaning(
        "go on after a pause; only then does a paused process take its other signals",
        default="wakes it",
    ),
    int(signal.SIGSTOP): Meaning("pause; cannot be handled", default="pauses it"),
    int(signal.SIGKILL): Meaning("taken away: no handler can run, work in hand is lost"),
}


def _names() -> dict[str, int]:
    return {name.removeprefix("SIG"): int(signum) for name, signum in _members()}


def _members() -> list[tuple[str, signal.Signals]]:
    return [item for item in signal.Signals.__members__.items() if not item[0].startswith("SIGRT")]


def number(text: str) -> int:
    """The number of a signal: `TERM`, `sigterm`, `15`, `RTMIN+3`, `RTMAX-1`.

    Raises:
        BadPolicy: there is no such signal.
    """
    word = text.strip().upper()
    if word.isascii() and word.isdecimal():
        if len(word) <= len(str(LAST)) and 1 <= int(word) <= LAST:
            return int(word)
        raise BadPolicy(f"{text!r} is no signal", f"signals have the numbers 1 to {LAST}")
    word = word.removeprefix("SIG")
    if (signum := _names().get(word)) is not None:
        return signum
    for base, origin, sign in (("RTMIN", _RTMIN, "+"), ("RTMAX", _RTMAX, "-")):
        if word == base:
            return origin
        head, found, offset = word.partition(sign)
        if found and head == base and offset.isascii() and offset.isdecimal() and len(offset) < 3:  # noqa: PLR2004 (two digits reach every signal)
            signum = origin + int(f"{sign}{offset}")
            if _RTMIN <= signum <= _RTMAX:
                return signum
            raise BadPolicy(f"{text!r} is no signal", f"use RTMIN+0 to RTMIN+{_RTMAX - _RTMIN}")
    raise BadPolicy(f"{text!r} is no signal", _near(word))


def _near(word: str) -> str:
    import difflib

    near = difflib.get_close_matches(word, _names(), 3, 0.5)
    return f"did you mean {' or '.join(near)} ?" if near else "`lastcall signals` lists them"


def name(signum: int) -> str:
    """What a signal is called: `SIGTERM`, `SIGRTMIN+3`; a number that has no name stays one."""
    if _RTMIN <= signum <= _RTMAX:
        return f"SIGRTMIN+{signum - _RTMIN}" if signum > _RTMIN else "SIGRTMIN"
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"


def soft(text: str) -> int:
    """The number of a signal that may be used for a soft ask.

    Raises:
        BadPolicy: there is no such signal, or nobody can handle it.
    """
    signum = number(text)
    if signum in _NEVER_SOFT:
        advice = (
            "allow force at the deadline with --force --reason TEXT"
            if signum == signal.SIGKILL
            else "it only pauses; a stop needs a signal such as TERM"
        )
        raise BadPolicy(f"{name(signum)} is not a soft ask: no program can handle it", advice)
    return signum


def sequence(text: str) -> tuple[tuple[int, float | None], ...]:
    """Read `INT:5s,TERM:20s`: signals in order, each with how long to wait after it, in seconds.

    Returns:
        (signal, seconds) pairs. None means that no length was given: only the last may have none,
        and it waits until the deadline.

    Raises:
        BadPolicy: it names no signal, one that cannot be soft, or a length that makes no sense.
    """
    steps: list[tuple[int, float | None]] = []
    parts = text.split(",")
    for index, part in enumerate(parts):
        word, colon, length = part.partition(":")
        if not word.strip():
            raise BadPolicy(f"{text!r} names no signal", "write it as INT:5s,TERM:20s")
        wait_s = parse_duration(length) if colon else None
        if wait_s is None and index < len(parts) - 1:
            raise BadPolicy(
                f"{part.strip()!r} in {text!r} does not say how long to wait before the next",
                f"write it as {part.strip()}:5s",
            )
        steps.append((soft(word), wait_s))
    if sum(wait_s or 0.0 for _, wait_s in steps) > LONGEST_S:
        raise BadPolicy(f"{text!r} waits longer than 7 days", "use shorter lengths")
    return tuple(steps)


@record
class SignalState:
    """What a process would do with one signal.

    Args:
        handled: it has a handler. That never proves that work survives.
        ignored: it throws it away.
        blocked: no thread takes it now.
        pending: it was sent already and has not been taken.
        part_blocked: some threads block it: often a sign that one thread waits for it.
    """

    handled: bool
    ignored: bool
    blocked: bool
    pending: bool
    part_blocked: bool = False


# Most signals of most processes: one object for all of them.
_UNTOUCHED = SignalState(handled=False, ignored=False, blocked=False, pending=False)


def states(pid: int, whole: dict[str, str] | None = None) -> dict[int, SignalState]:
    """What the process would do with each signal, 1 to 64. Raises as `procfs.read_bytes`.

    Args:
        pid: the process.
        whole: its status, if that was read just now.

    A signal to a process is taken by any thread that does not block it, so only what every living
    thread blocks counts as blocked.
    """
    whole = procfs.status(pid) if whole is None else whole
    blocked_all, blocked_any, pending = -1, 0, _mask(whole, "ShdPnd")
    for tid in procfs.tids(pid):
        try:
            thread = whole if tid == pid else procfs.status(pid, tid)
        except ProcessLookupError:
            continue
        pending |= _mask(thread, "SigPnd")
        if thread.get("State", "")[:1] not in "ZX":
            blocked_all &= _mask(thread, "SigBlk")
            blocked_any |= _mask(thread, "SigBlk")
    if blocked_all == -1:  # no living thread: nothing takes anything, which is not "blocked"
        blocked_all = 0
    handled, ignored = _mask(whole, "SigCgt"), _mask(whole, "SigIgn")
    touched = handled | ignored | blocked_any | pending

    def state(signum: int) -> SignalState:
        bit = 1 << (signum - 1)
        return SignalState(
            handled=bool(handled & bit),
            ignored=bool(ignored & bit),
            blocked=bool(blocked_all & bit),
            pending=bool(pending & bit),
            part_blocked=bool(blocked_any & bit & ~blocked_all),
        )

    numbers = range(1, LAST + 1)
    return {n: state(n) if touched >> (n - 1) & 1 else _UNTOUCHED for n in numbers}


def _mask(status: dict[str, str], key: str) -> int:
    return int(status.get(key, "0"), 16)
