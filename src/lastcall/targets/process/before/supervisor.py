"""Who would start a process again once it is stopped, and what to stop instead.

Told by three things, none of which is proof alone: the cgroup it lives in, the processes above it,
and the environment it was started with. The environment is inherited by everything below, so it
names a program but never says that *this* process is that program; who its parent is says that.

Source: systemd.service(5) ("Restart="), systemd.exec(5) ("$SYSTEMD_EXEC_PID"), systemctl(1);
supervisord.org ("Subprocess Environment", "autorestart"); pm2.keymetrics.io; runsv(8);
skarnet.org/software/s6/s6-supervise.html; Kubernetes, docker, podman and containerd by the names
they give to cgroups (runc libcontainer/cgroups, cri-o, containers/podman "libpod-").
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import field
from functools import lru_cache
from typing import TYPE_CHECKING

from lastcall.kernel import procfs
from lastcall.model import Confidence, Finding, Severity
from lastcall.record import record
from lastcall.targets.process.condition import cgroups

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SYSTEMCTL_LIMIT_S = 1.0
_MOST_ANCESTORS = 32
_FRESH_S = 1.0
_ID_SHOWN = 12
_CONTAINER = re.compile(r"(?:(?P<tool>[a-z][a-z0-9-]*?)-)?(?P<id>[0-9a-f]{64})(?:\.scope)?")
_POD = re.compile(r"pod([0-9a-f]{8}(?:[-_]?[0-9a-f]{4}){3}[-_]?[0-9a-f]{12})(?:\.slice)?")
_USER_MANAGER = re.compile(r"user@(\d+)\.service")
_TOOLS = {"docker": "docker", "libpod": "podman", "nerdctl": "nerdctl"}
# The kernel's names of those that may be supervisors: the others' command lines need no reading.
_SUSPECTS = ("supervis", "circusd", "python", "pypy", "PM2 v", "node", "runsv", "s6-supervise")
_RESTARTS = {"always", "on-success"}
_RESTARTS_ON_FAILURE = {"on-failure", "on-abnormal", "on-abort", "on-watchdog"}


@record
class Keeper:
    """Something that keeps a program running.

    Args:
        who: what it is: "systemd", "Docker", "supervisord", ...
        what: what it calls the program: "the unit web.service".
        instead: how to stop the program so that it stays stopped.
        evidence: the facts this rests on.
        unit: the systemd unit, when it is one.
        user_id: the user whose own systemd runs that unit; None for the system's.
    """

    who: str
    what: str
    instead: str
    evidence: tuple[str, ...]
    unit: str = ""
    user_id: int | None = None


@record
class Kin:
    """What matters of a process above the target."""

    pid: int
    comm: str
    words: tuple[str, ...]
    environ: dict[str, str] = field(default_factory=dict)


# -- pure readers


@lru_cache
def by_cgroup(path: str) -> Keeper | None:
    """Who keeps what lives in this cgroup; None for a session, a bare scope, or nothing known."""
    parts = [part for part in path.split("/") if part]
    evidence = (f"its cgroup: {path}",)
    for index in reversed(range(len(parts))):
        match = _CONTAINER.fullmatch(parts[index])
        if match and not (match["tool"] or "").endswith("conmon"):
            return _container(match, parts[:index], evidence)
    for part in reversed(parts):
        if part.endswith(".service"):
            name = part.removeprefix("_")  # systemd's escape for names the kernel reserves
            manager = next((m for p in parts if (m := _USER_MANAGER.fullmatch(p))), None)
            own = manager is not None and part != manager[0]
            return Keeper(
                "systemd",
                f"the {'user ' if own else ''}unit {name}",
                f"systemctl {'--user ' if own else ''}stop {_quote(name)}",
                evidence,
                unit=name,
                user_id=int(manager[1]) if own and manager else None,
            )
    return None


def _container(match: re.Match[str], above: Sequence[str], evidence: tuple[str, ...]) -> Keeper:
    short = match["id"][:_ID_SHOWN]
    if any(part.startswith("kubepods") for part in above):
        pod = next((m[1].replace("_", "-") for p in reversed(above) if (m := _POD.search(p))), "")
        return Keeper(
            "Kubernetes",
            f"container {short} of pod {pod or 'unknown'}",
            "scale its workload down or delete the pod (kubectl get pods -A -o wide; its uid is "
            f"{pod or 'in the cgroup'})",
            evidence,
        )
    named = "docker" if above and above[-1] == "docker" else ""
    tool = _TOOLS.get(match["tool"] or "", named)
    if tool:
        name = {"docker": "Docker", "podman": "Podman"}.get(tool, tool)
        return Keeper(name, f"container {short}", f"{tool} stop {short}", evidence)
    return Keeper(
        "a container engine",
        f"container {short}",
        f"stop container {short} with the tool that runs it (docker, nerdctl, crictl)",
        evidence,
    )


def by_parent(parent: Kin, program: Kin) -> Keeper | None:
    """Whether `parent` is a supervisor, which then keeps `program`, its child."""
    evidence = (f"its parent {parent.pid}: {' '.join(parent.words)[:72].strip() or parent.comm}",)
    first = parent.words[0] if parent.words else ""
    names = {os.path.basename(word) for word in parent.words[:2]} | {parent.comm}
    if first.startswith("PM2 v") and "God Daemon" in first:
        return _pm2(program.environ, evidence)
    if "supervisord" in names:
        return _supervisord(program.environ, evidence)
    if "circusd" in names:
        return Keeper("circusd", "one of its watchers", "circusctl stop NAME", evidence)
    if len(parent.words) < 2:  # noqa: PLR2004 (these are told apart by the service they name)
        return None
    service = _quote(parent.words[1])
    if parent.comm == "runsv":
        return Keeper("runit", f"the service {service}", f"sv down {service}", evidence)
    if parent.comm == "s6-supervise":
        return Keeper("s6", f"the service {service}", f"s6-svc -d {service}", evidence)
    if parent.comm == "supervise":
        return Keeper("daemontools", f"the service {service}", f"svc -d {service}", evidence)
    return None


def _supervisord(environ: dict[str, str], evidence: tuple[str, ...]) -> Keeper:
    name, group = environ.get("SUPERVISOR_PROCESS_NAME"), environ.get("SUPERVISOR_GROUP_NAME")
    full = "" if name is None else name if group in {None, name} else f"{group}:{name}"
    if name is not None:
        evidence = (*evidence, f"its environment: SUPERVISOR_PROCESS_NAME={name}")
    url = environ.get("SUPERVISOR_SERVER_URL", "")
    usual = url in {"", "unix:///run/supervisor.sock", "unix:///var/run/supervisor.sock"}
    where = "" if usual else f"-s {_quote(url)} "
    return Keeper(
        "supervisord",
        f"the program {full}" if full else "one of its programs",
        f"supervisorctl {where}stop {_quote(full) if full else 'NAME'}",
        evidence,
    )


def _pm2(environ: dict[str, str], evidence: tuple[str, ...]) -> Keeper | None:
    settings: dict[str, object] = dict(environ)
    if "pm2_env" in environ:  # cluster mode packs everything in there
        import json

        try:
            packed = json.loads(environ["pm2_env"])
        except ValueError:
            packed = None
        settings = packed if isinstance(packed, dict) else settings
    if str(settings.get("autorestart", "true")).lower() == "false":
        return None
    name = str(settings.get("name") or settings.get("pm_id") or "")
    if "pm_id" in settings:
        evidence = (*evidence, f"its environment: pm_id={settings['pm_id']} name={name}")
    home = environ.get("PM2_HOME", "")
    usual = not home or home == os.path.join(environ.get("HOME", ""), ".pm2")
    where = "" if usual else f"PM2_HOME={_quote(home)} "
    return Keeper(
        "pm2",
        f"the app {name}" if name else "one of its apps",
        f"{where}pm2 stop {_quote(name) if name else 'NAME'}",
        evidence,
    )


def _quote(text: str) -> str:
    import shlex

    return shlex.quote(text)


# -- judgement


def judge(keeper: Keeper, pid: int, program: int | None, *, sure: bool = False) -> Finding:
    """What a keeper means for a stop of this process.

    Args:
        keeper: who keeps it.
        pid: the process that is to be stopped.
        program: the process that the keeper started; None when that is not known.
        sure: the keeper itself said that it will start it again.
    """
    if program == pid:
        return Finding(
            "will-restart",
            f"{keeper.who} will start it again: it is {keeper.what}",
            Severity.WARNING,
            Confidence.CERTAIN if sure else Confidence.LIKELY,
            keeper.evidence,
            f"stop this instead: {keeper.instead}",
        )
    above = () if program is None else (f"{keeper.who} started process {program}, not {pid}",)
    return Finding(
        "will-restart",
        f"it is a part of {keeper.what}, kept by {keeper.who}: another may be started in its place",
        Severity.NOTE,
        Confidence.POSSIBLE,
        (*keeper.evidence, *above),
        f"to end all of it: {keeper.instead}",
    )


def judge_unit(keeper: Keeper, pid: int, said: dict[str, str]) -> Finding | None:
    """What systemd's own answer means; None when it will not start the process again."""
    restart, main = said.get("Restart", ""), said.get("MainPID", "")
    program = int(main) if main.isdecimal() and int(main) else None
    told = (f"systemctl show {keeper.unit}: Restart={restart} MainPID={main}",)
    keeper = Keeper(keeper.who, keeper.what, keeper.instead, (*keeper.evidence, *told), keeper.unit)
    if restart in _RESTARTS:
        return judge(keeper, pid, program, sure=True)
    if restart in _RESTARTS_ON_FAILURE:
        if program != pid:
            return judge(keeper, pid, program)
        return Finding(
            "will-restart",
            f"systemd will start it again if it fails while it stops: it is {keeper.what}",
            Severity.NOTE,
            Confidence.POSSIBLE,
            keeper.evidence,
            f"stop this instead: {keeper.instead}",
        )
    return None


def parse_show(text: str) -> dict[str, str]:
    """Read what `systemctl show -p NAME ...` prints."""
    return {
        key: value for key, equals, value in (x.partition("=") for x in text.splitlines()) if equals
    }


# -- reading the machine

_ancestors: dict[int, tuple[float, procfs.Stat]] = {}


async def findings(pid: int) -> tuple[Finding, ...]:
    """Who would start the process again, surest first.

    Raises:
        ProcessLookupError: the process is gone.
    """
    found = [f for f in (_above(pid), await _around(pid)) if f is not None]
    strong = [f for f in found if f.severity is Severity.WARNING]
    # A supervisor inside a container: what restarts the process itself is what matters.
    return tuple(strong[:1] or found)


def _above(pid: int) -> Finding | None:
    """A supervisor among the processes above it."""
    try:
        child = procfs.stat(pid)
        for _ in range(_MOST_ANCESTORS):
            if not child.ppid:
                break
            above = _ancestor(child.ppid)
            if above.comm.startswith(_SUSPECTS):
                parent = Kin(above.pid, above.comm, tuple(procfs.cmdline(above.pid)))
                if by_parent(parent, Kin(child.pid, "", ())) is not None:
                    keeper = by_parent(parent, Kin(child.pid, "", (), _environ(child.pid)))
                    return judge(keeper, pid, child.pid) if keeper is not None else None
            child = above
    except (ProcessLookupError, PermissionError):
        procfs.stat(pid)  # only the process itself being gone is an error
    return None


def _ancestor(pid: int) -> procfs.Stat:
    """Its stat, not older than `_FRESH_S`: a thousand workers have the same few above them."""
    now_s = time.monotonic()
    read_s, entry = _ancestors.get(pid, (0.0, None))
    if entry is None or now_s - read_s > _FRESH_S:
        entry = procfs.stat(pid)
        _ancestors[pid] = now_s, entry
    return entry


def _environ(pid: int) -> dict[str, str]:
    try:
        return procfs.environ(pid)
    except (ProcessLookupError, PermissionError):
        return {}


async def _around(pid: int) -> Finding | None:
    """A unit or a container that the process lives in."""
    paths = cgroups(pid)
    keeper, place = _first_keeper(paths)
    if keeper is None:
        return None
    parent = procfs.stat(pid).ppid
    topmost = parent == 0 or _cgroup_or_none(parent, place) != paths[place]
    if not topmost and _cgroup_or_none(os.getpid(), place) == paths[place]:
        return None  # we live in there ourselves: who runs us knows it
    if keeper.unit and (said := await _ask_systemd(keeper)):
        return judge_unit(keeper, pid, said)
    inner = procfs.status(pid).get("NSpid", "").split()
    if len(inner) > 1 and inner[-1] != "1":
        topmost = False  # started into a running container (`docker exec`), or below its init
    return judge(keeper, pid, pid if topmost else None)


def _first_keeper(paths: Mapping[str, str]) -> tuple[Keeper | None, str]:
    usual = [place for place in ("name=systemd", "") if place in paths]
    for place in [*usual, *(p for p in sorted(paths) if p not in usual)]:
        if (keeper := by_cgroup(paths[place])) is not None:
            return keeper, place
    return None, ""


def _cgroup_or_none(pid: int, place: str) -> str | None:
    try:
        return cgroups(pid).get(place)
    except (ProcessLookupError, PermissionError):
        return None


async def _ask_systemd(keeper: Keeper) -> dict[str, str]:
    """What the running systemd says of the unit; nothing when there is none or it is too slow."""
    if keeper.user_id is None and not _booted_with_systemd():
        return {}
    if keeper.user_id not in {None, os.getuid()}:
        return {}
    import asyncio

    user = [] if keeper.user_id is None else ["--user"]
    command = ["systemctl", *user, "show", "-p", "Restart", "-p", "MainPID", "--", keeper.unit]
    return parse_show(await asyncio.to_thread(_output, command))


def _booted_with_systemd() -> bool:
    """As sd_booted(3) tells it."""
    return os.path.isdir("/run/systemd/system")


def _output(command: list[str]) -> str:
    import subprocess

    try:
        done = subprocess.run(
            command, capture_output=True, timeout=SYSTEMCTL_LIMIT_S, check=False, text=True
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
