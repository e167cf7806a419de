# One pid passes to another process at an exact moment of a stop. Run as pid 1 of a pid namespace:
#   unshare --pid --fork --mount-proc python reuse_cases.py FOLDER CASE
# The old process holds a chosen pid and is replaced by a newcomer at the same pid (clone3 with
# set_tid). Prints one JSON object: how the stop went, and which signals the newcomer got. Each case
# says in its name between which two steps the pid changes hands.
from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import sys
import time

from reuse_space import fork_at, own_identity

from lastcall.clock import SystemClock
from lastcall.errors import LastcallError
from lastcall.journal.store import Store
from lastcall.kernel import procfs
from lastcall.kernel.identity import Handle
from lastcall.model import Address, Asked
from lastcall.stop.operation import Operation
from lastcall.stop.policy import Policy
from lastcall.targets.open import Wish, open_target

PID = 4000
# The kernel hands out pending signals lowest number first (signal(7)): TERM before the others.
TERM, END, TELL = signal.SIGTERM, signal.SIGWINCH, signal.SIGURG


class Holder:
    """A process at PID that only ends when it is told to, and tells which signals it got."""

    def __init__(self, comm: str = "", listener: socket.socket | None = None) -> None:
        self.said, told = os.pipe()
        self.pid = fork_at(PID)
        if self.pid == 0:
            try:
                os.close(self.said)
                self._live(told, comm)
            finally:
                os._exit(1)
        os.close(told)
        if listener is not None:
            listener.close()
        assert self.line() == "ready"
        self.start_ticks = procfs.stat(PID).start_ticks

    def _live(self, told: int, comm: str) -> None:
        if comm:
            with open("/proc/self/comm", "w") as file:
                file.write(comm)
        os.write(told, b"ready\n")
        got: list[str] = []
        while (info := signal.sigwaitinfo({TERM, END, TELL})).si_signo != END:
            got += [signal.Signals(info.si_signo).name] * (info.si_signo == TERM)
            if info.si_signo == TELL:
                os.write(told, (json.dumps([got, own_identity()]) + "\n").encode())
        os._exit(0)

    def line(self) -> str:
        text = b""
        while not text.endswith(b"\n"):
            text += os.read(self.said, 1) or b"\n"
        return text.decode().strip()

    def got(self) -> list[str]:
        """Which stop signals came. They have a lower number than TELL, so they are taken first."""
        os.kill(self.pid, TELL)
        return json.loads(self.line())[0]

    def inode(self) -> int:
        os.kill(self.pid, TELL)
        return json.loads(self.line())[1][1]

    def end(self) -> None:
        os.kill(self.pid, END)
        os.waitpid(self.pid, 0)


class Swap:
    """The old process, and the moment when the newcomer takes its pid."""

    def __init__(self, *, same_tick: bool = False, **of_old: object) -> None:
        self.same_tick = same_tick
        self.new: Holder | None = None
        self.comm = ""
        self.old = Holder(**of_old)

    def __call__(self) -> None:
        if self.new is not None:
            return
        self.old.end()
        if not self.same_tick:
            wait_past(self.old.start_ticks)
        self.new = Holder(self.comm)

    def before(self, owner: object, name: str, call: int = 1) -> None:
        """Swap right before the `call`-th call of a function from now on."""
        real, calls = getattr(owner, name), 0

        def hooked(*args: object, **named: object) -> object:
            nonlocal calls
            calls += 1
            if calls == call:
                self()
            return real(*args, **named)

        setattr(owner, name, hooked)


def wait_past(ticks: int, more_s: float = 0.0) -> None:
    """Until the clock has passed a tick: whatever starts then has a later start time."""
    while time.clock_gettime(time.CLOCK_BOOTTIME) < (ticks + 1) / procfs.TICKS_PER_S + more_s:
        time.sleep(0.001)


def stop(address: str, **hooks: object) -> dict[str, object]:
    """A whole stop; `opened` is called when the identity is fixed."""
    try:
        target = open_target(Address.parse(address), Wish())
    except LastcallError as error:
        return {"code": error.code, "what": error.what, "exit": int(error.exit_code)}
    facts = target.identity.facts
    if "opened" in hooks:
        hooks["opened"]()
    asked: list[object] = []

    def show(news: object) -> None:
        if isinstance(news.event, Asked):
            asked.append(news.event.outcome.value)

    async def run() -> object:
        operation = Operation(FOLDER, Policy(grace_s=0.3), SystemClock(), show)
        return (await operation.stop([target]))[0]

    result = asyncio.run(run())
    return {
        "ending": result.finished.ending.value,
        "exit": int(result.finished.exit_code),
        "asked": asked,
        "inode": facts["inode"],
    }


def leave_one_open() -> None:
    """Begin a stop of PID, and stop watching when it was asked."""
    target = open_target(Address("pid", str(PID)), Wish())

    async def run() -> None:
        def show(news: object) -> None:
            if isinstance(news.event, Asked):
                operation.leave("the test")

        operation = Operation(FOLDER, Policy(grace_s=600.0), SystemClock(), show)
        await operation.stop([target])

    asyncio.run(run())


def resume() -> dict[str, object]:
    """Go on with all open stops."""
    store = Store.open_to_read(FOLDER)
    rows = store.rows(only_open=True)
    store.close()

    async def run() -> object:
        operation = Operation(FOLDER, Policy(), SystemClock(), lambda _: None)
        return (await operation.resume(rows))[0]

    result = asyncio.run(run())
    return {
        "ending": result.finished.ending.value,
        "why": result.finished.why.name,
        "detail": result.finished.detail,
        "exit": int(result.finished.exit_code),
        "open": len(rows),
    }


def case_stat_and_pidfd_open(swap: Swap) -> dict[str, object]:
    swap.before(os, "pidfd_open")
    return stop(f"pid:{PID}")


def case_pidfd_open_and_second_stat(swap: Swap) -> dict[str, object]:
    real = os.pidfd_open

    def opened(pid: int) -> int:
        fd = real(pid)
        swap()
        return fd

    os.pidfd_open = opened
    return stop(f"pid:{PID}")


def case_identity_and_signal(swap: Swap) -> dict[str, object]:
    return stop(f"pid:{PID}", opened=swap)


def case_intent_and_signal(swap: Swap) -> dict[str, object]:
    swap.before(Handle, "send")
    return stop(f"pid:{PID}")


def case_plain_kill(swap: Swap) -> dict[str, object]:
    """The planted fault: by number the newcomer is hit, and the checker must see it."""
    Handle.send = lambda self, signum: os.kill(self.identity.pid, signum)
    return case_intent_and_signal(swap)


def case_stop_and_resume(swap: Swap) -> dict[str, object]:
    leave_one_open()
    assert swap.old.got() == ["SIGTERM"]
    swap()
    return resume()


def case_stop_and_resume_with_the_same_tick(swap: Swap) -> dict[str, object]:
    leave_one_open()
    swap()
    # Two starts of one pid within a tick, with a stop between them, cannot be had at will: so the
    # journal is made to say that the old one started when the newcomer did.
    old, new = f"{swap.old.start_ticks}", f"{swap.new.start_ticks}"
    database = sqlite3.connect(os.path.join(FOLDER, "journal.db"), isolation_level=None)
    for table, column in (("stop", "identity"), ("stop", "identity_key"), ("event", "data")):
        changed = database.execute(
            f"UPDATE {table} SET {column} = replace({column}, ?, ?) WHERE {column} LIKE ?",  # noqa: S608 (our own names)
            (old, new, f"%{old}%"),
        )
        assert changed.rowcount >= 1
    database.close()
    return resume()


def case_stop_and_next_stop(swap: Swap) -> dict[str, object]:
    """The newcomer is stopped on purpose: a stop of its own, asked once; the old one is closed."""
    leave_one_open()
    swap()
    said = stop(f"pid:{PID}")
    assert swap.new.got() == ["SIGTERM"]
    return {**said, "resumed": resume()}


def case_pidfile_and_look_up(swap: Swap) -> dict[str, object]:
    path = os.path.join(FOLDER, "x.pid")
    os.makedirs(FOLDER, exist_ok=True)
    with open(path, "w") as file:
        file.write(f"{PID}\n")
    # Longer ago than the tolerance for clocks that tick.
    wait_past(swap.old.start_ticks, 0.3)
    swap.before(Handle, "open")
    return stop(f"pidfile:{path}")


def case_name_and_look_up(swap: Swap) -> dict[str, object]:
    swap.comm = "reuse-new"
    swap.before(Handle, "open")
    return stop("name:reuse-old")


def case_port_and_look_up(swap: Swap) -> dict[str, object]:
    swap.before(Handle, "open")
    return stop(f"port:{PORT}")


def make_swap(case: str) -> Swap:
    global PORT  # noqa: PLW0603 (a program of one case)
    if case.startswith("port"):
        listener = socket.create_server(("127.0.0.1", 0))
        PORT = listener.getsockname()[1]
        return Swap(listener=listener)
    if case.startswith("name"):
        return Swap(comm="reuse-old")
    return Swap()


def in_one_tick(case: str) -> tuple[Swap, dict[str, object]]:
    """Try until old and newcomer started within the same tick."""
    real = {"open": os.pidfd_open, "send": Handle.send}
    for _ in range(500):
        swap = Swap(same_tick=True)
        said = globals()[f"case_{case}"](swap)
        if swap.new is not None and swap.new.start_ticks == swap.old.start_ticks:
            return swap, said
        os.pidfd_open, Handle.send = real["open"], real["send"]
        (swap.new or swap.old).end()
    raise SystemExit("never two starts within a tick")


def main() -> None:
    global FOLDER
    FOLDER, case, *options = sys.argv[1:]
    signal.pthread_sigmask(signal.SIG_BLOCK, {TERM, END, TELL})
    if "same-tick" in options:
        swap, said = in_one_tick(case)
    else:
        swap = make_swap(case)
        said = globals()[f"case_{case}"](swap)
    assert swap.new is not None, "the pid never changed hands"
    said |= {
        "same_tick": swap.new.start_ticks == swap.old.start_ticks,
        "newcomer_got": swap.new.got(),
        "newcomer_inode": swap.new.inode(),
    }
    swap.new.end()
    print(json.dumps(said))


if __name__ == "__main__":
    main()
