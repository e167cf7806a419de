# The parent of the victims in the crash suite: forks them, reaps them at once or leaves zombies,
# and tells how each ended. One JSON object a line: a request on stdin, its answer on stdout.
#   {"do": "spawn", "kind": "quick", "mode": "reap" | "keep"}   -> {"pids": [root, child, ...]}
#   {"do": "settle", "pids": [...]}        -> {}: these have ended, whether they were reaped or not
#   {"do": "release", "pid": N}            -> {}: a gated victim may end now
#   {"do": "report"}                       -> {"ended": {pid: status}, "said": {pid: [15, ...]}}
#   {"do": "collect"}                      -> {}: reap the zombies that were left
#   {"do": "clear"}                        -> {}: kill and reap everybody, forget everything
import contextlib
import ctypes
import json
import os
import select
import signal
from typing import Any

LIBC = ctypes.CDLL(None)
PDEATHSIG, SUBREAPER = 1, 36
LIMIT_S = 240
SLOW_S = 0.2

# kind: (signals it has a handler for, what it does then)
KINDS: dict[str, tuple[set[int], str]] = {
    "quick": ({15}, "exit 0"),
    "quick-143": ({15}, "exit 143"),
    "dies-of-it": ({15}, "die"),
    "slow": ({15}, "exit 0 late"),
    "gated": ({15}, "exit 0 when released"),
    "failing": ({15}, "exit 3"),
    "stubborn": ({15}, "go on"),
    "plain": (set(), ""),
    "second-ask": ({2, 15}, "exit 0 on 15"),
}
# The kinds of a tree: the root first. A child is a child of the root.
TREES = {"tree": ("quick", "quick", "plain"), "stubborn-tree": ("quick", "stubborn")}

mode = "reap"
alive: dict[int, int] = {}  # pid: the gate that releases it
ended: dict[int, int] = {}
said: dict[int, list[int]] = {}


def main() -> None:
    LIBC.prctl(SUBREAPER, 1)
    wake_r, wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
    record_r, record_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    print(f"ready (pid: {os.getpid()})", flush=True)
    buffer = b""
    while True:
        readable, _, _ = select.select([0, wake_r, record_r], [], [])
        if wake_r in readable:
            os.read(wake_r, 4096)
        note_records(record_r)
        if mode == "reap":
            reap()
        if 0 in readable:
            chunk = os.read(0, 65536)
            if not chunk:
                clear()
                return
            buffer += chunk
            while b"\n" in buffer:
                line, buffer = buffer.split(b"\n", 1)
                print(json.dumps(answer(json.loads(line), record_r, record_w)), flush=True)


def answer(request: dict[str, Any], record_r: int, record_w: int) -> dict[str, Any]:
    global mode  # noqa: PLW0603 (one nursery, one way to treat the dead)
    match request["do"]:
        case "spawn":
            mode = request["mode"]
            return {"pids": spawn(request["kind"], record_w)}
        case "settle":
            for pid in request["pids"]:
                settle(pid)
        case "release":
            if request["pid"] in alive:
                os.write(alive[request["pid"]], b"!")
        case "report":
            note_records(record_r)
            while any(gone(pid) for pid in alive):  # its parent reaped it and is about to say so
                select.select([record_r], [], [])
                note_records(record_r)
            return {"ended": ended, "said": said}
        case "collect":
            reap()
        case "clear":
            clear()
            note_records(record_r)
            ended.clear()
            said.clear()
    return {}


def spawn(kind: str, record_w: int) -> list[int]:
    kinds = TREES.get(kind, (kind,))
    ready_r, ready_w = os.pipe()
    gate_r, gate_w = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            LIBC.prctl(PDEATHSIG, signal.SIGKILL)
            children = [be_child(k, record_w, ready_w) for k in kinds[1:]]
            live(kinds[0], record_w, ready_w, gate_r, [os.getpid(), *children])
        finally:
            os._exit(code)
    os.close(gate_r)
    os.close(ready_w)
    alive[pid] = gate_w
    with os.fdopen(ready_r) as lines:
        said = [lines.readline().split() for _ in kinds]
    pids = next(list(map(int, words)) for words in said if len(words) > 1 or len(kinds) == 1)
    for each in pids[1:]:
        alive[each] = -1
    return pids


def be_child(kind: str, record_w: int, ready_w: int) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            live(kind, record_w, ready_w, -1, [os.getpid()])
        finally:
            os._exit(1)
    return pid


def live(kind: str, record_w: int, ready_w: int, gate: int, family: list[int]) -> None:
    """The life of a victim; its family is itself and its children."""
    signal.alarm(LIMIT_S)
    signal.set_wakeup_fd(-1)
    wake_r, wake_w = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(wake_w, False)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    handled, then = KINDS[kind]
    for signum in handled:
        signal.signal(signum, lambda *_: None)
    if len(family) > 1 and mode == "reap":
        # In the other mode the nursery inherits the zombies, and leaves them.
        signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_w)
    os.write(ready_w, " ".join(map(str, family)).encode() + b"\n")
    os.close(ready_w)
    while True:
        for signum in os.read(wake_r, 64):
            if signum == signal.SIGCHLD:
                reap_children(record_w)
                continue
            os.write(record_w, b"said %d %d\n" % (os.getpid(), signum))
            act(then, signum, gate)


def act(then: str, signum: int, gate: int) -> None:
    match then.split():
        case ["exit", code]:
            os._exit(int(code))
        case ["exit", code, "on", wanted]:
            if signum == int(wanted):
                os._exit(int(code))
        case ["exit", code, "late"]:
            select.select([], [], [], SLOW_S)
            os._exit(int(code))
        case ["exit", code, "when", "released"]:
            os.read(gate, 1)
            os._exit(int(code))
        case ["die"]:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)


def reap_children(record_w: int) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        os.write(record_w, b"ended %d %d\n" % (pid, status))


def note_records(record_r: int) -> None:
    try:
        lines = os.read(record_r, 65536)
    except BlockingIOError:
        return
    for line in lines.splitlines():
        what, pid, number = line.split()
        if what == b"said":
            said.setdefault(int(pid), []).append(int(number))
        else:
            over(int(pid), int(number))


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def over(pid: int, status: int) -> None:
    ended[pid] = status
    gate = alive.pop(pid, -1)
    if gate >= 0:
        os.close(gate)


def reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        over(pid, status)


def settle(pid: int) -> None:
    """Wait until it has ended; in the mode "reap" also until it is gone."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([fd], [], [])
        if mode == "reap":
            reap()
            poller = select.poll()
            poller.register(fd, 0)  # POLLHUP alone: somebody has reaped it
            poller.poll()
    finally:
        os.close(fd)


def clear() -> None:
    for pid in alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # ours, or our subtree's, until we reap it below
    while True:
        try:
            pid, _ = os.waitpid(-1, 0)
        except ChildProcessError:
            break
    for gate in alive.values():
        if gate >= 0:
            os.close(gate)
    alive.clear()


if __name__ == "__main__":
    main()
