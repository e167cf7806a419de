"""Scenarios from TOML files, and single requests from files in the form of an HTTP message."""

from __future__ import annotations

import os
from typing import Any

from lastcall.drill.files import parse_toml, read_named
from lastcall.drill.history import Kind
from lastcall.drill.scenario import Load, Newcomers, Request, Scenario, State
from lastcall.drill.wellformed import header_fault, method_fault, path_fault
from lastcall.durations import LONGEST_S, parse_duration
from lastcall.errors import LastcallError, UsageError

_FILE_BYTES = 16 * 1024 * 1024
_WORDS = 3
MOST_CONNECTIONS = 10_000
MOST_A_SECOND = 50_000.0
# The client sets them itself: the body it sends may have another length than the template.
_OURS = frozenset({"host", "connection", "content-length"})
# These are no states that connections are brought into.
_HAPPENS = {
    Kind.NEWCOMER: "write it under [newcomers]",
    Kind.LOAD: "write it under [load]",
    Kind.SENT: "ask for in-handler: where nobody can tell how far it came, it is told as such",
    Kind.UNREAD: "ask for in-handler: what nobody has read is told as such",
    Kind.JUST_SENT: "ask for backlog: what was taken in the last moment is told as such",
}


class BadScenario(UsageError):
    """A scenario or a request cannot be read."""

    code = "bad-scenario"


def read_scenario(path: str) -> Scenario:
    """Read a scenario.

    Raises:
        BadScenario: the file cannot be read, or says something that makes no sense; it says where.
    """
    folder = os.path.dirname(path)
    table = parse_toml(path, _read(path), BadScenario)
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

    Its Host, Connection and Content-Length are left out, as the client sets them.

    Raises:
        BadScenario: it is not of that form.
    """
    raw = _read(path)
    # The body stays as it is; only the head may be written with either end of line.
    separator = min((b"\n\n", b"\r\n\r\n"), key=lambda end: raw.find(end) % (len(raw) + 1))
    head, _, body = raw.partition(separator)
    try:
        first, *rest = head.replace(b"\r\n", b"\n").decode().rstrip("\r\n").split("\n")
    except UnicodeDecodeError as error:
        raise BadScenario(f"{path}: its head is not UTF-8: {error}", "write it in UTF-8") from error
    words = first.split(" ")
    if len(words) not in {2, 3} or (len(words) == _WORDS and not words[2].startswith("HTTP/")):
        raise BadScenario(
            f"{path}: its first line is no request: {first[:60]!r}", "such as: POST /orders"
        )
    headers = []
    for line in rest:
        name, colon, value = line.partition(":")
        if not colon:
            raise BadScenario(
                f"{path}: {line[:60]!r} is no header", "such as: Content-Type: application/json"
            )
        headers.append((name, value.strip(" \t")))
    kept = tuple((name, value) for name, value in headers if name.lower() not in _OURS)
    return _checked(Request(words[1], words[0].upper(), kept, body), path)


def _checked(request: Request, where: str) -> Request:
    """The request, if it is one: what it says must not become several requests."""
    faults = [path_fault(request.path), method_fault(request.method)]
    for name, value in request.headers:
        faults.append(header_fault(name, value))
        if name.lower() in _OURS:
            faults.append((f"the header {name} is set by the drill", "leave it out"))
        elif name.lower() == "transfer-encoding":
            faults.append(("a body is sent with its Content-Length", f"leave out {name}"))
    for fault in faults:
        if fault is not None:
            raise BadScenario(f"{where}: {fault[0]}", fault[1])
    return request


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
    return read_named(path, _FILE_BYTES, BadScenario)


def _state(row: dict[str, Any], where: str, folder: str) -> State:
    _refuse(row, _REQUEST | {"kind", "count", "after", "second", "message"}, where)
    name = _text(row, "kind", "", where)
    try:
        kind = kind_of(name)
    except BadScenario as error:
        raise BadScenario(f"{where}: {error.what}", error.advice) from error
    if kind in _HAPPENS:
        raise BadScenario(f"{where}: no connection can be brought into {kind.key}", _HAPPENS[kind])
    second = row.get("second")
    if second is not None and not isinstance(second, dict):
        raise BadScenario(f"{where}: second is not a table", 'such as second = { path = "/" }')
    return State(
        kind,
        _request(row, where, folder),
        _whole(row, "count", 1, where),
        _length(row, "after", 0.5, where),
        None if second is None else _request(second, where, folder),
        _text(row, "message", "lastcall", where),
    )


def _newcomers(row: dict[str, Any], folder: str) -> Newcomers:
    _refuse(row, _REQUEST | {"rate", "think"}, "newcomers")
    rate = _number(row, "rate", 20.0, "newcomers", MOST_A_SECOND)
    return Newcomers(
        _request(row, "newcomers", folder), rate, _length(row, "think", 0.0, "newcomers")
    )


def _load(row: dict[str, Any], folder: str) -> Load:
    _refuse(row, _REQUEST | {"rate", "connections"}, "load")
    rate = _number(row, "rate", 0.0, "load", MOST_A_SECOND)
    connections = _whole(row, "connections", 16, "load")
    if rate and not connections:
        raise BadScenario("load: it needs at least one connection", "such as connections = 16")
    return Load(_request(row, "load", folder), rate, connections)


_REQUEST = {"path", "method", "headers", "body", "body-file", "request"}


def _request(row: dict[str, Any], where: str, folder: str) -> Request:
    if "request" in row:
        if more := sorted((_REQUEST - {"request"}) & set(row)):
            raise BadScenario(f"{where}: {more[0]!r} beside request", "the file says all of it")
        return read_request(os.path.join(folder, _text(row, "request", "", where)))
    headers = row.get("headers", {})
    if not isinstance(headers, dict) or not all(isinstance(v, str) for v in headers.values()):
        raise BadScenario(f"{where}: headers are texts by name", 'such as { Accept = "*/*" }')
    body = _text(row, "body", "", where).encode()
    if "body-file" in row:
        body = _read(os.path.join(folder, _text(row, "body-file", "", where)))
    path = _text(row, "path", "/", where)
    method = _text(row, "method", "POST" if body else "GET", where)
    return _checked(Request(path, method, tuple(headers.items()), body), where)


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
        raise BadScenario(
            f"{where}: {name} is not a text: {_short(value)}", f'such as {name} = "..."'
        )
    return value


def _short(value: object) -> str:
    return repr(value)[:60]


def _number(row: dict[str, Any], name: str, default: float, where: str, most: float) -> float:
    value = row.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise BadScenario(
            f"{where}: {name} is not a number from 0 to {most:g}: {_short(value)}",
            f"such as {name} = {default:g}",
        )
    return float(value)


def _whole(row: dict[str, Any], name: str, default: int, where: str) -> int:
    value = _number(row, name, default, where, MOST_CONNECTIONS)
    if not value.is_integer():
        raise BadScenario(f"{where}: {name} is not a whole number: {value}", "such as 20")
    return int(value)


def _length(row: dict[str, Any], name: str, default: float, where: str) -> float:
    try:
        length_s = parse_duration(str(row.get(name, default))[:60])
    except LastcallError as error:
        raise BadScenario(f"{where}: {name}: {error.what}", error.advice) from error
    if length_s > LONGEST_S:
        raise BadScenario(f"{where}: {name} is longer than a week", "write it as 500ms or 2s")
    return length_s
