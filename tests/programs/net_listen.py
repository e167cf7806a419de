# Servers in every shape that a look-up by port meets. Says "ready (pid: N)" and then a line with
# its port and the pids of its children, and waits for ever. `net_listen.py SHAPE [HOST]`.
import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Callable

LIBC = ctypes.CDLL(None, use_errno=True)


def listen(host: str = "127.0.0.1", port: int = 0, *, reuse_port: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    one = socket.socket(family)
    if reuse_port:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    one.bind((host, port))
    one.listen(64)
    return one


def child(work: Callable[[], object] = lambda: None) -> int:
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: never outlive the test
        os.close(ours)
        work()
        os.write(theirs, b".")
        while True:
            signal.pause()
    os.close(theirs)
    os.read(ours, 1)
    os.close(ours)
    return pid


def call_me(name: str) -> None:
    LIBC.prctl(15, name.encode())  # PR_SET_NAME


shape = sys.argv[1]
host = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1"
children, port = [], 0
if shape == "alone":
    door = listen(host)
    port = door.getsockname()[1]
elif shape == "workers":  # the usual pre-forking server
    door = listen()
    port = door.getsockname()[1]
    children = [child(), child()]
elif shape == "let-go":  # the master closed its copy
    door = listen()
    port = door.getsockname()[1]
    children = [child(), child()]
    door.close()
elif shape == "let-go-busy":  # as before, but it has other business too
    door = listen()
    port = door.getsockname()[1]
    children = [child(), child(), child(door.close)]
    door.close()
elif shape == "reuse-port":  # each worker has a socket of its own
    first = listen(reuse_port=True)
    port = first.getsockname()[1]
    kept = []
    children = [
        child(lambda: (first.close(), kept.append(listen(port=port, reuse_port=True))))
        for _ in range(2)
    ]
    first.close()
elif shape == "two-addresses":  # two servers, one port number
    first = listen("127.0.0.1")
    port = first.getsockname()[1]
    second = listen("127.0.0.2", port)
    children = [child(first.close), child(second.close)]
    first.close()
    second.close()
elif shape == "activated":  # systemd holds the socket of its service
    call_me("systemd")
    door = listen()
    port = door.getsockname()[1]
    children = [child(lambda: call_me("service"))]
elif shape == "activator":  # systemd, before the first connection
    call_me("systemd")
    door = listen()
    port = door.getsockname()[1]
elif shape == "shut":  # it can be looked into by nobody but root
    door = listen()
    port = door.getsockname()[1]
    LIBC.prctl(4, 0)  # PR_SET_DUMPABLE
else:
    raise SystemExit(f"unknown shape {shape}")
print(f"ready (pid: {os.getpid()})")
print(port, *children, flush=True)
while True:
    time.sleep(3600)
