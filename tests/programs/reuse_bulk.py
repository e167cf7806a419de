# Thousands of stops race against the reuse of pids. Run as pid 1 of a pid namespace:
#   unshare --pid --fork --mount-proc python reuse_bulk.py FOLDER STOPS OPERATIONS [OPTION...]
# The targets end by themselves within 0 to 2 ms; churners fork decoys all the time, so that a pid
# is given away again within some milliseconds. Whoever gets SIGTERM, target or decoy, reports who
# it is. Prints one JSON object: what was asked, who got a signal, and how often pids were reused.
# Options: plain-kill (a planted fault), old-kernel (do without a pid_max of the namespace's own).
from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import random
import signal
import sys
import time
from collections import Counter

from reuse_space import has_own_pid_max, own_identity, rewind, shrink

from lastcall.clock import SystemClock
from lastcall.errors import NotRunning
from lastcall.journal.store import Store
from lastcall.kernel.identity import Handle
from lastcall.model import Address, Asked, Outcome
from lastcall.stop.operation import Operation
from lastcall.stop.policy import Policy
from lastcall.targets.open import Wish, open_target

# With so many churners nearly all pids are taken: one that gets free is given away at once. Whole
# operations need room for a thread of their own as well.
PIDS = 10
PIDS_FOR_OPERATIONS = 24
CHURNERS = 6
TOGETHER = 4
TERM = {signal.SIGTERM}


def live(report: int, life_s: float) -> None:
    """What every target and decoy does: wait for its end or a signal, and report the signal."""
    got = signal.sigtimedwait(TERM, life_s)
    if got is not None or signal.SIGTERM in signal.sigpending():
        os.write(report, "{} {} {}\n".format(*own_identity()).encode())
    os._exit(0)


def fork_one(report: int, life_s: float) -> int:
    """A child that nobody needs to reap: its pid is free as soon as it ends."""
    while True:
        try:
            pid = os.fork()
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
            time.sleep(0.0002)
            continue
        if pid == 0:
            live(report, life_s)
        return pid


def churn(report: int, seed: int, *, tiny: bool) -> None:
    """Fork decoys, one after the other, until SIGTERM."""
    dice = random.Random(seed)
    count = 0
    while signal.SIGTERM not in signal.sigpending():
        if not tiny and count % PIDS == 0:
            rewind()
        pid = fork_one(report, dice.random() * 0.002)
        count += 1
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    os._exit(0)


def spawn(report: int, wishes: int, pids: int) -> None:
    """Fork a target for each wish (its life in microseconds) and tell its pid."""
    with os.fdopen(wishes, "rb", 0) as lines:
        while line := lines.readline():
            os.write(pids, b"%d\n" % fork_one(report, int(line) / 1e6))
    os._exit(0)


class Space:
    """The processes of the race, and what they reported."""

    def __init__(self, *, own_pid_max: bool) -> None:
        self.tiny = own_pid_max
        if self.tiny:
            shrink(PIDS)
        # Started while low pids are free, so that the small range is left to targets and decoys.
        rewind(1)
        signal.pthread_sigmask(signal.SIG_BLOCK, TERM)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        self.reports, report = os.pipe()
        os.set_blocking(self.reports, False)
        wishes, self.wish = os.pipe()
        self.pids, pids = os.pipe()
        self.workers = []
        for number in range(CHURNERS + 1):
            worker = os.fork()
            if worker == 0:
                os.close(self.wish)
                if number == CHURNERS:
                    spawn(report, wishes, pids)
                churn(report, number, tiny=self.tiny)
            self.workers.append(worker)
        for fd in (report, wishes, pids):
            os.close(fd)
        rewind()
        self.raw = b""

    def target(self, life_us: int) -> int:
        os.write(self.wish, b"%d\n" % life_us)
        line = b""
        while not line.endswith(b"\n"):
            line += os.read(self.pids, 64)
        return int(line)

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.reports, 65536):
                self.raw += chunk

    def end(self) -> list[tuple[int, ...]]:
        """End everybody; all the reports."""
        os.close(self.wish)
        for worker in self.workers[:CHURNERS]:
            os.kill(worker, signal.SIGTERM)
        os.set_blocking(self.reports, True)
        self.drain()
        return [tuple(map(int, line.split())) for line in self.raw.splitlines()]


def inode_at(pid: int) -> int | None:
    """Who runs under a pid at this moment; None: nobody."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


def identity_of(facts: dict[str, object]) -> tuple[object, ...]:
    return facts["pid"], facts["inode"], facts["start_ticks"]


async def stop_bare(space: Space, count: int, said: Counter[str], asked: list[object]) -> None:
    """Look up, fix the identity, wait a little, ask: the part of a stop where a pid matters."""
    dice = random.Random(1)
    for _ in range(0, count, TOGETHER):
        targets = []
        for _ in range(TOGETHER):
            pid = space.target(dice.randrange(2000))
            try:
                targets.append(open_target(Address("pid", str(pid)), Wish()))
            except NotRunning:
                said["gone at the look-up"] += 1
        time.sleep(dice.random() * 0.006)  # noqa: ASYNC251 (nothing else is to run)
        for target in targets:
            await ask_one(target, said, asked)
        space.drain()


async def ask_one(target: object, said: Counter[str], asked: list[object]) -> None:
    """Ask as a stop does, and note who had the pid just before."""
    facts, rung = target.identity.facts, target.ladder[0]
    target.facts(rung)
    before = inode_at(facts["pid"])
    answer = await target.carry(rung)
    if before is not None and before != facts["inode"]:
        said["reused before the signal"] += 1
    if answer.outcome is Outcome.DONE:
        asked.append(identity_of(facts))
    said[answer.outcome.value] += 1
    target.close()


async def stop_wholly(
    space: Space, folder: str, count: int, said: Counter[str], asked: list[object]
) -> None:
    """Whole operations with the journal, each of two targets; lives of up to 40 ms."""
    dice = random.Random(2)

    def show(news: object) -> None:
        event = news.event
        if isinstance(event, Asked) and event.outcome is Outcome.DONE:
            asked.append(identity_of(news.subject.identity.facts))

    for _ in range(count):
        targets = {}
        for _ in range(2):
            pid = space.target(dice.randrange(40_000))
            try:
                made = open_target(Address("pid", str(pid)), Wish())
            except NotRunning:
                said["gone at the look-up"] += 1
                continue
            if made.identity.key in targets:
                made.close()
            else:
                targets[made.identity.key] = made
        operation = Operation(folder, Policy(grace_s=20.0), SystemClock(), show)
        for result in await operation.stop(list(targets.values())):
            if result.error is not None:
                raise result.error
            said[result.finished.ending.value] += 1
            said["recorded"] += result.stop > 0
        space.drain()


def main() -> None:
    folder, stops, operations, *options = sys.argv[1:]
    if "plain-kill" in options:
        # As if there were no pidfd: the number alone says whom to signal.
        Handle.exited = lambda _: False
        Handle.send = lambda self, signum: os.kill(self.identity.pid, signum)
    own_pid_max = has_own_pid_max() and "old-kernel" not in options
    space = Space(own_pid_max=own_pid_max)
    asked: list[object] = []
    bare: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    began_s = time.monotonic()
    asyncio.run(stop_bare(space, int(stops), bare, asked))
    bare_s = time.monotonic() - began_s
    if own_pid_max:
        shrink(PIDS_FOR_OPERATIONS)
    asyncio.run(stop_wholly(space, folder, int(operations), whole, asked))
    whole_s = time.monotonic() - began_s - bare_s
    signalled = space.end()
    journal = {}
    if int(operations):
        store = Store.open_to_read(folder)
        journal = Counter(str(row.ending) for row in store.rows(100_000))
        store.close()
    print(
        json.dumps(
            {
                "own_pid_max": space.tiny,
                "bare": bare,
                "bare_s": round(bare_s, 1),
                "whole": whole,
                "whole_s": round(whole_s, 1),
                "journal": journal,
                "asked": asked,
                "signalled": signalled,
            }
        )
    )


if __name__ == "__main__":
    main()
