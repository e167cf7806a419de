# A program with a lifecycle, as its status socket, its service manager and `lastcall stop` see it:
# `app_status.py MODE`. It says `ready (pid: N)`, and is stopped from outside.
import ctypes
import logging
import os
import signal
import stat
import sys
import threading
import time

from lastcall import Lifecycle
from lastcall.app.hooks import HookRun

mode = sys.argv[1]
settings = {
    "deadlock": {"grace_s": 8, "limits": {"drain": 1, "work": 1, "close": 4}},
    "pleads": {"grace_s": 3, "ceiling_s": 20},
    "objects": {"vetoes": True},
    "gil": {"grace_s": 60},
}.get(mode, {})
lifecycle = Lifecycle(exit_with="zero", **settings)
pool_lock, cache_lock = threading.Lock(), threading.Lock()
both = threading.Barrier(2)


def is_socket(fd: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False


if mode == "log":

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            data = getattr(record, "lastcall", None)
            if data is not None:
                print("record", record.levelname, data["reason"], data["clean"], flush=True)

    logging.getLogger().addHandler(Handler())
    logging.getLogger().setLevel(logging.INFO)

if mode == "deadlock":

    @lifecycle.on("close")
    def close_pool() -> None:
        with pool_lock:
            both.wait()
            with cache_lock:
                print("never")

    @lifecycle.on("close")
    def flush_cache() -> None:
        with cache_lock:
            both.wait()
            with pool_lock:
                print("never")

elif mode == "pleads":

    @lifecycle.on("work")
    def push(run: HookRun) -> None:
        # It needs longer than the whole grace period, and than most would give it.
        run.extend(6, "flushing 40 MB")
        time.sleep(4)

elif mode == "objects":
    objected = []

    @lifecycle.on("announce")
    def guard(run: HookRun) -> None:
        if not objected:
            objected.append(1)
            run.veto("a backup is being written")

elif mode == "gil":

    @lifecycle.on("close")
    def hold() -> None:
        print("holding", flush=True)
        ctypes.PyDLL(None).sleep(600)

elif mode == "thread":
    released = threading.Event()
    threading.Thread(target=released.wait, name="pump").start()

elif mode == "fork":
    lifecycle.install()
    there, here = os.pipe()
    child = os.fork()
    if child == 0:
        house = lifecycle.house
        sockets = [fd for fd in range(100) if is_socket(fd)]
        os.write(here, f"child {house.status} {len(house.listeners)} {sockets}".encode())
        signal.pause()

with lifecycle:
    flight = lifecycle.work("GET /report")
    flight.__enter__()
    if user := os.environ.get("LASTCALL_TEST_USER"):
        os.setuid(int(user))
    if mode == "notify":
        lifecycle.notify_ready("serving")
    print(f"ready (pid: {os.getpid()})", flush=True)
    if mode == "fork":
        print(child, os.read(there, 1000).decode(), flush=True)
    if mode != "flight":
        while not lifecycle.draining.wait(1):
            pass
        flight.__exit__()
    else:
        lifecycle.ended.wait()
