"""Takes SIGTERM in the way its first argument names, says `ready`, and answers what reaches it."""

import ctypes
import os
import signal
import sys
import threading

mode = sys.argv[1]
TERM = {signal.SIGTERM}


def taken(how: str) -> None:
    print(f"took SIGTERM by {how}", flush=True)
    sys.exit(0)


def ready() -> None:
    print(f"ready (pid: {os.getpid()})", flush=True)


# Whoever sends SIGUSR1 sees that it is still there, and took all that was sent before.
signal.signal(signal.SIGUSR1, lambda *_: print("still here", flush=True))

if mode == "handler":
    signal.signal(signal.SIGTERM, lambda *_: taken("handler"))
    ready()
elif mode == "ignore":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ready()
elif mode in {"block", "pending"}:
    signal.pthread_sigmask(signal.SIG_BLOCK, TERM)
    if mode == "pending":
        os.kill(os.getpid(), signal.SIGTERM)
    ready()
elif mode == "one-thread-blocks":
    # The main thread takes it; another blocks it: to the process as a whole it is not blocked.
    inside = threading.Event()

    def wait_blocked() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, TERM)
        inside.set()
        threading.Event().wait()

    threading.Thread(target=wait_blocked, daemon=True).start()
    inside.wait()
    ready()
elif mode == "sigwait":
    signal.pthread_sigmask(signal.SIG_BLOCK, TERM)
    ready()
    signal.sigwait(TERM)
    taken("sigwait")
elif mode == "signalfd":
    signal.pthread_sigmask(signal.SIG_BLOCK, TERM)
    mask = (ctypes.c_char * 128)()
    mask[(signal.SIGTERM - 1) // 8] = 1 << ((signal.SIGTERM - 1) % 8)
    fd = ctypes.CDLL(None).signalfd(-1, mask, 0)
    ready()
    os.read(fd, 128)
    taken("signalfd")
elif mode == "vfork":
    # The parent of a vfork waits uninterruptibly (state D) until its child ends or runs a program.
    ctypes.PyDLL(None).vfork() or (ready(), signal.pause())
else:
    ready()

while True:
    signal.pause()
