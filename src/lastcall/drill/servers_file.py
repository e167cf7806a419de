"""Servers of one's own for `lastcall drill compare`, from a TOML file.

[[server]]
name = "my server"
command = ["my-server", "--port", "{port}"]
kind = "other"                     # or "asgi", "wsgi": then {app} is the probe application
env = { MY_SETTING = "1" }
ready = "/health"
ready_within = "30s"
speaks = ["websocket", "http2"]    # what else besides plain HTTP/1.1
version = ["my-server", "--version"]
beside = "my server, bare"         # the same one without lastcall, where this is the one with it
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lastcall.drill.files import parse_toml, read_named
from lastcall.drill.servers import HTTP2, WEBSOCKET, Server, Tool
from lastcall.durations import parse_duration
from lastcall.errors import BadPolicy, UsageError

if TYPE_CHECKING:
    from lastcall.drill.history import Kind

_FILE_BYTES = 1024 * 1024
_KINDS = ("asgi", "wsgi", "other")
_SPEAKS = {"websocket": WEBSOCKET, "http2": HTTP2}
_KNOWN = ("name", "command", "kind", "env", "ready", "ready_within", "speaks", "version", "beside")


class BadServers(UsageError):
    """A file of servers cannot be read."""

    code = "bad-servers"


def load(path: str) -> tuple[Server, ...]:
    """Read servers from a file.

    Raises:
        BadServers: it cannot be read, or says something that makes no sense; it says where.
    """
    table = parse_toml(path, read_named(path, _FILE_BYTES, BadServers), BadServers)
    rows = table.pop("server", [])
    if table or not isinstance(rows, list) or not rows:
        raise BadServers(f"{path} has to consist of [[server]] tables, at least one")
    made: dict[str, Server] = {}
    for number, row in enumerate(rows, 1):
        where = f"{path}: server {number}"
        server = _server(row, where)
        if server.key in made:
            raise BadServers(f"{where}: there is a {server.name!r} already", "give it another name")
        made[server.key] = server
    return tuple(made.values())


def _server(row: object, where: str) -> Server:
    if not isinstance(row, dict):
        raise BadServers(f"{where} is not a table", "begin it with [[server]]")
    for name in row:
        if name not in _KNOWN:
            raise BadServers(f"{where}: unknown: {name}", f"known: {', '.join(_KNOWN)}")
    command = _words(row, "command", where)
    kind = _text(row, "kind", where, "other")
    if kind not in _KINDS:
        raise BadServers(f"{where}: kind {kind!r} is not known", f"known: {', '.join(_KINDS)}")
    if kind == "other" and any("{app}" in word for word in command):
        raise BadServers(f"{where}: which {{app}} ?", 'say kind = "asgi" or kind = "wsgi"')
    ready = _text(row, "ready", where, "/health")
    if not ready.startswith("/"):
        raise BadServers(f"{where}: ready {ready!r} is not a path", 'such as ready = "/health"')
    return Server(
        _text(row, "name", where),
        command,
        kind,
        tools=_tools(row, command, where),
        speaks=_speaks(row, where),
        env=_env(row, where),
        ready=ready,
        ready_within_s=_length(row, where),
        beside=_text(row, "beside", where) if "beside" in row else "",
    )


def _text(row: dict[str, Any], name: str, where: str, default: str | None = None) -> str:
    text = row.get(name, default)
    if not isinstance(text, str) or not text or not text.isprintable():
        raise BadServers(f"{where}: {name} has to be text, one line", f'such as {name} = "..."')
    return text


def _words(row: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    words = row.get(name)
    if not isinstance(words, list) or not words or not all(_is_word(w) for w in words):
        advice = f'such as {name} = ["my-server", "--port", "{{port}}"]: no shell reads it'
        raise BadServers(f"{where}: {name} has to be a list of words", advice)
    return tuple(words)


def _is_word(word: object) -> bool:
    return isinstance(word, str) and "\0" not in word


def _tools(row: dict[str, Any], command: tuple[str, ...], where: str) -> tuple[Tool, ...]:
    """The programs to look for: the command's own, with the words that ask for its version."""
    version = _words(row, "version", where) if "version" in row else ()
    if version:
        return (Tool(version[0], version[1:]), *_tools({}, command, where))
    return () if command[0].startswith("{") else (Tool(command[0]),)


def _speaks(row: dict[str, Any], where: str) -> tuple[Kind, ...]:
    words = _words(row, "speaks", where) if row.get("speaks") else ()
    for word in words:
        if word not in _SPEAKS:
            advice = f"known: {', '.join(_SPEAKS)}"
            raise BadServers(f"{where}: speaks {word!r} is not known", advice)
    return tuple(kind for word in words for kind in _SPEAKS[word])


def _env(row: dict[str, Any], where: str) -> tuple[tuple[str, str], ...]:
    env = row.get("env", {})
    if not isinstance(env, dict) or not all(
        name and "=" not in name and "\0" not in name and _is_word(value)
        for name, value in env.items()
    ):
        raise BadServers(f"{where}: env has to be a table of texts", 'such as env = { A = "1" }')
    return tuple(env.items())


def _length(row: dict[str, Any], where: str) -> float:
    try:
        return parse_duration(_text(row, "ready_within", where, "30s"))
    except BadPolicy as error:
        raise BadServers(f"{where}: ready_within: {error.what}", error.advice) from error
