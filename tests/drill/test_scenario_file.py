"""Scenarios and requests from files: whatever stands in them, a scenario or one clear error."""

from __future__ import annotations

import contextlib
import os
import string
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.drill import scenario_file
from lastcall.drill.history import Kind
from lastcall.drill.scenario import Load, Newcomers, Request, Scenario, State
from lastcall.drill.scenario_file import BadScenario, kind_of, read_request, read_scenario

GOOD = """
[newcomers]
path = "/health"
rate = 5
think = "50ms"

[load]
path = "/"
rate = 200
connections = 3

[[state]]
kind = "in-handler"
path = "/report?days=30&key={key}"
headers = { Accept = "text/html" }
count = 20

[[state]]
kind = "half-body"
path = "/orders"
body-file = "order.json"
after = "500ms"

[[state]]
kind = "pipelined"
path = "/slow"
second = { path = "/second", method = "DELETE" }

[[state]]
kind = "websocket-echo"
path = "/ws"
message = "hé"

[[state]]
kind = "expect-continue"
request = "order.http"
"""


def write(folder: Path, text: str | bytes, name: str = "scenario.toml") -> str:
    """A file with this in it; returns its path."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_a_whole_scenario(tmp_path: Path) -> None:
    """Every word of a good file arrives; files beside it are found from anywhere."""
    write(tmp_path, "{}", "order.json")
    write(
        tmp_path,
        "PUT /o HTTP/1.1\r\nhost: x\r\nA: b\r\nContent-Length: 9\r\n\r\nbody",
        "order.http",
    )
    assert read_scenario(write(tmp_path, GOOD)) == Scenario(
        (
            State(
                Kind.IN_HANDLER,
                Request("/report?days=30&key={key}", headers=(("Accept", "text/html"),)),
                20,
            ),
            State(Kind.HALF_BODY, Request("/orders", "POST", (), b"{}")),
            State(Kind.PIPELINED, Request("/slow"), second=Request("/second", "DELETE")),
            State(Kind.WEBSOCKET_ECHO, Request("/ws"), message="hé"),
            State(Kind.EXPECT_CONTINUE, Request("/o", "PUT", (("A", "b"),), b"body")),
        ),
        Newcomers(Request("/health"), 5.0, 0.05),
        Load(Request("/"), 200.0, 3),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("state = 3", "list of tables"),
        ("state = [3]", "list of tables"),
        ("load = 3", "load is not a table"),
        ("nonsense = 3", "'nonsense' is not known"),
        ("[[state]]", "'' is no state"),
        ("[[state]]\nkind = 3", "state 1: kind is not a text"),
        ('[[state]]\nkind = "in-handlr"', "state 1: 'in-handlr'"),
        ('[[state]]\nkind = "newcomer"', "newcomer"),
        ('[[state]]\nkind = "load"', "load"),
        ('[[state]]\nkind = "unread"', "unread"),
        ('[[state]]\nkind = "just-sent"', "just-sent"),
        ('[[state]]\nkind = "silent"\ncount = -1', "count"),
        ('[[state]]\nkind = "silent"\ncount = 1.5', "whole number"),
        ('[[state]]\nkind = "silent"\ncount = nan', "count"),
        ('[[state]]\nkind = "silent"\ncount = true', "count"),
        ('[[state]]\nkind = "silent"\ncount = 10001', "count"),
        ('[[state]]\nkind = "silent"\nafter = "-1s"', "after"),
        ('[[state]]\nkind = "silent"\nafter = "9999h"', "after"),
        ('[[state]]\nkind = "silent"\npath = "/a b"', "/a%20b"),
        ('[[state]]\nkind = "silent"\npath = "/a\\r\\nX: y"', "path"),
        ('[[state]]\nkind = "silent"\nmethod = "G ET"', "method"),
        ('[[state]]\nkind = "silent"\nheaders = { "A\\nB" = "c" }', "header"),
        ('[[state]]\nkind = "silent"\nheaders = { A = "b\\r\\nC: d" }', "control character"),
        ('[[state]]\nkind = "silent"\nheaders = { Host = "b" }', "set by the drill"),
        ('[[state]]\nkind = "silent"\nheaders = { Transfer-Encoding = "b" }', "Content-Length"),
        ('[[state]]\nkind = "silent"\nheaders = { A = 1 }', "texts by name"),
        ('[[state]]\nkind = "silent"\nbody-file = "nope"', "cannot be read"),
        ('[[state]]\nkind = "silent"\nbody-file = "a\\u0000"', "name of a file"),
        ('[[state]]\nkind = "silent"\nrequest = "x"\npath = "/"', "'path' beside request"),
        ('[[state]]\nkind = "silent"\nsecond = 3', "second is not a table"),
        ("[newcomers]\nrate = inf", "rate"),
        ("[newcomers]\nrate = true", "rate"),
        ("[load]\nrate = 1\nconnections = 0", "at least one connection"),
        ("a = " + "[" * 5000, "not TOML"),
        ("a = " + "9" * 5000, "not TOML"),
        ("a = \x00", "not TOML"),
    ],
)
def test_what_makes_no_sense_is_told_where(tmp_path: Path, text: str, said: str) -> None:
    """An error names the file and what is wrong in it, and says what to do."""
    path = write(tmp_path, text)
    with pytest.raises(BadScenario) as caught:
        read_scenario(path)
    assert said in f"{caught.value.what} {caught.value.advice}"
    assert path in caught.value.what or "nope" in said or "file" in caught.value.what
    assert caught.value.advice


words = st.sampled_from(
    ["kind", "path", "count", "rate", "after", "headers", "body", "second", "request", "state"]
)
values = st.recursive(
    st.one_of(
        st.integers(),
        st.floats(),
        st.booleans(),
        st.text(max_size=8),
        st.sampled_from([kind.key for kind in Kind]),
        st.dates(),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=4)),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["state", "newcomers", "load", "other"]), values, max_size=3)
)
def test_no_table_makes_anything_but_a_scenario_or_an_error(table: dict[str, Any]) -> None:
    """Whatever TOML can say, the answer is a scenario or BadScenario."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenario_file, "_read", lambda _: b"")
        patch.setattr(scenario_file, "parse_toml", lambda *_: table)
        try:
            made = read_scenario("some.toml")
        except BadScenario:
            return
    for state in made.states:
        assert 0 <= state.count <= scenario_file.MOST_CONNECTIONS
        assert state.request.path.startswith("/")


@given(st.binary(max_size=200))
def test_no_bytes_make_anything_but_a_request_or_an_error(raw: bytes) -> None:
    """Whatever stands in a file, it becomes one request of one line, or BadScenario."""
    for prefix in (b"", b"GET /", b"POST / HTTP/1.1\r\n"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scenario_file, "read_named", lambda *_, all_=prefix + raw: all_)
            try:
                request = read_request("some.http")
            except BadScenario:
                pass
            else:
                head = [request.method, request.path, *sum(request.headers, ())]
                assert not any(set(text) & set("\r\n\0") for text in head)
                assert " " not in request.method + request.path
            with contextlib.suppress(BadScenario):
                read_scenario("some.toml")


TOKEN = st.text(string.ascii_letters + string.digits + "-_!", min_size=1, max_size=12)
PATH = st.text(string.ascii_letters + "?&=%/{}", max_size=20).map(lambda text: f"/{text}")
VALUE = st.text(string.ascii_letters + "é \t:;=", max_size=20).map(str.strip)


@given(
    TOKEN.map(str.upper),
    PATH,
    st.lists(st.tuples(TOKEN.map(lambda name: f"X-{name}"), VALUE), max_size=4),
    st.binary(max_size=64),
    st.sampled_from([b"\n", b"\r\n"]),
)
def test_a_good_request_arrives_as_it_was_written(
    method: str, path: str, headers: list[tuple[str, str]], body: bytes, end: bytes
) -> None:
    """Method, path, headers and every byte of the body survive, with either end of line."""
    lines = [f"{method} {path}", *(f"{name}: {value}" for name, value in headers), "", ""]
    raw = end.join(line.encode() for line in lines) + body
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenario_file, "read_named", lambda *_: raw)
        assert read_request("some.http") == Request(path, method, tuple(headers), body)


@pytest.mark.parametrize(
    "head",
    ["", "GET", "GET x", "GET / HTTP/1.1 more", "GET / FTP/1", "GET  /", "GET /\nno colon"],
)
def test_a_request_that_is_none(tmp_path: Path, head: str) -> None:
    """What is not `METHOD /path` and headers is refused."""
    with pytest.raises(BadScenario):
        read_request(write(tmp_path, head))


def test_a_file_that_is_none(tmp_path: Path) -> None:
    """A folder, a pipe, a device, a name with NUL, a file too large: refused at once."""
    fifo, large = tmp_path / "fifo", tmp_path / "large"
    os.mkfifo(fifo)
    large.touch()
    os.truncate(large, 1 << 30)
    for path in (str(tmp_path), str(fifo), "/dev/zero", "a\0b", str(large), "/nonexistent", ""):
        with pytest.raises(BadScenario) as caught:
            read_request(path)
        assert caught.value.advice


def test_every_state_has_its_name() -> None:
    """A state is found by its name, and a mistyped one names the nearest."""
    assert all(kind_of(kind.key) is kind for kind in Kind)
    with pytest.raises(BadScenario) as caught:
        kind_of("half-header")
    assert "half-headers" in caught.value.advice


def test_the_example_in_the_documentation_is_a_scenario(tmp_path: Path) -> None:
    """What the page on the drill shows can be used as it stands."""
    page = (Path(__file__).parents[2] / "docs" / "drill.md").read_text()
    text = page.partition("```toml\n")[2].partition("```")[0]
    assert tomllib.loads(text)
    write(tmp_path, "{}", "order.json")
    assert read_scenario(write(tmp_path, text)).load.rate == 200
