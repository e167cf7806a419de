"""The hooks of an application, by phase."""

from __future__ import annotations

import sys

from lastcall.app.hooks import Hook
from lastcall.app.phases import positive
from lastcall.app.running import arguments
from lastcall.app.work import is_generator
from lastcall.errors import BadPolicy, TooLate

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from lastcall.app.phases import Phase, Plan


class Registry:
    """Which hooks there are.

    Args:
        plan: the phases.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._hooks: dict[str, list[Hook]] = {}

    def add(
        self,
        phase: str,
        function: Callable[..., object],
        *,
        name: str = "",
        limit_s: float | None = None,
        depends_on: Sequence[str] = (),
        where: str = "",
    ) -> Hook:
        """Register a hook; see `Lifecycle.on`.

        Raises:
            BadPolicy: there is no such phase, the name is taken, the function is none, or the
                limit makes no sense.
        """
        if not callable(function):
            raise BadPolicy(f"hook {function!r} is no function", "give what is to be called")
        if is_generator(function):
            raise BadPolicy(
                f"hook {function!r} has a yield in it: called, it would run nothing",
                "give a plain or an async function",
            )
        name = str(name or getattr(function, "__qualname__", "") or repr(function))
        wanted = arguments(function)
        if wanted == ("self",) or len(wanted) > 1:
            raise BadPolicy(
                f"hook {name!r} wants {', '.join(wanted)}: a hook is given nothing but its HookRun",
                "register a bound method, lifecycle.add_hook('close', thing.stop), or a partial",
            )
        if limit_s is not None:
            positive(f"limit_s of hook {name!r}", limit_s, zero=True)
        known = self._plan[phase].name
        hooks = self._hooks.setdefault(known, [])
        if any(hook.name == name for hook in hooks):
            raise BadPolicy(f"phase {phase!r} has a hook {name!r} already", "say name=")
        loop = _running_loop()
        hook = Hook(
            function,
            name,
            phase,
            limit_s=limit_s,
            depends_on=(depends_on,) if isinstance(depends_on, str) else tuple(depends_on),
            where=where,
            loop=loop,
        )
        hooks.append(hook)
        return hook

    def remove(self, hook: Hook) -> None:
        """Take a hook back; nothing happens if it is gone already."""
        if hook in self._hooks.get(hook.phase, ()):
            self._hooks[hook.phase].remove(hook)

    def forget_inner(self) -> None:
        """Drop the library's own: a server's, which is not there after a fork."""
        for phase, hooks in self._hooks.items():
            self._hooks[phase] = [hook for hook in hooks if not hook.inner]

    def of(self, phase: str) -> tuple[Hook, ...]:
        """The hooks of a phase, in the order of their registration."""
        return tuple(self._hooks.get(phase, ()))

    def refuse_late(self, phase: str, now: Phase | None) -> bool:
        """Whether the phase is the one that is on.

        Args:
            phase: the one that is asked for.
            now: the phase that is on; None: the last one is over.

        Raises:
            TooLate: the phase is over.
        """
        names = [each.name for each in self._plan.phases]
        if now is None or names.index(phase) < names.index(now.name):
            raise TooLate(f"phase {phase!r} is over: no hook can join it", "register hooks earlier")
        return phase == now.name


def _running_loop() -> asyncio.AbstractEventLoop | None:
    if "asyncio" not in sys.modules:
        return None
    from asyncio import get_running_loop

    try:
        return get_running_loop()
    except RuntimeError:
        return None
