"""The registry of servers: each one runs the probe application; what is missing is named."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from drill.servers_stage import installed, running
from lastcall.drill import installed as looking
from lastcall.drill.history import Kind
from lastcall.drill.installed import CannotBuild, Found, Missing, find, neutral, prepare
from lastcall.drill.servers import SERVERS, Server, Tool
from lastcall.drill.servers_file import BadServers, load
from runtimes import BUILD

ORDER = ["begun", "paid", "ordered"]
CAREFUL = 'command = ["{python}", "-m", "lastcall.drill.probe.careful", "{port}"]'


@pytest.fixture
def _compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled servers are kept with the other things that tests build."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(BUILD))
    monkeypatch.setenv("GOCACHE", str(BUILD / "go-cache"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for compiled servers."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lastcall" / "drill"


@pytest.mark.parametrize("server", SERVERS, ids=lambda s: s.key)
@pytest.mark.usefixtures("_compiled")
def test_every_server_runs_the_probe(server: Server, tmp_path: Path) -> None:
    """It starts, answers, takes the payment first and makes the order last."""
    found = installed(server)
    assert any(digit.isdigit() for digit in found.version), found.version
    with running(found.command, tmp_path, dict(found.env), server.ready) as it:
        assert it.get("/") == (200, b"ok\n")
        assert it.get("/slow?s=0.05&key=k") == (200, b"done k\n")
        assert it.steps("k") == ORDER


def test_every_server_has_a_key_of_its_own() -> None:
    """Keys are unique and fit for a file name."""
    keys = [server.key for server in SERVERS]
    assert len(set(keys)) == len(keys)
    assert all(key.replace("-", "").isalnum() and key.isascii() for key in keys)


@pytest.mark.parametrize(
    ("server", "what", "advice"),
    [
        (Server("x", ("x",), packages=("no-such",)), "package no-such", "pip install no-such"),
        (Server("x", ("x",), tools=(Tool("no-such"),)), "program no-such", "PATH"),
        (
            Server("x", ("x",), tools=(Tool("no-such", (), "deb"),)),
            "no-such",
            "apt-get install deb",
        ),
        (Server("x", ("x",), source="no_such.js"), "no_such.js is not there", "--sources"),
    ],
)
def test_what_is_missing_is_named(server: Server, what: str, advice: str) -> None:
    """A server that cannot run here says what it lacks and how to get it."""
    found = asyncio.run(find(server))
    assert isinstance(found, Missing)
    assert what in found.what
    assert advice in found.advice


def compiled_by(words: tuple[str, ...], folder: Path) -> Found:
    """A server that is made by a compiler of ours."""
    (folder / "source.txt").write_text("x")
    tools = (Tool("sh"), Tool("cp"))
    server = Server("made", ("{built}",), tools=tools, source="source.txt", compiler=words)
    found = asyncio.run(find(server, str(folder)))
    assert isinstance(found, Found)
    return found


def test_a_source_is_compiled_once(tmp_path: Path, cache: Path) -> None:
    """What is made lies in a private folder, is not made again, and changes with its source."""
    found = compiled_by(("{cp}", "{source}", "{built}"), tmp_path)
    asyncio.run(prepare(found))
    assert Path(found.built).read_text() == "x"
    assert found.command == (found.built,)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    asyncio.run(prepare(replace(found, compile=("false",))))
    (tmp_path / "source.txt").write_text("y")
    other = asyncio.run(find(found.server, str(tmp_path)))
    assert isinstance(other, Found)
    assert other.built != found.built
    assert os.listdir(cache) == [Path(found.built).name]


def test_what_does_not_compile_says_why(tmp_path: Path, cache: Path) -> None:
    """A failing compiler's words are the evidence, and nothing is left of the attempt."""
    found = compiled_by(("{sh}", "-c", "echo too old >&2; exit 1", "{built}"), tmp_path)
    with pytest.raises(CannotBuild) as caught:
        asyncio.run(prepare(found))
    assert caught.value.evidence == ("too old",)
    assert os.listdir(cache) == []


def test_a_compiler_that_hangs_is_ended(tmp_path: Path, cache: Path) -> None:
    """Compiling has a limit."""
    found = compiled_by(("{sh}", "-c", "sleep 60", "{built}"), tmp_path)
    with pytest.raises(CannotBuild, match=r"longer than 0\.1 s"):
        asyncio.run(prepare(found, 0.1))
    assert os.listdir(cache) == []


def test_the_cache_must_be_a_folder(tmp_path: Path, cache: Path) -> None:
    """Something else in its place is named."""
    cache.parent.mkdir(parents=True)
    cache.write_text("")
    found = compiled_by(("{cp}", "{source}", "{built}"), tmp_path)
    with pytest.raises(CannotBuild, match="Not a directory"):
        asyncio.run(prepare(found))


def test_settings_in_the_environment_do_not_count() -> None:
    """What a shell sets for servers is switched off; what it does not set stays unset."""
    env = neutral({"UVICORN_WORKERS": "7", "GUNICORN_CMD_ARGS": "-w 9", "PATH": "/bin"})
    assert env["UVICORN_WORKERS"] == env["GUNICORN_CMD_ARGS"] == ""
    assert "PATH" not in env
    assert "NODE_OPTIONS" not in env


@pytest.mark.parametrize("name", ["uvicorn-2-workers", "gunicorn-sync"])
def test_workers_are_those_of_the_command(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings and a configuration file that happen to lie around change nothing."""
    for setting, value in {
        "WEB_CONCURRENCY": "5",
        "GUNICORN_CMD_ARGS": "--no-such-option",
        "UVICORN_LIFESPAN": "no-such",
        "PYTHONWARNINGS": "error",
    }.items():
        monkeypatch.setenv(setting, value)
    (tmp_path / "gunicorn.conf.py").write_text("raise SystemExit('read')")
    [server] = [server for server in SERVERS if server.key == name]
    found = installed(server)
    with running(found.command, tmp_path, dict(found.env)) as it:
        assert it.get("/") == (200, b"ok\n")


def test_servers_of_one_s_own(tmp_path: Path) -> None:
    """A file names servers with everything that can be said of one, and they run."""
    file = tmp_path / "servers.toml"
    file.write_text(
        f"""
        [[server]]
        name = "Mine, 1"
        {CAREFUL}
        env = {{ A = "1" }}
        ready = "/"
        ready_within = "1m"
        speaks = ["websocket"]
        version = ["{sys.executable}", "--version"]
        beside = "theirs"
        [[server]]
        name = "theirs"
        command = ["no-such-program", "{{app}}"]
        kind = "wsgi"
        """
    )
    mine, theirs = load(str(file))
    assert (mine.key, mine.ready, mine.ready_within_s) == ("mine-1", "/", 60.0)
    assert (mine.beside, theirs.beside) == ("theirs", "")
    assert mine.speaks == (Kind.WEBSOCKET_IDLE, Kind.WEBSOCKET_ECHO)
    found = installed(mine)
    assert found.version.endswith("{}.{}.{}".format(*sys.version_info[:3]))
    assert ("A", "1") in found.env
    with running(found.command, tmp_path, dict(found.env)) as it:
        assert it.get("/") == (200, b"ok\n")
    missing = asyncio.run(find(theirs))
    assert isinstance(missing, Missing)
    assert "no-such-program" in missing.what


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "at least one"),
        ("x = 1", "has to consist of"),
        ("[[server", "is not TOML"),
        ("server = 1", "has to consist of"),
        ("server = [1]", "server 1 is not a table"),
        ("[[server]]\nnmae = 'x'", "unknown: nmae"),
        ("[[server]]\nname = 'x'", "command has to be a list"),
        ("[[server]]\nname = 'x'\ncommand = 'x'", "command has to be a list"),
        ("[[server]]\nname = 'x'\ncommand = ['x', 1]", "command has to be a list"),
        ("[[server]]\ncommand = ['x']", "name has to be text"),
        ("[[server]]\nname = 'x'\ncommand = ['x']\nkind = 'y'", "kind 'y'"),
        ("[[server]]\nname = 'x'\ncommand = ['{app}']", "which {app}"),
        ("[[server]]\nname = 'x'\ncommand = ['x']\nready = 'y'", "ready 'y' is not a path"),
        ("[[server]]\nname = 'x'\ncommand = ['x']\nready_within = 'y'", "ready_within: 'y'"),
        ("[[server]]\nname = 'x'\ncommand = ['x']\nspeaks = ['y']", "speaks 'y'"),
        ("[[server]]\nname = 'x'\ncommand = ['x']\nbeside = ''", "beside has to be text"),
        ("[[server]]\nname = 'x'\ncommand = ['x']\nenv = { a = 1 }", "env has to be"),
        ("[[server]]\nname = 'x'\ncommand = ['x']\n" * 2, "there is a 'x' already"),
    ],
)
def test_a_bad_file_says_where(text: str, complaint: str, tmp_path: Path) -> None:
    """What makes no sense in a file of servers is named."""
    file = tmp_path / "servers.toml"
    file.write_text(text)
    with pytest.raises(BadServers) as caught:
        load(str(file))
    assert complaint in caught.value.what
    assert str(file) in caught.value.what


def test_a_file_of_servers_that_is_not_there(tmp_path: Path) -> None:
    """A missing file is an error of the caller's."""
    with pytest.raises(BadServers, match="cannot be read"):
        load(str(tmp_path / "none.toml"))


def test_without_a_home_there_is_still_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled servers go where the journal is when no home folder is known."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setenv("LASTCALL_STATE_DIR", "/somewhere")
    assert looking.cache_dir() == "/somewhere/lastcall/drill"
