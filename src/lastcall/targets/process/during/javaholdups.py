"""What a JVM's thread dump says about why it does not end. Pure.

The waits are followed as a graph: the thread that runs the shutdown waits for the hooks, a thread
that cannot enter a monitor waits for its holder. A hook from which the way leads back, to itself or
to the shutdown, never ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.kernel.run import printable
from lastcall.model import Confidence, Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lastcall.targets.process.during.javadump import JavaDump, JavaThread, Link

_MANY = 8
_TOP = 3
# `elapsed` is printed in hundredths; a hook starts right after the sequence that starts it.
_ROUNDING_S = 0.02
# Threads of the JDK itself, by where they begin: never anybody's hook.
_OF_THE_JDK = (
    "java.lang.ref.Reference$ReferenceHandler.run",
    "java.lang.ref.Finalizer$FinalizerThread.run",
    "jdk.internal.misc.InnocuousThread.run",
)
_LAMBDA = "$$Lambda"
_PLUMBING = ("java.", "javax.", "jdk.", "sun.")


def holdups(dump: JavaDump) -> tuple[Finding, ...]:
    """What keeps the JVM from ending; nothing when the dump shows nothing."""
    found = [_deadlock(dump, circle) for circle in dump.deadlocks]
    runner = _runner(dump)
    if runner is not None:
        found.append(_shutdown(dump, runner))
    elif users := [t for t in dump.threads if _is_user(t)]:
        found.append(_user_threads(users))
    return tuple(found)


def _runner(dump: JavaDump) -> JavaThread | None:
    """The thread that runs the shutdown sequence; others that called exit only wait for it."""
    inside = [t for t in dump.threads if t.stands_in("java.lang.Shutdown.")]
    joining = [t for t in inside if _joins_hooks(t)]
    free = [t for t in inside if t.wants is None]
    return next(iter(joining or free), None)


def _joins_hooks(thread: JavaThread) -> bool:
    return thread.stands_in("java.lang.ApplicationShutdownHooks.runHooks")


def _is_user(thread: JavaThread) -> bool:
    return thread.number is not None and not thread.daemon and thread.name != "DestroyJavaVM"


def _runs_java(thread: JavaThread) -> bool:
    """Whether it runs the program's code, or may: not one of the JVM's or the JDK's own."""
    if thread.number is None or not thread.frames:
        return False
    # A second signal brings a second handler thread, which only waits for the shutdown.
    signalled = thread.stands_in("java.lang.Terminator$1.handle")
    return not signalled and not thread.frames[-1].startswith(_OF_THE_JDK)


def _shutdown(dump: JavaDump, runner: JavaThread) -> Finding:
    since, exact = _begun(runner)
    if not _joins_hooks(runner):
        return Finding(
            "jvm-hook-running",
            f"the JVM is shutting down (since {since}), in a step that is not a shutdown hook",
            Severity.NOTE,
            evidence=(_line(runner),),
            advice="let it work; look again when it stays there",
        )
    hooks = _hooks(dump, runner, exact=exact)
    stuck = [hook for hook in hooks if _never_ends(dump, hook, runner)]
    # The one it joins is alive and among these: sure if that is one, or all of one fate.
    sure = exact and (len(hooks) == 1 or 0 < len(stuck) == len(hooks))
    if stuck:
        title = (
            f"the JVM waits for {_named(stuck, 'shutdown hook')}, which can never end "
            f"(shutting down since {since})"
        )
    elif hooks and (exact or len(hooks) == 1):
        title = f"the JVM waits for {_named(hooks, 'shutdown hook')} (shutting down since {since})"
    elif hooks:
        title = (
            f"the JVM waits for a shutdown hook, one or more of {_named(hooks, 'thread')} "
            f"(shutting down since {since})"
        )
    else:
        title = f"the JVM waits for a shutdown hook (shutting down since {since})"
    return Finding(
        "jvm-hook-running",
        title,
        Severity.BLOCKER if stuck else Severity.NOTE,
        Confidence.CERTAIN if sure else Confidence.LIKELY,
        evidence=(
            *_lines(stuck + [h for h in hooks if h not in stuck], dump),
            f"{_quote(runner.name)} runs the shutdown and joins its hooks",
        ),
        advice=_advice(stuck, runner),
    )


def _advice(stuck: Sequence[JavaThread], runner: JavaThread) -> str:
    if not stuck:
        return "let it work: give it more time; look at what the hook waits for when it stays there"
    if any(hook.stands_in("java.lang.Shutdown.exit") for hook in stuck):
        return (
            "never call System.exit in a shutdown hook: it waits for the shutdown, which waits for "
            "the hook; only force ends this JVM now"
        )
    if any(hook.wants in runner.holds for hook in stuck):
        return (
            f"{_quote(runner.name)} called exit while it held the lock: call it after letting go; "
            "only force ends this JVM now"
        )
    return "take the locks in one order in all hooks; only force ends this JVM now"


def _begun(runner: JavaThread) -> tuple[str, bool]:
    """What began the shutdown, and whether the dump tells when."""
    if runner.name.startswith("SIG") and runner.name.endswith(" handler"):
        return runner.name.removesuffix(" handler"), runner.elapsed_s is not None
    if runner.name == "DestroyJavaVM":
        return "its last user thread ended", False
    return f"{_quote(runner.name)} called exit", False


def _hooks(dump: JavaDump, runner: JavaThread, *, exact: bool) -> list[JavaThread]:
    """The threads that may be hooks, the youngest first."""
    found = []
    for thread in dump.threads:
        # A hook may be a daemon thread; where the time does not tell, that would catch too many.
        if exact and thread.elapsed_s is not None and runner.elapsed_s is not None:
            younger = thread.elapsed_s <= runner.elapsed_s + _ROUNDING_S
            fits = younger and _runs_java(thread)
        else:
            fits = _is_user(thread)
        if fits and thread is not runner:
            found.append(thread)
    return sorted(found, key=lambda t: t.elapsed_s or 0.0)


def _never_ends(dump: JavaDump, hook: JavaThread, runner: JavaThread) -> bool:
    """Whether what the hook waits for waits, at the end, for the hook itself."""
    seen: list[JavaThread] = []
    thread: JavaThread | None = hook
    while thread is not None and thread not in seen:
        if thread is runner:
            return True
        seen.append(thread)
        thread = _holder(dump, thread)
    return thread is not None


def _holder(dump: JavaDump, thread: JavaThread) -> JavaThread | None:
    """Who holds what this thread waits for, as far as the dump tells."""
    if thread.wants is not None:
        others = (t for t in dump.threads if t is not thread)
        return next((t for t in others if thread.wants in t.holds), None)
    # A lock of java.util.concurrent shows its holder only where the JVM found a deadlock.
    links = (link for circle in dump.deadlocks for link in circle)
    holder = next(
        (k.holder for k in links if k.thread == thread.name and k.lock == thread.parked_for), None
    )
    return None if holder is None else dump.thread(holder)


def _deadlock(dump: JavaDump, circle: tuple[Link, ...]) -> Finding:
    names = [link.thread for link in circle]
    evidence = []
    for link in circle:
        held = [other.lock for other in circle if other.holder == link.thread]
        holds = ", ".join(map(str, held)) or "nothing"
        thread = dump.thread(link.thread)
        where = f" in {_place(thread)}" if thread else ""
        evidence.append(
            printable(
                f"{_quote(link.thread)} holds {holds}, waits for {link.lock} "
                f"held by {_quote(link.holder)}{where}",
                300,
            )
        )
    return Finding(
        "jvm-deadlock",
        f"{len(names)} threads of the JVM wait for each other for ever: "
        f"{', '.join(map(_quote, names[:_MANY]))}",
        Severity.BLOCKER,
        evidence=tuple(evidence),
        advice="take these locks in one order everywhere; what these threads had in hand is stuck",
    )


def _user_threads(users: list[JavaThread]) -> Finding:
    return Finding(
        "jvm-user-threads",
        f"the JVM is not shutting down: {_named(users, 'user thread')} "
        f"{'keeps' if len(users) == 1 else 'keep'} it alive",
        Severity.BLOCKER,
        evidence=tuple(_lines(users)),
        advice="a handler of the program's own may have taken the signal: let it end these threads "
        "or call System.exit; a JVM ends by itself only after its last non-daemon thread",
    )


def _lines(threads: Iterable[JavaThread], dump: JavaDump | None = None) -> list[str]:
    every = list(threads)
    lines = [_line(thread, dump) for thread in every[:_MANY]]
    if len(every) > _MANY:
        lines.append(f"and {len(every) - _MANY} more threads")
    return lines


def _line(thread: JavaThread, dump: JavaDump | None = None) -> str:
    """One thread on one line: name, state, what it waits for, where it is."""
    waits = ""
    holder = _holder(dump, thread) if dump else None
    if wants := thread.wants or (thread.parked_for if holder else None):
        held = f" held by {_quote(holder.name)}" if holder else ""
        waits = f", wants {wants}{held}"
    state = thread.state or "no Java state"
    return printable(f"{_quote(thread.name)} {state}{waits}: {_place(thread)}", 300)


def _place(thread: JavaThread) -> str:
    """Its telling frames: the program's own, and the library call that they stand in."""
    own = [n for n, frame in enumerate(thread.frames) if not frame.startswith(_PLUMBING)]
    if not own:
        return " < ".join(thread.frames[:_TOP]) or "no Java frames"
    shown = [thread.frames[n] for n in own if _LAMBDA not in thread.frames[n]]
    if own[0] > 0:
        shown.insert(0, _short(thread.frames[own[0] - 1]))
    return " < ".join(shown[:_TOP])


def _short(frame: str) -> str:
    """A library frame without its package and its line: `CountDownLatch.await`."""
    return ".".join(frame.partition(" (")[0].split(".")[-2:])


def _named(threads: Sequence[JavaThread], what: str) -> str:
    names = ", ".join(_quote(thread.name) for thread in threads[:_MANY])
    more = f" and {len(threads) - _MANY} more" if len(threads) > _MANY else ""
    return f"its {what}{'s' if len(threads) > 1 else ''} {names}{more}"


def _quote(name: str) -> str:
    return f'"{printable(name, 60)}"'
