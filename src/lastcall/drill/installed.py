"""Which of the known servers are installed here, in which version, and how to run them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
from typing import TYPE_CHECKING

from lastcall.drill.how import fill
from lastcall.errors import LastcallError
from lastcall.journal.place import make_private, state_dir
from lastcall.kernel.run import printable, run_limited
from lastcall.record import record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lastcall.drill.servers import Server, Tool

_VERSION_LIMIT_S = 20.0
_BUILD_LIMIT_S = 300.0
_OUTPUT_BYTES = 64 * 1024
_NUMBER = re.compile(r"\d+(?:\.\d+)+[\w.+-]*")
# What a developer's shell may set, and would change what is compared: switched off.
_NEUTRAL = {
    "FLASK_DEBUG": "0",
    "GODEBUG": "",
    "GUNICORN_CMD_ARGS": "",
    "JAVA_TOOL_OPTIONS": "",
    "JDK_JAVA_OPTIONS": "",
    "NODE_OPTIONS": "",
    "PYTHONASYNCIODEBUG": "",
    "PYTHONDEVMODE": "",
    "PYTHONWARNINGS": "",
    "PYTHONUNBUFFERED": "1",
    "WEB_CONCURRENCY": "1",
    "WERKZEUG_SERVER_FD": "",
}
_PREFIXES = ("FLASK_RUN_", "GRANIAN_", "UVICORN_")


class CannotBuild(LastcallError):
    """A server's source cannot be compiled."""

    code = "cannot-build"


@record
class Found:
    """A server that can be run here.

    Args:
        server: which.
        version: such as `uvicorn 0.54.0`; empty: not known.
        command: what starts it, with `{port}` for a free port of 127.0.0.1.
        env: environment variables to set besides our own.
        compile: the command line that has to make `built` first; empty: nothing to make.
        built: where what is compiled is kept; empty: nowhere.
    """

    server: Server
    version: str
    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    compile: tuple[str, ...] = ()
    built: str = ""


@record
class Missing:
    """A server that cannot be run here.

    Args:
        server: which.
        what: what is missing.
        advice: how to get it.
    """

    server: Server
    what: str
    advice: str


class _Lacks(Exception):
    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what)
        self.what = what
        self.advice = advice


async def find(
    server: Server, sources: str = "", environ: Mapping[str, str] = os.environ
) -> Found | Missing:
    """Look for a server: Python packages in the running interpreter, programs on the PATH.

    Nothing is built yet, see `prepare`.

    Args:
        server: which.
        sources: the folder with the sources in other languages; empty: that of the checkout.
        environ: our own environment variables.
    """
    known: dict[str, object] = {"python": sys.executable, "app": server.app}
    try:
        versions = [f"{name} {_package_version(name)}" for name in server.packages]
        for tool in server.tools:
            known[tool.name] = path = _path_of(tool)
            if tool.version:
                versions.append(f"{tool.name} {await _tool_version(path, tool)}".strip())
        if server.source:
            known |= _source_of(server, sources)
    except _Lacks as lack:
        return Missing(server, lack.what, lack.advice)
    if server.compiler:
        known["built"] = built = _built(server, str(known["source"]), versions)
    else:
        built = ""
    said = ", ".join(versions) or _standard_library(server)
    env = tuple(sorted((neutral(environ) | dict(server.env)).items()))
    compiler = fill(server.compiler, known)
    return Found(server, said, fill(server.command, known), env, compiler, built)


async def prepare(found: Found, limit_s: float = _BUILD_LIMIT_S) -> None:
    """Compile what has to be compiled, once for each state of its source.

    It is kept in a folder that only this user can reach: what lies there is run.

    Args:
        found: which server.
        limit_s: how long the compiler may take, in seconds.

    Raises:
        CannotBuild: the compiler failed or took too long, or there is nowhere to keep its work.
    """
    if not found.compile:
        return
    try:
        scratch = _scratch(found.built)
    except OSError as error:
        raise CannotBuild(
            f"{found.server.name}: {error.filename or found.built}: {error.strerror}",
            "set XDG_CACHE_HOME to a folder that you may write",
        ) from error
    if scratch is None:
        return
    try:
        partial = os.path.join(scratch, "made")
        await _compile(found, partial, limit_s)
        _keep(partial, found.built)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _scratch(built: str) -> str | None:
    """A new folder to build in. None: it is built already.

    Raises:
        OSError: it cannot be made, or its place is not this user's alone.
    """
    folder = os.path.dirname(built)
    make_private(folder)
    found = os.stat(folder)
    if found.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "it belongs to somebody else", folder)
    if stat.S_IMODE(found.st_mode) & 0o077:
        os.chmod(folder, 0o700)
    return None if os.path.exists(built) else tempfile.mkdtemp(prefix="building-", dir=folder)


def _keep(partial: str, built: str) -> None:
    try:
        os.rename(partial, built)
    except OSError as error:
        if not os.path.exists(built):  # else somebody else was quicker
            raise CannotBuild(f"{built} could not be made: {error.strerror}") from error


async def _compile(found: Found, partial: str, limit_s: float) -> None:
    argv = [word.replace(found.built, partial) for word in found.compile]
    env = dict(os.environ) | dict(found.env) | _GO_ENV
    if not (env.get("HOME") or env.get("XDG_CACHE_HOME")):
        env.setdefault("GOCACHE", os.path.join(os.path.dirname(found.built), "go-build"))
    try:
        ran = await run_limited(argv, limit_s, _OUTPUT_BYTES, env)
    except OSError as error:
        raise CannotBuild(f"{argv[0]} could not be started: {error.strerror}") from error
    if ran.timed_out:
        raise CannotBuild(f"{found.server.name}: compiling it took longer than {limit_s:g} s")
    if ran.returncode != 0:
        said = (ran.stderr or ran.stdout).decode("utf-8", "replace").strip().splitlines()
        raise CannotBuild(
            f"{found.server.name} does not compile",
            "its compiler may be too old: the README beside its source says what it needs",
            tuple(printable(line) for line in said[:10]),
        )


# One file and the standard library: no module, no C compiler, and no newer Go from the network.
_GO_ENV = {"GO111MODULE": "off", "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": ""}


def neutral(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that keep a server's settings out of the environment.

    Args:
        environ: what is set.
    """
    named = [name for name in environ if name.startswith(_PREFIXES)]
    return dict.fromkeys(named, "") | {k: v for k, v in _NEUTRAL.items() if k in environ or v}


def _built(server: Server, source: str, versions: list[str]) -> str:
    with open(source, "rb") as file:
        text = file.read()
    whole = b"\0".join([text, *(w.encode() for w in (*server.compiler, *versions))])
    stem = os.path.basename(source).partition(".")[0]
    return os.path.join(cache_dir(), f"{stem}-{hashlib.sha256(whole).hexdigest()[:16]}")


def cache_dir() -> str:
    """Where compiled servers are kept: `$XDG_CACHE_HOME/lastcall/drill`.

    Source: XDG Base Directory Specification 0.8.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.expanduser("~/.cache")
    if not os.path.isabs(base):  # no home folder is known
        base = state_dir()
    return os.path.join(base, "lastcall", "drill")


def _checkout() -> str:
    """The folder of the sources, when this module runs from a checkout."""
    root = os.path.abspath(__file__)
    for _ in range(4):  # src/lastcall/drill/installed.py
        root = os.path.dirname(root)
    return os.path.join(root, "examples", "drill")


def _package_version(name: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        raise _Lacks(
            f"the Python package {name} is not installed for {sys.executable}",
            f"{sys.executable} -m pip install {name}",
        ) from None


def _path_of(tool: Tool) -> str:
    path = shutil.which(tool.name)
    if path is None:
        advice = f"apt-get install {tool.package}" if tool.package else "put it on the PATH"
        raise _Lacks(f"the program {tool.name} is not there", advice)
    return path


def _source_of(server: Server, sources: str) -> dict[str, str]:
    sources = os.path.abspath(sources or _checkout())
    source = os.path.join(sources, server.source)
    if not os.path.isfile(source):
        raise _Lacks(
            f"its source {source} is not there",
            "--sources DIR: the folder examples/drill of a checkout of lastcall",
        )
    return {"sources": sources, "source": source}


def _standard_library(server: Server) -> str:
    if server.command[:1] != ("{python}",):
        return ""
    return "Python {}.{}.{}".format(*sys.version_info[:3])


_asked: dict[tuple[str, ...], str] = {}


async def _tool_version(path: str, tool: Tool) -> str:
    """What the program says first that looks like a version; empty: it says none."""
    argv = (path, *tool.version)
    if argv not in _asked:
        text = ""
        with contextlib.suppress(OSError):
            ran = await run_limited(argv, _VERSION_LIMIT_S, _OUTPUT_BYTES)
            text = (ran.stdout + ran.stderr).decode("utf-8", "replace")
        number = _NUMBER.search(text)
        _asked[argv] = number[0] if number else ""
    return _asked[argv]
