"""What the environment says of a lifecycle, where the program leaves it open."""

from __future__ import annotations

from lastcall.errors import BadPolicy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

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
        BadPolicy: the variable is no number.
    """
    value = environ.get(variable)
    if given is not None or not value:
        return usual if given is None else given
    try:
        return float(value)
    except ValueError as error:
        raise BadPolicy(f"{variable} is {value!r}", "seconds, such as 25") from error


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
