# Makes processes that are hard to find: a daemon (two forks, setsid between them), a chain in which
# each forks the next and ends, or many that fork as fast as they can, each in a session of its own.
import os
import signal
import sys
import time

deed = sys.argv[1]
said = False


def say(words: str) -> None:
    os.write(1, f"{words}\n".encode())


if deed == "daemon":
    if os.fork():
        os.wait()
        say(f"ready (pid: {os.getpid()})")
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    say(f"daemon {os.getpid()}")
    os.closerange(0, 3)
    signal.pause()
elif deed == "chain":
    say(f"ready (pid: {os.getpid()})")
    for length in range(200_000):
        if os.fork():
            os._exit(0)
        if length % 10 == 0 and len(sys.argv) > 2:
            os.setsid()
elif deed == "bomb":
    say(f"ready (pid: {os.getpid()})")
    end = time.monotonic() + 2
    for count in range(400):
        if time.monotonic() > end:
            break
        if not os.fork():
            os.setsid()
            if count % 2:
                os.fork()
            signal.pause()
    signal.pause()
elif deed == "leaf":
    for _ in range(3):
        if not os.fork():
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if not os.fork():
                os.setsid()
                signal.pause()
            signal.pause()
    say(f"ready (pid: {os.getpid()})")
    signal.pause()
