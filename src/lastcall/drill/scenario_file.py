"""Scenarios from TOML files, and single requests from files in the form of an HTTP message."""

from __future__ import annotations

import os
import tomllib
from typing import Any

from lastcall.drill.history import Kind
from lastcall.drill.scenario import Load, Newcomers, Request, Scenario, State
from lastcall.durations import parse_duration
from lastcall.errors import LastcallError, UsageError

_FILE_BYTES = 16 * 1024 * 1024
_MOST_CONNECTIONS = 10_000
_MOST_A_SECOND = 50_000.0


class BadScenario(UsageError):
    """A scenario or a request cannot be read."""

    code = "bad-scenario"


def read_scenario(path: str) -> Scenario:
    """Read a scenario.

    Raises:
        BadScenario: the file cannot be read, or says something that makes no sense; it says where.
    """
    folder = os.path.dirname(path)
    try:
        table = tomllib.loads(_read(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadScenario(f"{path} is not TOML: {error}") from error
    try:
        _refuse(table, {"state", "newcomers", "load"}, "the file")
        rows = _tables(table, "state")
        states = tuple(_state(row, f"state {i}", folder) for i, row in enumerate(rows, 1))
        coming, load = _one(table, "newcomers"), _one(table, "load")
        return Scenario(states, _newcomers(coming, folder), _load(load, folder))
    except BadScenario as error:
        raise BadScenario(f"{path}: {error.what}", error.advice) from error


def read_request(path: str) -> Request:
    """Read a request from a file: `POST /orders`, headers, an empty line, the body.

    Raises:
        BadScenario: it is not of that form.
    """
    raw = _read(path).replace(b"\r\n", b"\n")
    head, _, body = raw.partition(b"\n\n")
    first, *rest = head.decode("latin-1").splitlines() or [""]
    words = first.split()
    if len(words) not in {2, 3} or not words[1].startswith("/"):
        raise BadScenario(
            f"{path}: its first line is no request: {first[:60]!r}", "such as: POST /orders"
        )
    headers = []
    for line in rest:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise BadScenario(
                f"{path}: {line[:60]!r} is no header", "such as: Content-Type: application/json"
            )
        headers.append((name, value.strip()))
    return Request(words[1], words[0].upper(), tuple(headers), body)


def kind_of(text: str) -> Kind:
    """The state of this name, such as `in-handler`.

    Raises:
        BadScenario: there is none.
    """
    import difflib

    known = {kind.key: kind for kind in Kind}
    if text in known:
        return known[text]
    near = difflib.get_close_matches(text, known, 3, 0.5)
    advice = f"did you mean {' or '.join(near)} ?" if near else f"states: {', '.join(known)}"
    raise BadScenario(f"{text!r} is no state of a connection", advice)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            raw = file.read(_FILE_BYTES + 1)
    except OSError as error:
        raise BadScenario(f"{path} cannot be read: {error.strerror}") from error
    if len(raw) > _FILE_BYTES:
        raise BadScenario(f"{path} is larger than {_FILE_BYTES >> 20} MiB")
    return raw


def _state(row: dict[str, Any], where: str, folder: str) -> State:
    _refuse(row, _REQUEST | {"kind", "count", "after", "second", "message"}, where)
    kind = kind_of(_text(row, "kind", "", where))
    second = row.get("second")
    if second is not None and not isinstance(second, dict):
        raise BadScenario(f"{where}: second is not a table", 'such as second = { path = "/" }')
    return State(
        kind,
        _request(row, where, folder),
        int(_number(row, "count", 1, where, _MOST_CONNECTIONS)),
        _length(row, "after", 0.5, where),
        None if second is None else _request(second, where, folder),
        _text(row, "message", "lastcall", where),
    )


def _newcomers(row: dict[str, Any], folder: str) -> Newcomers:
    _refuse(row, _REQUEST | {"rate", "think"}, "newcomers")
    rate = _number(row, "rate", 20.0, "newcomers", _MOST_A_SECOND)
    return Newcomers(
        _request(row, "newcomers", folder), rate, _length(row, "think", 0.0, "newcomers")
    )


def _load(row: dict[str, Any], folder: str) -> Load:
    _refuse(row, _REQUEST | {"rate", "connections"}, "load")
    rate = _number(row, "rate", 0.0, "load", _MOST_A_SECOND)
    connections = _number(row, "connections", 16, "load", _MOST_CONNECTIONS)
    return Load(_request(row, "load", folder), rate, int(connections))


_REQUEST = {"path", "method", "headers", "body", "body-file", "request"}


def _request(row: dict[str, Any], where: str, folder: str) -> Request:
    if "request" in row:
        return read_request(os.path.join(folder, _text(row, "request", "", where)))
    headers = row.get("headers", {})
    if not isinstance(headers, dict) or not all(isinstance(v, str) for v in headers.values()):
        raise BadScenario(f"{where}: headers are texts by name", 'such as { Accept = "*/*" }')
    body = _text(row, "body", "", where).encode()
    if "body-file" in row:
        body = _read(os.path.join(folder, _text(row, "body-file", "", where)))
    path = _text(row, "path", "/", where)
    if not path.startswith("/"):
        raise BadScenario(f"{where}: the path {path!r} does not begin with /")
    method = _text(row, "method", "POST" if body else "GET", where)
    return Request(path, method, tuple(headers.items()), body)


def _refuse(row: dict[str, Any], known: set[str], where: str) -> None:
    if strange := sorted(set(row) - known):
        raise BadScenario(
            f"{where}: {strange[0]!r} is not known", f"known: {', '.join(sorted(known))}"
        )


def _tables(table: dict[str, Any], name: str) -> list[dict[str, Any]]:
    rows = table.get(name, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadScenario(f"{name} is not a list of tables", f"write each under [[{name}]]")
    return rows


def _one(table: dict[str, Any], name: str) -> dict[str, Any]:
    row = table.get(name, {})
    if not isinstance(row, dict):
        raise BadScenario(f"{name} is not a table", f"write it under [{name}]")
    return row


def _text(row: dict[str, Any], name: str, default: str, where: str) -> str:
    value = row.get(name, default)
    if not isinstance(value, str):
        raise BadScenario(f"{where}: {name} is not a text: {value!r}")
    return value


def _number(row: dict[str, Any], name: str, default: float, where: str, most: float) -> float:
    value = row.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise BadScenario(f"{where}: {name} is not a number from 0 to {most:g}: {value!r}")
    return float(value)


def _length(row: dict[str, Any], name: str, default: float, where: str) -> float:
    try:
        return parse_duration(str(row.get(name, default)))
    except LastcallError as error:
        raise BadScenario(f"{where}: {name}: {error.what}", error.advice) from error
