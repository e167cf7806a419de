# Does on SIGTERM what its arguments say; `--child` starts another of the same kind below it, which
# says `ready` too.
import ctypes
import os
import signal
import subprocess
import sys
import threading

words = sys.argv[1:]
if words[0] == "--child":
    words = words[1:]
    subprocess.Popen([sys.executable, "-u", __file__, *words])
deed, *values = words


def heard(signum: int, _: object) -> None:
    print(f"heard {signal.Signals(signum).name} (pid {os.getpid()})", flush=True)
    if deed == "exit":
        code, delay = int(values[0]), float(values[1]) if len(values) > 1 else 0
        if delay:
            threading.Timer(delay, os._exit, (code,)).start()
        else:
            os._exit(code)
    elif deed == "reraise":
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)
    elif deed == "once":
        signal.signal(signum, signal.SIG_DFL)
    elif deed == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)


def go_on_alone() -> None:
    """Get ready when the main thread is gone, and never end."""
    while " Z " not in open("/proc/self/stat").read():  # noqa: SIM115 (a victim)
        pass
    print(f"ready (pid: {os.getpid()})", flush=True)
    threading.Event().wait()


for signum in (signal.SIGTERM, signal.SIGINT):
    if deed != "careless":
        signal.signal(signum, heard)
if deed == "headless":
    threading.Thread(target=go_on_alone).start()
    ctypes.CDLL(None).syscall(60 if os.uname().machine == "x86_64" else 93, 0)  # exit(2)
print(f"ready (pid: {os.getpid()})", flush=True)
while True:
    signal.pause()
