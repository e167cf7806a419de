"""The traps that every Python program falls into when it ends: signals, asyncio, the GIL, locks.

Each test falls into the trap first, the usual way, and then not.
"""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

import pytest

from app.stage import played, stage
from helpers import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="about Linux")

# Whatever is not ours: how a stop is told once, or not at all.
COUNTED = """
    lifecycle = Lifecycle(grace_s=20, exit_with="zero")
    lifecycle.listen(lambda what, words: what == "stopping" and say("stopping"))
    lifecycle.listen(lambda what, words: what == "hurried" and say("hurried"))
"""


def test_a_stop_begins_while_the_main_thread_sits_in_c_code() -> None:
    """A Python handler waits for the query's end, which the stop itself has to bring about."""
    program = """
    import sqlite3
    base = sqlite3.connect(":memory:", check_same_thread=False)
    signal.signal(signal.SIGUSR1, lambda *_: say("a plain handler"))
    lifecycle = Lifecycle(exit_with="zero")

    @lifecycle.on("drain")
    def end_query():
        say("the stop began")
        while not lifecycle.house.main.here.is_set():  # SQLite forgets one that is too early
            base.interrupt(); time.sleep(0.05)

    asks = threading.Event()
    def tell():
        asks.wait()
        time.sleep(0.5)  # it only has one more step to the query
        say("ready")

    with lifecycle:
        threading.Thread(target=tell, daemon=True).start()
        try:
            asks.set()
            base.execute("with recursive c(x) as (values(1) union all select x+1 from c)"
                         " select count(*) from c").fetchone()
        except sqlite3.OperationalError as error:
            say(error)
    """
    with stage(program) as one:
        one.until("ready")
        one.kill(signal.SIGUSR1)
        one.kill()
        status, lines = one.end()
    # Handlers run when the C code has come back, in whichever order.
    assert lines[0] == "the stop began"
    assert sorted(lines[1:]) == ["a plain handler", "interrupted"]
    assert status == 0


ASYNCIO = (
    COUNTED
    + """
    import asyncio
    mode, naive = sys.argv[1], len(sys.argv) > 2
    signal.signal(signal.SIGUSR2, lambda *_: say("still", lifecycle.state))
    if naive:
        from lastcall.app.signals import Signals
        Signals._handle = lambda *_: say("a plain handler")

    async def main():
        loop = asyncio.get_running_loop()
        if mode == "before":
            loop.add_signal_handler(signal.SIGUSR1, say, "the loop's own")
        async with lifecycle:
            if mode != "before":
                loop.add_signal_handler(signal.SIGUSR1, say, "the loop's own")
            if mode == "removed":
                loop.remove_signal_handler(signal.SIGUSR1)
                signal.signal(signal.SIGUSR1, lambda *_: say("the loop's own"))
            if mode == "closed":
                await asyncio.to_thread(lambda: None)
                other = asyncio.new_event_loop()
                other.add_signal_handler(signal.SIGWINCH, say)
                other.close()
            say("ready")
            await lifecycle.draining
    asyncio.run(main())
    """
)


@pytest.mark.parametrize("mode", ["before", "after", "removed", "closed"])
def test_asyncio_takes_the_wakeup_fd_and_the_stop_is_seen_once(mode: str) -> None:
    """Whatever the loop does with it; and its own signals still reach the loop."""
    with stage(ASYNCIO, mode) as one:
        one.until("ready")
        if mode != "closed":  # then the loop's own way is gone as well
            one.kill(signal.SIGUSR1)
            assert one.line() == "the loop's own"
        one.kill()
        assert one.end() == (0, ["stopping"])


def asleep(pid: int) -> bool:
    """Whether the main thread of a process sleeps. Source: proc_pid_stat(5)."""
    stat = Path(f"/proc/{pid}/task/{pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "S"


@pytest.mark.parametrize("mode", ["after", "removed", "closed"])
def test_with_the_wakeup_fd_alone_such_a_stop_is_lost(mode: str) -> None:
    """The technique switched off: a handler that does not write into our pipe itself."""
    with stage(ASYNCIO, mode, "naive") as one:
        one.until("ready")
        # A signal that comes on the way to its sleep is heard by nobody until something wakes it.
        wait_until(lambda: asleep(one.pid), "the sleep of its loop")
        one.kill()
        assert one.line() == "a plain handler"
        one.kill(signal.SIGUSR2)
        assert one.line() == "still running"


def test_bytes_for_a_closed_loop_go_into_nobody_elses_file() -> None:
    """File numbers are used again: what once was a loop's wakeup fd may be a database now."""
    program = (
        COUNTED
        + """
    import asyncio
    signal.signal(signal.SIGUSR2, lambda *_: say("heard"))
    with lifecycle:
        loop = asyncio.new_event_loop()
        loop.add_signal_handler(signal.SIGUSR1, say)
        number = loop._csock.fileno()
        lifecycle.attach(loop)
        loop.close()
        lifecycle.install()
        read, write = os.pipe()
        os.dup2(write, number)
        os.set_blocking(read, False)
        os.kill(os.getpid(), signal.SIGUSR2)
        stop()
        lifecycle.draining.wait()
    """.replace("with lifecycle:", "lifecycle.__enter__()\n    if True:")
        + """
    lifecycle.house.signals.forward(bytes([signal.SIGUSR2]))
    try:
        say("spoilt", os.read(read, 100))
    except BlockingIOError:
        say("untouched")
    """
    )
    status, lines, err = played(program)
    assert "untouched" in lines, err
    assert (status, "spoilt" in lines) == (0, False)


GIL = """
    import ctypes, faulthandler
    how, slot = sys.argv[1:]
    if how == "usual":  # a watchdog, as in many a program
        began_s = time.monotonic()
        def leave():
            say("late" if time.monotonic() - began_s > 3 else "in time")
            os._exit(22)
        watchdog = threading.Timer(0.6, leave)
    if how == "faulthandler":  # ours, without a timer of its own
        from lastcall.app.leave import Backstop
        Backstop._start_timer = lambda *_: False

    def hold_all():
        if slot == "taken":  # it has one: whoever calls it last has it
            faulthandler.dump_traceback_later(600)
        libc = ctypes.PyDLL(None)
        libc.sleep(4)
        if how == "usual": watchdog.join()
        libc.write(1, b"C had its way\\n", 14); libc._exit(0)

    if how == "usual":
        watchdog.start()
        hold_all()
    lifecycle = Lifecycle(grace_s=1.2)
    lifecycle.on("close")(hold_all)
    with lifecycle:
        stop()
        lifecycle.draining.wait()
    """


@pytest.mark.parametrize(
    ("how", "slot", "status", "lines"),
    [
        ("usual", "free", 22, "late"),  # a thread needs the GIL
        ("faulthandler", "free", 1, ""),  # it knows no other status
        ("faulthandler", "taken", 0, "C had its way"),
        ("ours", "free", 22, ""),
        ("ours", "taken", 22, ""),
    ],
)
def test_c_code_that_holds_the_gil_cannot_hold_the_process(
    how: str, slot: str, status: int, lines: str
) -> None:
    """It leaves with 22 whoever has faulthandler's one slot; if we do, with all stacks told."""
    found = played(GIL, how, slot)
    assert found[:2] == (status, lines), found[2]
    told = "in hold_all" in found[2] and "Thread 0x" in found[2]
    assert told == (how != "usual" and slot == "free")


EXITS = """
    class Saving:
        def __enter__(self): return self
        def __exit__(self, *error):
            say("first half")
            stop()
            for _ in range(1000): pass
            say("second half")

    if sys.argv[1] == "naive":
        def leave(*_): sys.exit(0)
        signal.signal(signal.SIGTERM, leave)
        with Saving(): pass
    else:
        with Lifecycle(exit_with="zero") as lifecycle:
            with Saving(): pass
    """


def test_a_signal_does_not_cut_an_exit_short() -> None:
    """A handler that raises ends whatever runs at that moment, also what cleans up."""
    assert played(EXITS, "naive")[:2] == (0, "first half")
    assert played(EXITS, "ours")[:2] == (0, "first half | second half")


LOCKS = """
    lock, tried = threading.Lock(), threading.Event()
    def save():
        tried.set()
        say("saved" if lock.acquire(timeout=20 if len(sys.argv) < 2 else 0.2) else "no lock")

    if len(sys.argv) > 1:
        signal.signal(signal.SIGTERM, lambda *_: save())
        with lock:
            stop()
            tried.wait()
    else:
        lifecycle = Lifecycle(exit_with="zero")
        lifecycle.on("close")(save)
        with lifecycle:
            with lock:
                stop()
                lifecycle.draining.wait()
    """


def test_hooks_can_take_a_lock_that_the_main_thread_had() -> None:
    """In a handler that would wait for the very code that it interrupts."""
    assert played(LOCKS, "naive")[:2] == (0, "no lock")
    assert played(LOCKS)[:2] == (0, "saved")


FINAL = """
    import asyncio, atexit
    from concurrent.futures import ThreadPoolExecutor
    pool = ThreadPoolExecutor(1)
    def save():
        try:
            say("pool", pool.submit(abs, -1).result(10))
            say("loop", asyncio.run(asyncio.to_thread(abs, -2)))
        except RuntimeError as error:
            say("failed:", error)

    if len(sys.argv) > 1:
        atexit.register(save)
    else:
        lifecycle = Lifecycle(exit_with="zero")
        lifecycle.on("flush")(save)
        with lifecycle:
            stop()
            lifecycle.draining.wait()
    """


def test_hooks_can_use_executors_and_loops() -> None:
    """At atexit those are closed already."""
    _, lines, _ = played(FINAL, "naive")
    assert "failed: cannot schedule new futures" in lines
    assert played(FINAL)[:2] == (0, "pool 1 | loop 2")


TASK = """
    import asyncio
    async def main():
        try:
            say("ready")
            await asyncio.sleep(600)
        finally:
            say("cleaned up")

    if len(sys.argv) > 1:
        asyncio.run(main())
    else:
        Lifecycle().run(main)
    """


def test_sigterm_under_asyncio_runs_finally_blocks() -> None:
    """A bare `asyncio.run` is gone at once."""
    for words, said in ((["naive"], []), ([], ["cleaned up"])):
        with stage(TASK, *words) as one:
            one.until("ready")
            one.kill()
            assert one.end() == (-signal.SIGTERM, said)


LOOPS = """
    import asyncio
    mode = sys.argv[1]
    lifecycle = Lifecycle(grace_s=3, limits={"close": 0.5}, exit_with="nothing")
    loop = asyncio.new_event_loop()

    async def register():
        @lifecycle.on("close", name="save")
        async def save():
            say("saved")

    loop.run_until_complete(register())
    if mode == "closed":
        loop.close()
    if mode in {"blocked", "running"}:
        threading.Thread(target=loop.run_forever, daemon=True).start()
        loop.call_soon_threadsafe(threading.Event().wait if mode == "blocked" else int)
    with lifecycle: pass
    [run] = [run for phase in lifecycle.report.phases for run in phase.runs if run.name == "save"]
    say(run.outcome, "-", run.detail)
    """


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("closed", "loop gone - its event loop is closed"),
        ("stopped", "loop gone - its event loop is not running any more"),
        ("blocked", "cut off - it does not end when cancelled"),
        ("running", "saved | done - "),
    ],
)
def test_a_hook_whose_loop_is_gone_is_told_so_and_holds_nobody(mode: str, said: str) -> None:
    """`run_coroutine_threadsafe` would wait for ever, or fail in a place nobody looks at."""
    status, lines, err = played(LOOPS, mode)
    assert (status, lines) == (0, said), err


SERVER = """
    import asyncio, uvicorn
    lifecycle = Lifecycle(grace_s=20, exit_with="zero")
    ending = threading.Event()
    if len(sys.argv) > 2:
        signal.signal(signal.SIGTERM, lambda *_: (say("our handler"), ending.set()))
    else:
        lifecycle.draining.add_callback(lambda: (say("our drain"), ending.set()))

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                kind = (await receive())["type"]
                if kind == "lifespan.shutdown": say("the server ends")
                await send({"type": kind + ".complete"})
                if kind == "lifespan.shutdown": return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first half, ", "more_body": True})
        while not ending.is_set():  # a stream, which is to end by itself
            await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": b"second half"})

    import socket
    listener = socket.create_server(("127.0.0.1", 0))
    say("port", listener.getsockname()[1])
    uvicorn.run(
        app if len(sys.argv) > 2 else lifecycle.asgi(app), fd=listener.fileno(),
        log_level="critical", timeout_graceful_shutdown=int(sys.argv[1]),
    )
    """


@pytest.mark.parametrize("naive", [True, False])
def test_a_server_that_takes_the_signals_after_us_gets_them_last(naive: bool) -> None:  # noqa: FBT001 (a parameter)
    """Real uvicorn: it has replaced a plain handler, which runs when all is lost; ours is first."""
    words = ("1", "naive") if naive else ("10",)
    with stage(SERVER, *words) as one:
        port = int(one.until("port")[-1].split()[1])
        with socket.create_connection(("127.0.0.1", port), 20) as link:
            link.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            said = b""
            while b"first half, " not in said:
                said += link.recv(4096)
            one.kill()
            while more := link.recv(4096):
                said += more
        status, lines = one.end()
    assert (b"second half" in said) == (not naive), one
    usual, ours = ["the server ends", "our handler"], ["our drain", "the server ends"]
    # uvicorn raises the signal once more when it has ended.
    assert (status, lines) == ((0, usual) if naive else (-signal.SIGTERM, ours))
