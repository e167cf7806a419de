"""`@record`: the same as `@dataclass(frozen=True, slots=True)`, at a fifth of its price.

The standard decorator compiles seven methods for each class, half a millisecond in all, and a stop
loads some sixty classes: that was a quarter of its start. Here only `__init__` is compiled; what
compares, hashes, shows and protects is written once for all of them. To `dataclasses` (`fields`,
`replace`), to `match`, `copy` and `pickle`, and to type checkers they are dataclasses like any
other. Not supported, because nobody needs it here: options, inheritance, `InitVar`, `kw_only`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import MISSING, FrozenInstanceError, field
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """Make a class of annotated fields a frozen dataclass with slots."""
    own = vars(cls)
    made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True)(cls)
    made.__init__ = _init_of(made)
    for name, method in _SHARED.items():
        if name not in own:
            setattr(made, name, method)
    return made  # type: ignore[no-any-return]


def _init_of(cls: type[Any]) -> Callable[..., None]:
    """Compile what takes the fields in order, or by their names."""
    words, lines = ["self"], ["pass"]
    known: dict[str, object] = {"_set": object.__setattr__, "_missing": MISSING}
    for each in dataclasses.fields(cls):
        name = value = each.name
        if each.default is not MISSING:
            known[f"_default_{name}"] = each.default
            words.append(f"{name}=_default_{name}")
        elif each.default_factory is not MISSING:
            known[f"_make_{name}"] = each.default_factory
            words.append(f"{name}=_missing")
            value = f"_make_{name}() if {name} is _missing else {name}"
        else:
            words.append(name)
        lines.append(f"_set(self, {name!r}, {value})")
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    made: dict[str, Any] = {}
    head, body = f"def __init__({', '.join(words)}):", "\n ".join(lines)
    exec(f"{head}\n {body}", known, made)  # noqa: S102 (names and defaults of our own classes)
    init = made["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"  # named in the error of a wrong call
    return init  # type: ignore[no-any-return]


def _values(self: Any) -> tuple[object, ...]:  # noqa: ANN401 (any record)
    return tuple([getattr(self, name) for name in self.__match_args__])


def _eq(self: object, other: object) -> bool:
    return _values(self) == _values(other) if type(self) is type(other) else NotImplemented


def _hash(self: object) -> int:
    return hash(_values(self))


def _repr(self: Any) -> str:  # noqa: ANN401 (any record)
    shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
    return f"{type(self).__qualname__}({shown})"


def _refuse(_self: object, name: str, _value: object = None) -> None:
    raise FrozenInstanceError(f"{name!r} cannot be changed")


def _restore(self: Any, state: Sequence[object]) -> None:  # noqa: ANN401 (any record)
    for name, value in zip(self.__match_args__, state, strict=True):
        object.__setattr__(self, name, value)


_SHARED = {
    "__eq__": _eq,
    "__hash__": _hash,
    "__repr__": _repr,
    "__setattr__": _refuse,
    "__delattr__": _refuse,
    "__getstate__": _values,
    "__setstate__": _restore,
}
