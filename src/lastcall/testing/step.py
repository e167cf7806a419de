"""Runs a program and ends it at one step of its shutdown; see `lastcall.testing.lifecycle`.

python -m lastcall.testing.step NUMBER SIGNAL SCRIPT [ARGUMENT...]
python -m lastcall.testing.step NUMBER SIGNAL -m MODULE [ARGUMENT...]
"""

from __future__ import annotations

import os
import runpy
import sys
import threading

from lastcall.app.house import House


def watch(number: int, signum: int, fd: int) -> None:
    """Have this process ended once its shutdown has come to a step.

    Args:
        number: of the step, from 1.
        signum: what ends it.
        fd: where the step is told.
    """
    tell, steps, lock = House.tell, iter(range(1, sys.maxsize)), threading.Lock()

    def telling(self: House, what: str, **words: object) -> None:
        tell(self, what, **words)
        with lock:
            here = next(steps)
        if here == number:
            phase = self.coordinator.phase
            name = f"{what} {phase.name}" if what == "phase" and phase is not None else what
            os.write(fd, name.encode())
            os.kill(os.getpid(), signum)

    House.tell = telling  # type: ignore[method-assign]


def main() -> None:
    """Do as the command line says."""
    number, signum, *argv = sys.argv[1:]
    watch(int(number), int(signum), int(os.environ.pop("LASTCALL_STEP_FD")))
    if argv[0] == "-m":
        sys.argv = argv[1:]
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = argv
        sys.path[0] = os.path.dirname(os.path.abspath(argv[0]))
        runpy.run_path(argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
