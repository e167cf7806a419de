"""`record` makes the same as the standard library's decorator, for less."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import FrozenInstanceError, dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Callable


class Plain:
    """A few fields."""

    rung: int
    means: str = "SIGTERM"
    facts: dict[str, int] = field(default_factory=dict)
    waits: tuple[float, ...] = ()


class Checked:
    """A field that is checked."""

    grace_s: float

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if self.grace_s < 0:
            raise ValueError("negative")


# Copied, because the decorators may change what they are given.
def standard(cls: type) -> Any:
    """By the standard library."""
    return dataclass(frozen=True, slots=True)(type(cls.__name__, (), dict(vars(cls))))


def ours(cls: type) -> Any:
    """By `record`."""
    return record(type(cls.__name__, (), dict(vars(cls))))


OURS, STANDARD = ours(Plain), standard(Plain)


@record
class Pickled:
    """Pickle finds a class by its name."""

    stop: int
    why: str = ""


@pytest.mark.parametrize("make", [OURS, STANDARD])
def test_it_is_made_shown_and_replaced_alike(make: Any) -> None:
    """By order or by name, with defaults of its own; shown in full; a copy with one change."""
    one = make(1, facts={"pid": 7})
    assert (one.rung, one.means, one.facts, one.waits) == (1, "SIGTERM", {"pid": 7}, ())
    assert repr(one) == "Plain(rung=1, means='SIGTERM', facts={'pid': 7}, waits=())"
    assert dataclasses.replace(one, rung=2) == make(2, facts={"pid": 7})
    assert [f.name for f in dataclasses.fields(one)] == ["rung", "means", "facts", "waits"]
    assert dataclasses.asdict(one)["means"] == "SIGTERM"
    assert make(1).facts is not make(1).facts
    assert make.__match_args__ == ("rung", "means", "facts", "waits")
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'rung'"):
        make()


@pytest.mark.parametrize("make", [OURS, STANDARD])
def test_it_cannot_be_changed(make: Any) -> None:
    """Neither a field, nor a new name, nor by taking one away."""
    one = make(1)
    changes: tuple[Callable[[], None], ...] = (
        lambda: setattr(one, "rung", 2),
        lambda: setattr(one, "other", 2),
        lambda: delattr(one, "rung"),
    )
    for change in changes:
        # Before Python 3.14 the standard one stumbles over a new name.
        with pytest.raises((FrozenInstanceError, TypeError)):
            change()
    assert one.rung == 1
    assert not hasattr(one, "__dict__")


@pytest.mark.parametrize("make", [OURS, STANDARD])
def test_it_equals_its_likes_only(make: Any) -> None:
    """Equal fields of the same class are equal and hash alike; another class never is."""
    assert make(1) == make(1)
    assert make(1) != make(2)
    assert OURS(1) != STANDARD(1)
    assert hash(make(1, facts=())) == hash(make(1, facts=()))
    with pytest.raises(TypeError, match="unhashable"):
        hash(make(1))


@pytest.mark.parametrize("decorate", [ours, standard])
def test_it_is_checked_after_it_was_made(decorate: Any) -> None:
    """`__post_init__` runs, and its error comes out."""
    checked = decorate(Checked)
    assert checked(1.0).grace_s == 1.0
    with pytest.raises(ValueError, match="negative"):
        checked(-1.0)


def test_it_is_copied_and_pickled() -> None:
    """Copies are equal, although nothing can be set from outside."""
    one = Pickled(17, "it ended")
    assert copy.copy(one) == copy.deepcopy(one) == pickle.loads(pickle.dumps(one)) == one  # noqa: S301 (our own)


def test_it_matches_by_position() -> None:
    """`match` takes it apart as it does a dataclass."""
    match Pickled(17, "it ended"):
        case Pickled(stop, why):
            assert (stop, why) == (17, "it ended")


def test_a_method_of_its_own_stays() -> None:
    """What a class writes itself is not replaced."""

    @record
    class Quiet:
        secret: str

        def __repr__(self) -> str:
            return "Quiet"

    assert repr(Quiet("x")) == "Quiet"
