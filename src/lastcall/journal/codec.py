"""Events and other frozen data to JSON and back. One form for the journal, sockets and `--json`.

An event is written as its class name in kebab case and a flat object of its fields. Unknown fields
are ignored when reading, so that a newer writer does not break an older reader of the same schema.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from lastcall import model

if TYPE_CHECKING:
    from lastcall.model import Event

T = TypeVar("T")


def _kebab(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


_EVENTS: dict[str, type] = {_kebab(cls.__name__): cls for cls in typing.get_args(model.Event)}
_KINDS = {cls: kind for kind, cls in _EVENTS.items()}
_HINTS: dict[type, dict[str, Any]] = {}
_NAMES: dict[type, tuple[str, ...]] = {}


def plain(value: Any) -> Any:  # noqa: ANN401 (any frozen data of ours)
    """The value as JSON knows it: dataclasses as objects, enums as texts, tuples as lists."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list | tuple | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if names := _names(type(value)):
        return {name: plain(getattr(value, name)) for name in names}
    return value


def _names(cls: type) -> tuple[str, ...]:
    """The fields of a dataclass; none for anything else."""
    if cls not in _NAMES:
        known = dataclasses.is_dataclass(cls)
        _NAMES[cls] = tuple(f.name for f in dataclasses.fields(cls)) if known else ()
    return _NAMES[cls]


def encode(event: Event) -> tuple[str, dict[str, Any]]:
    """The event's kind and its fields."""
    return _KINDS[type(event)], plain(event)


def decode(kind: str, fields: dict[str, Any]) -> Event:
    """The event back.

    Raises:
        ValueError: the kind is not known, or a field is missing or of another shape.
    """
    cls = _EVENTS.get(kind)
    if cls is None:
        raise ValueError(f"unknown event {kind!r}")
    return typing.cast("Event", revive(cls, fields))


def revive(cls: type[T], fields: Any) -> T:  # noqa: ANN401 (read from JSON)
    """A dataclass back from its plain form.

    Raises:
        ValueError: a field is missing or of another shape.
    """
    if not isinstance(fields, dict):
        raise ValueError(f"{cls.__name__} is not an object")  # noqa: TRY004 (bad data, not a bad call)
    hints = _hints(cls)
    try:
        return cls(**{k: _revive(hints[k], v) for k, v in fields.items() if k in hints})
    except (TypeError, KeyError) as error:
        raise ValueError(f"{cls.__name__} cannot be read: {error}") from error


def _hints(cls: type) -> dict[str, Any]:
    if cls not in _HINTS:
        _HINTS[cls] = typing.get_type_hints(cls)
    return _HINTS[cls]


def _revive(hint: Any, value: Any) -> Any:  # noqa: ANN401 (any shape)
    origin = typing.get_origin(hint)
    if origin in {typing.Union, types.UnionType}:
        return _revive_union(typing.get_args(hint), value)
    if origin in {tuple, frozenset}:
        item = typing.get_args(hint)[0]
        return origin(_revive(item, each) for each in _of(list, value))
    if origin is dict:
        item = typing.get_args(hint)[1]
        return {key: _revive(item, each) for key, each in _of(dict, value).items()}
    if issubclass(hint, Enum):
        return hint(value)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return revive(hint, value)
    if hint is float and type(value) is int:
        return float(value)
    return _of(hint, value)


def _revive_union(arms: tuple[Any, ...], value: Any) -> Any:  # noqa: ANN401 (a shape)
    if value is None and type(None) in arms:
        return None
    others = [arm for arm in arms if arm is not type(None)]
    if len(others) == 1:
        return _revive(others[0], value)
    return value if type(value) in others else _of(others[0], value)


def _of(cls: type[T], value: Any) -> T:  # noqa: ANN401 (a shape)
    if type(value) is not cls:  # A bool is no int here.
        raise TypeError(f"expected {cls.__name__}, got {type(value).__name__}")
    return value
