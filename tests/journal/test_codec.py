"""Events to JSON and back."""

from __future__ import annotations

import json
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall import model
from lastcall.journal import codec
from lastcall.model import Depth, Intended, Looked, Progressed, Started

EVENTS: list[type] = list(typing.get_args(model.Event))


def _through_json(event: model.Event) -> model.Event:
    kind, fields = codec.encode(event)
    return codec.decode(kind, json.loads(json.dumps(fields)))


@given(st.one_of([st.from_type(cls) for cls in EVENTS]))
def test_every_event_comes_back_as_it_was(event: model.Event) -> None:
    """Whatever the fields hold, an event written and read is the same event."""
    again = _through_json(event)
    assert type(again) is type(event)
    # As text, for a float may be NaN, which equals nothing.
    assert json.dumps(codec.encode(again)) == json.dumps(codec.encode(event))
    if "NaN" not in json.dumps(codec.encode(event)):
        assert again == event


def test_the_kinds_are_stable_names() -> None:
    """A journal of today must be readable tomorrow: renaming a class would break it."""
    assert {codec._kebab(cls.__name__) for cls in EVENTS} == {
        "started", "intended", "asked", "served", "reached", "progressed", "called",
        "look-started", "looked", "consented", "deadline-moved", "ended", "missing", "released",
        "resumed", "warned", "finished",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("melted", {}),
        ("Started", {}),
        ("intended", {"rung": 1}),
        ("intended", {"rung": "1", "attempt": 1}),
        ("intended", {"rung": True, "attempt": 1}),
        ("intended", {"rung": None, "attempt": 1}),
        ("intended", {"rung": 1.5, "attempt": 1}),
        ("intended", {"rung": 1, "attempt": 1, "facts": [["pid", 1]]}),
        ("intended", {"rung": 1, "attempt": 1, "facts": {"pid": []}}),
        ("asked", {"rung": 1, "attempt": 1, "outcome": "melted"}),
        ("asked", {"rung": 1, "attempt": 1, "outcome": ["done"]}),
        ("looked", {"depth": "quick", "findings": {}}),
        ("looked", {"depth": "quick", "findings": ["text"]}),
        ("looked", {"depth": "quick", "findings": [{"code": "x"}]}),
        ("consented", {"consent": 5}),
        ("consented", {"consent": {"reason": "x"}}),
        ("deadline-moved", {"deadline_s": "5", "by": "x"}),
        ("deadline-moved", {"deadline_s": False, "by": "x"}),
        ("ended", []),
        ("ended", None),
    ],
)
def test_what_cannot_be_an_event_is_refused(kind: str, fields: typing.Any) -> None:
    """An unknown kind, a missing field or a field of another shape is a ValueError."""
    with pytest.raises(ValueError, match=r"."):
        codec.decode(kind, fields)


@given(
    st.sampled_from(EVENTS),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.data(),
)
def test_garbage_is_refused_and_never_something_else(
    cls: type, garbage: object, data: st.DataObject
) -> None:
    """Any JSON in any field gives an event of the right shape or a ValueError, nothing else."""
    kind, fields = codec.encode(data.draw(st.from_type(cls)))
    if fields:
        fields[data.draw(st.sampled_from(sorted(fields)))] = garbage
    try:
        event = codec.decode(kind, fields)
    except ValueError:
        return
    assert json.dumps(codec.encode(_through_json(event))) == json.dumps(codec.encode(event))


def test_a_field_of_a_newer_version_is_passed_over() -> None:
    """A newer writer of the same format may add fields; an older reader goes on."""
    assert codec.decode("served", {"audience": "root", "since": [1]}) == model.Served("root")


def test_a_field_added_later_gets_its_default() -> None:
    """What an older writer did not know is as if it had not been said."""
    event = codec.decode("started", {"ladder": [], "deadline_s": 2, "ceiling_s": 3})
    assert event == Started((), 2.0, 3.0)


def test_a_whole_number_is_a_fine_length_of_time() -> None:
    """JSON does not tell 5 from 5.0; seconds are floats all the same."""
    event = codec.decode("progressed", {"more_s": 5, "reason": "update"})
    assert isinstance(event, Progressed)
    assert type(event.more_s) is float


def test_lists_come_back_as_tuples() -> None:
    """What is read is as frozen as what was written."""
    event = _through_json(Looked(Depth.QUICK, (model.Finding("c", "t", evidence=("a", "b")),)))
    assert isinstance(event, Looked)
    assert event.findings[0].evidence == ("a", "b")
    assert _through_json(Intended(0, 1, {"members": None})) == Intended(0, 1, {"members": None})
