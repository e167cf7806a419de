"""The drill's background load on a server, in a process of its own; prints what it took as JSON.

python benchmarks/drill_client.py PORT RATE SECONDS CONNECTIONS [forget]

With `forget` no history is kept: what each request did is thrown away as it is begun.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import resource
import sys
import time
from typing import TYPE_CHECKING

from lastcall.drill import history
from lastcall.drill.clients import load
from lastcall.drill.place import Place
from lastcall.drill.scenario import Load

if TYPE_CHECKING:
    from lastcall.drill.trail import Trail

_PATIENCE_S = 10.0


class Forgetful(list["Trail"]):
    """Keeps nothing but how many there were."""

    begun = 0

    def append(self, trail: Trail) -> None:
        """Throw it away."""
        del trail
        self.begun += 1


async def main(port: int, rate: float, seconds: float, connections: int, *, keep: bool) -> None:
    """Put the load on, and print."""
    trails: list[Trail] = [] if keep else Forgetful()
    until = asyncio.Event()
    place, spec = Place("127.0.0.1", port), Load(rate=rate, connections=connections)
    asyncio.get_running_loop().call_later(seconds, until.set)
    before_kib = _peak_kib()
    with load.quiet(), load.Lag() as lag:
        begun_s, cpu_s = time.monotonic(), time.process_time()
        # Above what one core holds a queue is left: it is not waited for.
        work = load.run(place, spec, trails, itertools.count(1), until, _PATIENCE_S)
        running = asyncio.ensure_future(work)
        await until.wait()
        took_s, cpu_s = time.monotonic() - begun_s, time.process_time() - cpu_s
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    taken = {
        "cpu_s": cpu_s / took_s,
        "lag_worst_ms": lag.worst_s * 1e3,
        "lag_999_ms": lag.within_s() * 1e3,
        "grown_kib": _peak_kib() - before_kib,
    }
    if isinstance(trails, Forgetful):
        seen = {"per_s": trails.begun / took_s, "kept": 0.0, "failed": 0.0}
    else:
        seen = _of(trails, took_s)
    print(json.dumps(taken | seen))


def _of(trails: list[Trail], took_s: float) -> dict[str, float]:
    """What the history says."""
    whole = [t for t in trails if t.complete and t.sent and t.attempted]
    failed = sum(t.failure is not None for t in trails)
    if not whole:
        return {"failed": failed}
    since_sent = sorted(t.complete - t.sent for t in whole if t.complete and t.sent)
    since_due = sorted(t.complete - t.attempted for t in whole if t.complete and t.attempted)
    attempts = [t.attempt(0.0, reached=True) for t in trails]
    stream = io.StringIO()
    begun_s = time.monotonic()
    history.write(attempts, stream)
    wrote_s = time.monotonic() - begun_s
    return {
        "failed": failed,
        "per_s": len(whole) / took_s,
        "p50_us": since_sent[len(whole) // 2] * 1e6,
        "p99_us": since_sent[len(whole) * 99 // 100] * 1e6,
        "due_p50_us": since_due[len(whole) // 2] * 1e6,
        "due_p99_us": since_due[len(whole) * 99 // 100] * 1e6,
        "kept": len(trails),
        "written_per_s": len(attempts) / wrote_s,
    }


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    _port, _rate, _seconds, _connections = sys.argv[1:5]
    _keep = "forget" not in sys.argv[5:]
    asyncio.run(main(int(_port), float(_rate), float(_seconds), int(_connections), keep=_keep))
