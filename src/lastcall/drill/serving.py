"""The server that is drilled: started here and cleared away for certain, or running already."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from time import monotonic
from typing import TYPE_CHECKING

from lastcall.drill.commanding import Commanding
from lastcall.drill.getting_ready import get_ready, wait_found
from lastcall.drill.how import Aim, How, fill, open_related, refuse_foreign
from lastcall.drill.listening import acceptors, free_port, place_of, refuse_taken
from lastcall.errors import LastcallError, UsageError
from lastcall.kernel import procfs
from lastcall.kernel.identity import Handle
from lastcall.proc import keeper
from lastcall.proc.order import inherited
from lastcall.proc.program import Program
from lastcall.record import record
from lastcall.targets.process import sockets
from lastcall.targets.process.before import preflight

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from lastcall.drill.place import Place
    from lastcall.drill.plan import Plan
    from lastcall.model import Finding

    Tell = Callable[[str, str], None]

_LOOK_LIMIT_S = 5.0
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
        command: runs what stops or replaces it.
    """

    def __init__(
        self,
        place: Place,
        handle: Handle | None,
        program: Program | None,
        command: Commanding,
    ) -> None:
        self.place = place
        self._handle = handle
        self._program = program
        self._command = command
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
    def command_output(self) -> tuple[str, ...]:
        """What the command that stops it printed last."""
        return self._command.output

    @property
    def unchanged(self) -> bool:
        """Whether its processes are the very ones that ran beforehand. False: not known."""
        if self._handle is None:
            return False
        return not any(handle.exited() for handle in (self._handle, *self._family))

    async def beforehand(self, how: How) -> tuple[Finding, ...]:
        """What can be known before the stop: will the signal be handled, by whom? Limited in time.

        Remembers its other processes, too, so that those that outlive it are known.

        Raises:
            NotPermitted: this user may not signal it.
        """
        if self._handle is None:
            return ()
        self._remember(self._handle.identity.pid)
        if how.command:
            return ()
        refuse_foreign(self._handle)
        look = preflight.findings(self._handle.identity, (how.signum,))
        try:
            return await asyncio.wait_for(look, _LOOK_LIMIT_S)
        except (TimeoutError, LastcallError):
            return ()

    def _remember(self, main: int) -> None:
        for pid in procfs.family(main)[1:]:
            with contextlib.suppress(LastcallError):
                handle = open_related(pid, lambda each: keeper.descends(each, main) is True)
                if handle is not None:
                    self._family.append(handle)

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
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    handle.send(signal.SIGSTOP)
            until = monotonic() + _PAUSE_S
            while not all(map(_stands, held)) and monotonic() < until:
                pass  # it takes the kernel some ten microseconds: less than any sleep
            yield
        finally:
            for handle in held:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    handle.send(signal.SIGCONT)

    async def find_accepting(self) -> None:
        """Find those who hold the listening sockets, so that they can be paused.

        Nobody is, when this user may not signal all of them: the others would accept.
        """
        if self._program is None or self.pid is None:
            return
        inodes, pids = await asyncio.to_thread(self._listening)
        try:
            for pid in pids:
                handle = open_related(pid, lambda each: bool(sockets.held_by(each) & inodes))
                if handle is not None:
                    self._accepting.append(handle)
                    refuse_foreign(handle)
        except LastcallError:
            while self._accepting:
                self._accepting.pop().close()

    def _listening(self) -> tuple[AbstractSet[int], AbstractSet[int]]:
        """The inodes of its listening sockets, and who holds them."""
        return acceptors(self.place.port, procfs.family(self.pid or 0))

    def aim(self, how: How) -> Aim | None:
        """The processes that get the signals; None when a command stops it.

        Raises:
            UsageError: its process is not known.
            NotRunning: it is gone.
            NotPermitted: this user may not signal all of them.
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
        """Run the command that stops or replaces it.

        Returns:
            Its exit status (negative: of this signal), or `commanding.NOT_ENDED` when it had not
            ended by the end of the drill's patience. What it started lives on until `serving`.

        Raises:
            CannotStop: it cannot be started.
            KeeperLost: nobody can tell any more how it ended.
        """
        known: Mapping[str, object] = {
            "pid": self.pid or "",
            "port": self.place.port,
            "url": self.place,
        }
        return await self._command.run(fill(how.command, known))

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

    A server that was started here is gone afterwards, with all its descendants; so is all that
    came of a command that was to stop or replace it.

    Args:
        plan: the drill.
        tell: takes what happened, as (code, words).

    Raises:
        LastcallError: it cannot be started, its place is taken, or nobody listens there.
        NotReady: it did not get ready in time.
    """
    if not plan.command:
        async with Commanding(plan.patience_s) as command:
            async with _found(plan, command) as server:
                yield server
            left = await command.clear()
        if left:
            tell("cleared", f"the drill ended what the stop command had left: {_counted(left)}")
        return
    if plan.place is not None:
        refuse_taken(plan.place)
    told_port = any("{port}" in word for word in (*plan.command, *dict(plan.env).values()))
    port = free_port() if told_port else 0
    async with Commanding(plan.patience_s) as command, await _start(plan, port) as program:
        tell("started", f"started as pid {program.pid}")
        place, handle = await get_ready(program, port, plan)
        with contextlib.closing(Serving(place, handle, program, command)) as server:
            yield server
        left = len(await program.clear()) + await command.clear()
    still = f"the drill ended what still ran: {_counted(left)}"
    tell("cleared", still if left else "nothing that it had started is left")


def _counted(processes: int) -> str:
    return f"{processes} process{'' if processes == 1 else 'es'}"


async def _start(plan: Plan, port: int) -> Program:
    """Start the server.

    Args:
        plan: the drill.
        port: the one that it is told; 0: none.

    Raises:
        CannotStart: it cannot be.
    """
    known = {"port": port} if port else {}
    ours = inherited() | ({"PORT": str(port)} if port else {})
    names = [name for name, _ in plan.env]
    values = fill(tuple(value for _, value in plan.env), known)
    return await Program.start(
        fill(plan.command, known),
        env={**ours, **dict(zip(names, values, strict=True))},
        cwd=plan.cwd or None,
        pid1=plan.pid1,
        notify=plan.ready is not None and plan.ready.kind == "notify",
    )


@contextlib.asynccontextmanager
async def _found(plan: Plan, command: Commanding) -> AsyncIterator[Serving]:
    handle = None if plan.pid is None else Handle.open(plan.pid)
    try:
        place = plan.place
        if place is None and handle is not None:
            place = place_of([handle.identity.pid, *procfs.family(handle.identity.pid)[1:]])
        if place is None:
            raise UsageError("it is not known where the server listens", "give its --url")
        await wait_found(place, plan)
    except BaseException:
        if handle is not None:
            handle.close()
        raise
    with contextlib.closing(Serving(place, handle, None, command)) as server:
        yield server
