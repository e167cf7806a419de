# Programs that do not end, each for another reason. Says "ready (pid: N)" and then
# a line with the pid of its child, if any; then it waits.
# `hold_up.py WHY [MORE]`.
import ctypes
import os
import signal
import sys
import threading

LIBC = ctypes.CDLL(None, use_errno=True)
why = sys.argv[1]
said = ""


def child() -> int:
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: never outlive the test
        os.write(theirs, b".")
        while True:
            signal.pause()
    os.read(ours, 1)
    return pid


if why == "blocks":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
elif why == "ignores":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
elif why == "handles":
    signal.signal(signal.SIGTERM, lambda *_: print("asked", flush=True))
elif why in {"children", "waits"}:
    signal.signal(signal.SIGTERM, lambda *_: None)
    said = str(child())
elif why == "never-reaps":
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    said = str(pid)
elif why == "writes":
    file = open(sys.argv[2], "wb")  # noqa: SIM115 (it stays open)
    file.write(b"x" * 1234)
    file.flush()
    other = open(sys.argv[0], "rb")  # noqa: SIM115 (it stays open, and is not listed)
elif why == "threads":
    for number in range(3):
        threading.Thread(target=threading.Event().wait, name=f"w{number}", daemon=True).start()
elif why == "vfork":  # its parent waits in the kernel, uninterruptible but for what kills it
    signal.signal(signal.SIGTERM, lambda *_: None)
elif why == "main-thread-ended":
    signal.signal(signal.SIGTERM, lambda *_: None)
    threading.Thread(target=signal.pause).start()
else:
    raise SystemExit(f"unknown reason {why}")
print(f"ready (pid: {os.getpid()})")
print(said, flush=True)
if why == "vfork" and LIBC.vfork() == 0:
    LIBC.prctl(1, signal.SIGKILL)
    LIBC.pause()
if why == "waits":
    os.waitpid(int(said), 0)
if why == "main-thread-ended":
    LIBC.syscall(60, 0)  # exit(2) of this thread alone, on x86-64
while True:
    signal.pause()
