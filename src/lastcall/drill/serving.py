"""The server that is drilled: started here and cleared away for certain, or running already."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from time import monotonic
from typing import TYPE_CHECKING

from lastcall.drill.how import Aim, CannotStop, How, fill
from lastcall.drill.listening import at_port, free_port, place_of, refuse_taken
from lastcall.errors import LastcallError, NotRunning, UsageError
from lastcall.proc.program import Program
from lastcall.proc.ready import NotReady, Ready, wait_ready
from lastcall.record import record
from lastcall.targets.process import procfs, sockets
from lastcall.targets.process.before import preflight
from lastcall.targets.process.identity import Handle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from lastcall.drill.place import Place
    from lastcall.drill.plan import Plan
    from lastcall.model import Finding

    Tell = Callable[[str, str], None]

_PORT_EVERY_S = 0.02
_LOOK_LIMIT_S = 5.0
_COMMAND_LIMIT_S = 300.0
_LAST_LINES = 5
_PAUSE_S = 0.02


@record
class End:
    """How the main process ended.

    Args:
        at: on the monotonic clock.
        status: its wait status; None: unknown.
    """

    at: float
    status: int | None


class Serving:
    """A server that serves. `serving` makes one.

    Args:
        place: where it is.
        handle: its main process; None: not known.
        program: None when it was not started here.
    """

    def __init__(self, place: Place, handle: Handle | None, program: Program | None) -> None:
        self.place = place
        self._handle = handle
        self._program = program
        self._family: list[Handle] = []
        self._accepting: list[Handle] = []

    @property
    def pid(self) -> int | None:
        """Its main process; None: not known."""
        return None if self._handle is None else self._handle.identity.pid

    @property
    def running(self) -> bool:
        """Whether its main process runs, as far as is known."""
        return self._handle is None or not self._handle.exited()

    @property
    def output(self) -> tuple[str, ...]:
        """What it printed last."""
        return () if self._program is None else tuple(text for _, text in self._program.lines)

    @property
    def unchanged(self) -> bool:
        """Whether its processes are the very ones that ran beforehand. False: not known."""
        if self._handle is None:
            return False
        return not any(handle.exited() for handle in (self._handle, *self._family))

    async def beforehand(self, how: How) -> tuple[Finding, ...]:
        """What can be known before the stop: will the signal be handled, by whom? Limited in time.

        Remembers its other processes, too, so that those that outlive it are known.
        """
        if self._handle is None:
            return ()
        self._remember()
        if how.command:
            return ()
        look = preflight.findings(self._handle.identity, (how.signum,))
        try:
            return await asyncio.wait_for(look, _LOOK_LIMIT_S)
        except (TimeoutError, LastcallError):
            return ()

    def _remember(self) -> None:
        assert self._handle is not None  # noqa: S101 (asked by beforehand only)
        for pid in procfs.family(self._handle.identity.pid)[1:]:
            with contextlib.suppress(LastcallError):
                self._family.append(Handle.open(pid))

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Nobody accepts within: those who could are stopped (SIGSTOP) and go on afterwards.

        Only so do connections stand in the accept queue at the very moment of the stop: an idle
        server accepts them within microseconds. It is what happens when a server gets no processor
        for a moment. A server that was not started here is left alone: should we die now, nobody
        would let it go on.
        """
        held = self._accepting
        try:
            for handle in held:
                with contextlib.suppress(ProcessLookupError):
                    handle.send(signal.SIGSTOP)
            until = monotonic() + _PAUSE_S
            while not all(map(_stands, held)) and monotonic() < until:
                pass  # it takes the kernel some ten microseconds: less than any sleep
            yield
        finally:
            for handle in held:
                with contextlib.suppress(ProcessLookupError):
                    handle.send(signal.SIGCONT)

    async def find_accepting(self) -> None:
        """Find those who hold the listening sockets, so that they can be paused."""
        if self._program is not None and self.pid is not None:
            pids = await asyncio.to_thread(self._listening)
            for pid in pids:
                with contextlib.suppress(LastcallError):
                    self._accepting.append(Handle.open(pid))

    def _listening(self) -> set[int]:
        pids = procfs.family(self.pid or 0)
        inodes = {s.inode for s in sockets.listening_of(pids) if s.local.port == self.place.port}
        found, _ = sockets.holders(inodes, pids) if inodes else ({}, ())
        return {pid for who in found.values() for pid in who}

    def aim(self, how: How) -> Aim | None:
        """The processes that get the signals; None when a command stops it.

        Raises:
            UsageError: its process is not known.
            NotRunning: it is gone.
        """
        if how.command:
            return None
        if self._handle is None:
            raise UsageError(
                "it is not known which process to signal",
                "give a command to start, --target pid:N, or --stop-with 'CMD'",
            )
        return Aim(self._handle.identity.pid, how.to)

    async def carry_out(self, how: How) -> int:
        """Run the command that stops or replaces it. Returns its exit status.

        Raises:
            CannotStop: it cannot be started.
        """
        known: Mapping[str, object] = {
            "pid": self.pid or "",
            "port": self.place.port,
            "url": self.place,
        }
        words = fill(how.command, known)
        try:
            child = await asyncio.create_subprocess_exec(*words, stdin=asyncio.subprocess.DEVNULL)
        except OSError as error:
            raise CannotStop(
                f"the stop command could not be started: {words[0]}: {error.strerror}",
                "nothing was stopped; check the command's name and its rights",
            ) from error
        try:
            return await asyncio.wait_for(child.wait(), _COMMAND_LIMIT_S)
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()

    async def ended(self) -> End:
        """Wait until the main process has ended; for ever when it is not known."""
        if self._program is not None and self._program.pid == self.pid:
            exit_ = await self._program.wait()
            return End(exit_.at, exit_.status)
        if self._handle is None:
            await asyncio.Event().wait()
        handle = self._handle
        assert handle is not None  # noqa: S101 (waited for ever above)
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        loop.add_reader(handle.fd, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(handle.fd)
        return End(monotonic(), handle.wait_status())

    def left(self) -> tuple[str, ...]:
        """Its other processes that still run, as `pid 42 (name)`."""
        pids = {h.identity.pid for h in self._family if not h.exited()}
        if self._program is not None:
            pids.update(self._program.left())
        pids.discard(self.pid or 0)
        return tuple(f"pid {pid} ({procfs.label(pid, 48)})" for pid in sorted(pids))

    def close(self) -> None:
        """Let go of its processes."""
        for handle in (*self._family, *self._accepting, *([self._handle] if self._handle else [])):
            handle.close()


def _stands(handle: Handle) -> bool:
    try:
        return procfs.stat(handle.identity.pid).state not in "RSD"
    except (ProcessLookupError, PermissionError):
        return True


@contextlib.asynccontextmanager
async def serving(plan: Plan, tell: Tell) -> AsyncIterator[Serving]:
    """Start the server of a plan, or find the one that runs, and wait until it is ready.

    A server that was started here is gone afterwards, with all its descendants.

    Args:
        plan: the drill.
        tell: takes what happened, as (code, words).

    Raises:
        LastcallError: it cannot be started, or the port is taken.
        NotReady: it did not get ready in time.
    """
    if not plan.command:
        async with _found(plan) as server:
            yield server
        return
    port = free_port() if any("{port}" in word for word in plan.command) else 0
    if plan.place is not None and plan.place.on_this_machine:
        refuse_taken(plan.place.port)
    words = fill(plan.command, {"port": port})
    env = {**os.environ, **dict(plan.env)} | ({"PORT": str(port)} if port else {})
    notify = plan.ready is not None and plan.ready.kind == "notify"
    program = await Program.start(
        words, env=env, cwd=plan.cwd or None, pid1=plan.pid1, notify=notify
    )
    async with program:
        tell("started", f"started as pid {program.pid}")
        place = plan.place or await _place(program, port, plan.ready_within_s)
        main = await _ready_main(program, place, plan)
        try:
            handle = Handle.open(main)
        except NotRunning as gone:
            raise NotReady(
                "the server ended as soon as it was ready", evidence=_said(program)
            ) from gone
        with contextlib.closing(Serving(place, handle, program)) as server:
            yield server
    tell("cleared", "everything it had started is gone")


async def _ready_main(program: Program, place: Place, plan: Plan) -> int:
    """Wait until it is ready. Returns the process to stop.

    Raises:
        NotReady: it did not get ready in time.
    """
    main = _main(program, place)
    try:
        await _wait(program if main == program.pid else None, place, plan)
    except NotReady as died:
        # A daemon's starter ends at its own time, maybe just now.
        asked = plan.ready is None or plan.ready.kind in {"port", "url"}
        if died.ended is None or died.ended.status or not program.left() or not asked:
            raise
        await _wait(None, place, plan)
        main = _main(program, place)
        if main == program.pid:
            raise
    return main


def _main(program: Program, place: Place) -> int:
    """The process to stop: the command's own, or the daemon that it left behind when it ended."""
    left = program.left()
    if program.ended is None or not left:
        return program.pid
    inodes = {s.inode for s in sockets.listening_of(left) if s.local.port == place.port}
    holders, _ = sockets.holders(inodes, left) if inodes else ({}, ())
    return min((pid for who in holders.values() for pid in who), default=program.pid)


def _said(program: Program) -> tuple[str, ...]:
    return tuple(text for _, text in list(program.lines)[-_LAST_LINES:])


@contextlib.asynccontextmanager
async def _found(plan: Plan) -> AsyncIterator[Serving]:
    handle = None if plan.pid is None else Handle.open(plan.pid)
    try:
        place = plan.place
        if place is None and handle is not None:
            place = place_of([handle.identity.pid, *procfs.family(handle.identity.pid)[1:]])
        if place is None:
            raise UsageError("it is not known where the server listens", "give its --url")
        await _wait(None, place, plan)
    except BaseException:
        if handle is not None:
            handle.close()
        raise
    with contextlib.closing(Serving(place, handle, None)) as server:
        yield server


async def _wait(program: Program | None, place: Place, plan: Plan) -> None:
    ready = plan.ready or Ready.parse(plan.scenario.newcomers.request.path)
    await wait_ready(program, ready, plan.ready_within_s, place)


async def _place(program: Program, port: int, limit_s: float) -> Place:
    """Where a program listens.

    Args:
        program: the server.
        port: the one that it was told; 0: none.
        limit_s: when to give up, in seconds.

    Raises:
        NotReady: nowhere in time.
        UsageError: at several places.
    """
    until = monotonic() + limit_s
    while monotonic() < until:
        ended = program.ended  # asked first: what it left behind may listen a moment later
        place = at_port(port) if port else place_of(program.left())
        if place is not None:
            return place
        if ended is not None and not program.left():
            raise NotReady(
                f"the server ended before it listened anywhere: {ended}",
                "run the command by itself and mend it first; its last words stand above",
                _said(program),
                ended,
            )
        await asyncio.sleep(_PORT_EVERY_S)
    raise NotReady(
        f"the server does not listen {f'on port {port}' if port else 'anywhere'} "
        f"after {limit_s:g} s",
        "give it more time with --ready-within, or name its --url",
        _said(program),
    )
