"""What the environment says of a lifecycle, where the program leaves it open."""

from __future__ import annotations

import os

from lastcall.app.phases import positive
from lastcall.errors import BadPolicy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GRACE_S = 25.0  # within the 30 s that Kubernetes gives a pod
EXITS = ("signal", "code", "zero", "nothing")
SHUTDOWNS = ("graceful", "immediate")


def seconds(given: float | None, variable: str, environ: Mapping[str, str], usual: float) -> float:
    """A number of seconds: as given, or else as the environment says, or else the usual one.

    Args:
        given: by the program; None: it leaves it open.
        variable: of the environment.
        environ: the environment.
        usual: if nobody says anything.

    Raises:
        BadPolicy: the variable is no number of seconds.
    """
    value = environ.get(variable)
    if given is not None or not value:
        return usual if given is None else given
    try:
        found = float(value)
    except ValueError:
        raise BadPolicy(f"{variable} is {value!r}", "seconds, such as 25") from None
    return positive(variable, found, zero=True)


def word(
    given: str | None, variable: str, environ: Mapping[str, str], known: tuple[str, ...]
) -> str:
    """One of a few words, in the same way; the first of them is the usual one.

    Args:
        given: by the program; None: it leaves it open.
        variable: of the environment.
        environ: the environment.
        known: the words.

    Raises:
        BadPolicy: it is none of them.
    """
    said = given if given is not None else environ.get(variable) or known[0]
    if said not in known:
        name = variable.removeprefix("LASTCALL_").lower() if given is not None else variable
        raise BadPolicy(f"{name} is {said!r}", f"one of: {', '.join(known)}")
    return said


def signals(given: Sequence[object] | None) -> tuple[int, ...] | None:
    """The signals that ask for the end.

    Args:
        given: by the program; None: it leaves it open.

    Raises:
        BadPolicy: one of them is no signal, or one that no program can take.
    """
    if given is None:
        return None
    import signal

    never = {getattr(signal, "SIGKILL", None), getattr(signal, "SIGSTOP", None)}
    known = {int(number) for number in signal.valid_signals() if number not in never}
    numbers = []
    for number in given if hasattr(given, "__iter__") else [given]:
        if not isinstance(number, int) or number not in known:
            raise BadPolicy(
                f"signals has {number!r}: no program can take that", "such as [signal.SIGTERM]"
            )
        numbers.append(int(number))
    return tuple(numbers)


def signal_number(given: object) -> int | None:
    """A signal's number, or None.

    Raises:
        BadPolicy: it is neither.
    """
    if given is None:
        return None
    import signal

    if isinstance(given, int) and 0 < given < signal.NSIG:
        return given
    raise BadPolicy(f"signum is {given!r}: no signal", "such as signal.SIGTERM")


def exit_code(given: object) -> int:
    """An exit code, as the kernel keeps it.

    Raises:
        BadPolicy: it is no number.
    """
    if isinstance(given, int):
        return given & 0xFF
    raise BadPolicy(f"the exit code is {given!r}: a number from 0 to 255 is needed", "such as 1")


def file_path(given: str | None, variable: str, environ: Mapping[str, str]) -> str:
    """The name of a file; empty: none.

    Args:
        given: by the program; None: it leaves it open.
        variable: of the environment.
        environ: the environment.

    Raises:
        BadPolicy: it is no name of a file.
    """
    said = environ.get(variable, "") if given is None else given
    try:
        path = os.fsdecode(said)
    except TypeError:
        path = "\0"
    if "\0" in path:
        raise BadPolicy(f"report is {said!r}: no name of a file", "such as 'report.json'")
    return path


def text(name: str, given: object) -> str:
    """Words.

    Raises:
        BadPolicy: it is something else.
    """
    if isinstance(given, str):
        return given
    raise BadPolicy(f"{name} is {given!r}: a text is needed", "put it in quotes")


def called(name: str, given: object) -> None:
    """See that something can be called.

    Raises:
        BadPolicy: it cannot.
    """
    if not callable(given):
        raise BadPolicy(f"{name} is {given!r}: nothing that can be called", "give the function")
