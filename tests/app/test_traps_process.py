"""More traps of a process that ends: threads, children, groups, masks, PID 1, the exit status.

Each test falls into the trap first, the usual way, and then not.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from app.stage import played, stage
from helpers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="about Linux")

THREADS = """
    def pump():
        if len(sys.argv) > 1:
            threading.main_thread().join()
            say("outlived main")
        threading.Event().wait()

    threading.Thread(target=pump, name="pump").start()
    if len(sys.argv) == 1:
        with Lifecycle(grace_s=1): pass
    sys.exit(0)
    """


def test_a_thread_that_holds_the_exit_is_named_and_left_behind() -> None:
    """`sys.exit` waits for it for ever and says nothing."""
    with stage(THREADS, "naive") as one:
        one.until("outlived main")
        assert one.child.poll() is None
    status, _, err = played(THREADS)
    assert status == 22
    assert "thread 'pump'" in err
    assert "in pump: threading.Event().wait()" in err
    assert "cut off: thread 'pump'" in err


LAST_WORD = """
    def poll():
        try:
            say("polling")
            lifecycle.draining.wait()
        finally:
            say("last word")

    lifecycle = Lifecycle()
    with lifecycle:
        if len(sys.argv) > 1:
            threading.Thread(target=threading.Event().wait, daemon=True).start()
            def poll_naive():
                try: say("polling"); threading.Event().wait()
                finally: say("last word")
            threading.Thread(target=poll_naive, daemon=True).start()
        else:
            lifecycle.daemon(poll)
    """


def test_a_daemon_thread_is_given_a_last_word() -> None:
    """Nobody asks a plain one whether it has finished."""
    assert played(LAST_WORD, "naive")[:2] == (0, "polling")
    assert played(LAST_WORD)[:2] == (0, "polling | last word")


def test_a_thread_can_end_the_program() -> None:
    """`sys.exit` in a thread ends the thread; `lifecycle.exit` runs the shutdown, with its code."""
    program = """
    lifecycle = Lifecycle()
    lifecycle.on("close")(lambda: say("closed"))
    end = (lambda: sys.exit(3)) if sys.argv[1] == "naive" else (lambda: lifecycle.exit(3))
    with lifecycle:
        thread = threading.Thread(target=end)
        thread.start()
        if sys.argv[1] == "naive":
            thread.join()
            say("goes on", lifecycle.state)
        else:
            lifecycle.draining.wait()
    """
    assert played(program, "naive")[:2] == (0, "goes on running | closed")
    assert played(program, "ours")[:2] == (3, "closed")


FORK = """
    if len(sys.argv) > 1:
        from lastcall.app.house import House
        House.renew = lambda self: None
    with Lifecycle() as lifecycle:
        child = os.fork()
        if not child:
            signal.alarm(60)
            say("child")
            while True: time.sleep(1)
        sys.stdin.readline()
        os.kill(child, signal.SIGTERM)
        if len(sys.argv) > 1:
            lifecycle.draining.wait()
            say("the parent stops")
            say("child", os.waitpid(child, os.WNOHANG)[0] and "ended")
            os.kill(child, signal.SIGKILL)
        else:
            say("child", -os.WTERMSIG(os.waitpid(child, 0)[1]))
            say("parent", lifecycle.state)
    """


def test_a_signal_to_a_forked_child_is_the_childs() -> None:
    """Otherwise it is written into the parent's pipe, and the child lives on."""
    for words, said in (
        (["naive"], ["the parent stops", "child 0"]),
        ([], ["child -15", "parent running"]),
    ):
        with stage(FORK, *words) as one:
            one.until("child")
            one.tell()
            assert one.end()[1] == said


def test_a_signal_right_after_the_fork_reaches_nobody_else() -> None:
    """Between the fork and its first step the child has its parent's handlers: it is blocked."""
    program = """
    lifecycle = Lifecycle()
    at_once = lambda: os.kill(os.getpid(), signal.SIGTERM)
    os.register_at_fork(after_in_child=lambda: None)
    with lifecycle:
        real = os.getpid()
        # Runs in the child first of all: whatever was registered before the lifecycle was made.
        ended = 0
        for _ in range(50):
            child = os.fork()
            if not child:
                os._exit(99)
            ended += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        say("died", ended, lifecycle.state)
    """.replace(
        "lifecycle = Lifecycle()",
        "os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))\n"
        "    lifecycle = Lifecycle()",
    )
    assert played(program)[:2] == (0, "died 50 running")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_end_when_they_are_terminated(method: str) -> None:
    """With their parent's handler they would not; and they can have a lifecycle of their own."""
    program = """
    import multiprocessing
    lifecycle = Lifecycle(exit_with="zero")

    def plain(told):
        told.set()
        time.sleep(600)

    def own(told):
        with Lifecycle() as mine:
            mine.on("close")(lambda: say("the child's hook"))
            told.set()
            mine.draining.wait()

    def inherited(told):
        with lifecycle:
            lifecycle.on("close", name="more")(lambda: say("the child's hook"))
            told.set()
            lifecycle.draining.wait()

    if __name__ == "__main__":
        context = multiprocessing.get_context(sys.argv[1])
        with lifecycle:
            for target in (plain, own, inherited):
                told = context.Event()
                child = context.Process(target=target, args=(told,))
                child.start()
                told.wait()
                child.terminate()
                child.join()
                say(target.__name__, child.exitcode)
            say(lifecycle.state)
            stop()
            lifecycle.draining.wait()
        """
    status, lines, err = played(program, method)
    # `lifecycle` says: 0 when drained.
    said = "plain -15 | the child's hook | own -15 | the child's hook | inherited 0 | running"
    assert (status, lines) == (0, said), err


GROUP = """
    naive = len(sys.argv) > 1
    child = os.fork()
    me = "parent" if child else "child"
    ready, go = os.pipe()
    def work(waiting):
        say(me, "ready")
        for _ in range(300 if not waiting else 1000):
            time.sleep(0.01)
            if waiting and lifecycle.announced: break
        time.sleep(0.2)
        say(me, "saved")
    try:
        if naive:
            work(False)
        else:
            lifecycle = Lifecycle(exit_with="zero")
            with lifecycle, lifecycle.work("an order"):
                work(True)
    except KeyboardInterrupt:
        say(me, "interrupted")
    if child:
        os.waitpid(child, 0)
    """


@pytest.mark.parametrize(("words", "word"), [(["naive"], "interrupted"), ([], "saved")])
def test_a_terminals_interrupt_of_the_whole_group_lets_all_finish(
    words: list[str], word: str
) -> None:
    """Workers get Ctrl+C as well as their parent: by default each loses what it has in hand."""
    with terminal() as (keyboard, shim), stage(GROUP, *words, shim=shim) as one:
        assert {one.line(), one.line()} == {"parent ready", "child ready"}
        os.write(keyboard, CTRL_C)
        assert sorted(one.end()[1]) == [f"child {word}", f"parent {word}"]


POOL = """
    import multiprocessing
    lifecycle = Lifecycle(exit_with="zero")

    def work(kind, told, on):
        if kind == "ignores": signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            told.set()
            if kind == "plain": time.sleep(60)
            else: on.wait()
            print(kind, "saved", flush=True)
        except KeyboardInterrupt:
            print(kind, "interrupted", flush=True)

    if __name__ == "__main__":
        context = multiprocessing.get_context(sys.argv[1])
        told = [context.Event(), context.Event()]
        on = context.Event()
        kinds = zip(("plain", "ignores"), told)
        children = [context.Process(target=work, args=(*each, on)) for each in kinds]
        with lifecycle:
            for child in children: child.start()
            for event in told: event.wait()
            say("ready")
            children[0].join()
            on.set()
            children[1].join()
            say("parent", lifecycle.announced.wait(60))
    """


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_plain_childs_interrupt_is_its_own(method: str) -> None:
    """A child without a lifecycle is as Python makes it, and the parent's stop waits for it."""
    with terminal() as (keyboard, shim), stage(POOL, method, shim=shim) as one:
        one.until("ready")
        os.write(keyboard, CTRL_C)
        status, lines = one.end()
    assert (status, lines) == (0, ["plain interrupted", "ignores saved", "parent True"]), one


CTRL_C = b"\x03"


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, str]]:
    """A terminal: its keyboard, and what makes it that of a process of a session of its own."""
    keyboard, screen = os.openpty()
    try:
        # tty_ioctl(4): a leader of a session without one takes the first that it opens.
        yield keyboard, f"os.set_inheritable(os.open({os.ttyname(screen)!r}, os.O_RDWR), True)"
    finally:
        os.close(keyboard)
        os.close(screen)


BLOCKED = """
    if len(sys.argv) > 1:
        from lastcall.app.signals import Signals
        Signals._unblock = lambda self: None
    lifecycle = Lifecycle()
    with lifecycle:
        say("ready")
        while not lifecycle.draining:
            if signal.SIGTERM in signal.sigpending():
                say("deaf")
                os._exit(1)
            lifecycle.draining.wait(0.02)
    """


def test_a_signal_that_was_blocked_before_exec_is_heard() -> None:
    """The mask outlives exec; a program that does not look is deaf."""
    shim = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])"
    for words, expected in ((["naive"], (1, ["deaf"])), ([], (-signal.SIGTERM, []))):
        with stage(BLOCKED, *words, shim=shim) as one:
            one.until("ready")
            one.kill()
            assert one.end() == expected
            assert words or "SIGTERM: was blocked by whoever started this program" in one.err


def test_an_inherited_sig_ign_is_respected() -> None:
    """`nohup` and a shell's background jobs mean it; a plain handler does not ask."""
    program = """
    if len(sys.argv) > 1:
        signal.signal(signal.SIGINT, lambda *_: say("a plain handler"))
    with Lifecycle() as lifecycle:
        say("ready")
        sys.stdin.readline()
        say(lifecycle.state)
    """
    shim = "signal.signal(signal.SIGINT, signal.SIG_IGN)"
    for words, state in ((["naive"], "stopping"), ([], "running")):
        with stage(program, *words, shim=shim) as one:
            one.until("ready")
            one.kill(signal.SIGINT)
            if words:  # then wait until it was heard
                wait_until(lambda: "SIGINT" in one.err, "the stop to begin")
            one.tell()
            said = one.line()
        assert said == state or (words and said == "ended")


PID_1 = """
    signal.signal(signal.SIGUSR1, lambda *_: say("still here"))
    say("ready", os.getpid())
    if len(sys.argv) > 1:
        while True: time.sleep(1)
    lifecycle = Lifecycle()
    lifecycle.on("close")(lambda: say("closed"))
    with lifecycle:
        lifecycle.draining.wait()
    """


def test_as_pid_1_it_ends_with_143_and_runs_its_hooks() -> None:
    """There the default action of a signal is nothing, also for one that it sends itself."""
    rootless = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    assert shutil.which("unshare"), "needs unshare (package util-linux)"
    space = ["unshare", *rootless, "--pid", "--fork", "--kill-child"]
    for words in (["naive"], []):
        with stage(PID_1, *words, before=space) as one:
            assert one.until("ready") == ["ready 1"], one.err
            [inner] = Path(f"/proc/{one.pid}/task/{one.pid}/children").read_text().split()
            if words:
                os.kill(int(inner), signal.SIGTERM)
                os.kill(int(inner), signal.SIGUSR1)
                assert one.line() == "still here"
                continue
            wait_until(lambda: _catches(int(inner), signal.SIGTERM), "it to take SIGTERM")  # noqa: B023 (now)
            os.kill(int(inner), signal.SIGTERM)
            assert one.end() == (143, ["closed"])


def _catches(pid: int, signum: int) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [mask] = [int(line.split()[1], 16) for line in lines if line.startswith("SigCgt")]
    return bool(mask >> (signum - 1) & 1)


STATUS = """
    import atexit
    atexit.register(lambda: say("registered early"))
    how = sys.argv[1]
    if how in {"raise", "143"}:
        def end(*_):
            if how == "143": sys.exit(143)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, end)
        stop()
    lifecycle = Lifecycle(exit_with=how)
    atexit.register(lambda: say("registered late"))
    try:
        with lifecycle:
            stop()
            lifecycle.draining.wait()
        say("goes on")
    finally:
        sys.stdout.write("finally\\n")  # not flushed
    """
ORDER = "finally | registered late | registered early"


@pytest.mark.parametrize(
    ("how", "status", "lines"),
    [
        ("raise", -15, ""),  # the usual ways: no atexit,
        ("143", 143, "registered early"),  # or not killed by the signal
        ("signal", -15, ORDER),
        ("code", 143, ORDER),
        ("zero", 0, ORDER),
        ("nothing", 0, f"goes on | {ORDER}"),
    ],
)
def test_the_exit_status_is_true_and_nothing_is_skipped(how: str, status: int, lines: str) -> None:
    """It dies of the signal, after `finally`, after all of atexit, with its output written."""
    found = played(STATUS, how, env={"PYTHONUNBUFFERED": ""})
    assert found[:2] == (status, lines), found[2]


LOGGING = """
    import logging, logging.handlers, queue
    mode, naive = sys.argv[1], len(sys.argv) > 2
    target = logging.StreamHandler(sys.stdout)
    if mode == "memory":
        handler = logging.handlers.MemoryHandler(1000, flushLevel=99, target=target)
    else:
        target.emit = lambda record, emit=target.emit: (time.sleep(0.01), emit(record))
        handler = logging.handlers.QueueHandler(queue.Queue())
        logging.handlers.QueueListener(handler.queue, target).start()
    logging.getLogger("app").addHandler(handler)
    logging.getLogger("app").propagate = False
    def end(*_):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)
    if naive:
        signal.signal(signal.SIGTERM, end)
        for n in range(20): logging.getLogger("app").warning("line %d", n)
        stop()
    with Lifecycle() as lifecycle:
        for n in range(20): logging.getLogger("app").warning("line %d", n)
        stop()
        lifecycle.draining.wait()
    """


@pytest.mark.parametrize("mode", ["memory", "queue"])
def test_the_log_is_written_before_it_dies_of_the_signal(mode: str) -> None:
    """A re-raised signal leaves the buffered lines behind."""
    status, lines, _ = played(LOGGING, mode, "naive")
    assert (status, "line 19" in lines) == (-15, False)
    status, lines, err = played(LOGGING, mode)
    assert (status, lines.split(" | ")) == (-15, [f"line {n}" for n in range(20)]), err
