"""`Lifecycle.run`: the main code, a function or a coroutine, with everything around it."""

from __future__ import annotations

from lastcall.app.work import is_async

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any, TypeVar

    from lastcall.app.lifecycle import Lifecycle

    T = TypeVar("T")


def run_main(lifecycle: Lifecycle, main: Callable[[], T | Coroutine[Any, Any, T]]) -> T:
    """See `Lifecycle.run`."""
    if not is_async(main):
        with lifecycle:
            return main()  # type: ignore[return-value]
        return None  # type: ignore[return-value]  # a signal ended it
    import asyncio

    async def inside() -> T | None:
        house = lifecycle.house
        found: T | None = None
        try:
            await lifecycle.__aenter__()
            found = await main()  # type: ignore[misc]
        except asyncio.CancelledError:
            if not house.main.cancelled:
                raise
        except Exception as error:
            if not lifecycle._refused(error):  # noqa: SLF001 (as below)
                house.crashed(error)
                raise
        finally:
            house.main.back("the main code returned")
            # Hooks may need this loop until the very end.
            await lifecycle.ended.wait_async()
        return found

    error: BaseException | None = None
    try:
        # The handlers are ours already, so the runner leaves SIGINT alone.
        lifecycle.install()
        found = asyncio.run(inside())
    except BaseException as caught:
        error = caught
        raise
    finally:
        if lifecycle.ended.is_set():
            lifecycle._after(error)  # noqa: SLF001 (the other half of this class)
    return found  # type: ignore[return-value]
