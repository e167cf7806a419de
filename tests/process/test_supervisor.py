"""Who would start a process again: a real supervisord, a real pm2, cgroups real and by name."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cgroups import any_hierarchy, cgroup_of
from helpers import PROGRAMS, python, victim, wait_until
from lastcall.kernel import procfs
from lastcall.model import Confidence, Finding, Severity
from lastcall.targets.process.before import supervisor
from lastcall.targets.process.before.supervisor import Kin, by_cgroup, by_parent, judge_unit
from runtimes import BUILD, program

if TYPE_CHECKING:
    from collections.abc import Iterator

ID = "0123456789abcdef" * 4
SHORT = ID[:12]
POD = "6a1c7b2e-5d0f-4e6b-9a57-0c7a5b1f2d3e"


def findings(pid: int) -> tuple[Finding, ...]:
    """Who would start this process again."""
    return asyncio.run(supervisor.findings(pid))


# -- cgroup names


@pytest.mark.parametrize(
    ("path", "who", "instead"),
    [
        ("/system.slice/web.service", "systemd", "systemctl stop web.service"),
        ("/system.slice/web.service/payload", "systemd", "systemctl stop web.service"),
        (
            "/system.slice/system-web.slice/web@1.service",
            "systemd",
            "systemctl stop web@1.service",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/sync.service",
            "systemd",
            "systemctl --user stop sync.service",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/init.scope",
            "systemd",
            "systemctl stop user@1000.service",
        ),
        (r"/system.slice/my\x2dweb.service", "systemd", r"systemctl stop 'my\x2dweb.service'"),
        (f"/system.slice/docker-{ID}.scope", "Docker", f"docker stop {SHORT}"),
        (f"/docker/{ID}", "Docker", f"docker stop {SHORT}"),
        (f"/../../docker/{ID}/inner", "Docker", f"docker stop {SHORT}"),
        (f"/machine.slice/libpod-{ID}.scope/container", "Podman", f"podman stop {SHORT}"),
        (f"/system.slice/nerdctl-{ID}.scope", "nerdctl", f"nerdctl stop {SHORT}"),
        (f"/default/{ID}", "a container engine", f"stop container {SHORT}"),
        (f"/kubepods/burstable/pod{POD}/{ID}", "Kubernetes", POD),
        (
            f"/kubepods.slice/kubepods-burstable-pod{POD.replace('-', '_')}.slice/crio-{ID}.scope",
            "Kubernetes",
            POD,
        ),
    ],
)
def test_a_cgroup_names_its_keeper(path: str, who: str, instead: str) -> None:
    """Units, containers and pods are known by their cgroup, and what to stop is said."""
    keeper = by_cgroup(path)
    assert keeper is not None
    assert keeper.who == who
    assert instead in keeper.instead


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "/user.slice/user-1000.slice/session-3.scope",
        "/init.scope",
        f"/machine.slice/libpod-conmon-{ID}.scope",
        "/docker/notanid",
        "/my.service.d/x",
    ],
)
def test_a_cgroup_that_keeps_nothing(path: str) -> None:
    """A login session, a bare scope, a container's monitor: nobody starts these again."""
    assert by_cgroup(path) is None


def test_a_user_unit_belongs_to_its_user() -> None:
    """The unit of a user's own systemd carries whose it is."""
    keeper = by_cgroup("/user.slice/user-7.slice/user@7.service/app.slice/sync.service")
    assert keeper is not None
    assert (keeper.unit, keeper.user_id) == ("sync.service", 7)


# -- what systemd says


@pytest.mark.parametrize(
    ("said", "severity", "confidence"),
    [
        ("Restart=always\nMainPID=42\n", Severity.WARNING, Confidence.CERTAIN),
        ("MainPID=42\nRestart=on-success\n", Severity.WARNING, Confidence.CERTAIN),
        ("Restart=always\nMainPID=41\n", Severity.NOTE, Confidence.POSSIBLE),
        ("Restart=on-failure\nMainPID=42\n", Severity.NOTE, Confidence.POSSIBLE),
        ("Restart=on-abnormal\nMainPID=41\n", Severity.NOTE, Confidence.POSSIBLE),
        ("Restart=always\nMainPID=0\n", Severity.NOTE, Confidence.POSSIBLE),
        ("Restart=no\nMainPID=42\n", None, None),
        ("garbage", None, None),
    ],
)
def test_systemd_itself_says_whether_it_restarts(
    said: str, severity: Severity | None, confidence: Confidence | None
) -> None:
    """Its own answer makes it certain, unlikely or nothing at all."""
    keeper = by_cgroup("/system.slice/web.service")
    assert keeper is not None
    found = judge_unit(keeper, 42, supervisor.parse_show(said))
    assert (found and found.severity, found and found.confidence) == (severity, confidence)


# -- parents


@pytest.mark.parametrize(
    ("comm", "words", "instead"),
    [
        ("runsv", ("runsv", "web"), "sv down web"),
        ("s6-supervise", ("s6-supervise", "web"), "s6-svc -d web"),
        ("supervise", ("supervise", "web"), "svc -d web"),
        ("circusd", ("python3", "/usr/bin/circusd", "c.ini"), "circusctl stop"),
    ],
)
def test_a_parent_is_known_by_its_command(comm: str, words: tuple[str, ...], instead: str) -> None:
    """Supervisors with one process a service are told by their command line."""
    keeper = by_parent(Kin(7, comm, words), Kin(8, "web", ("web",)))
    assert keeper is not None
    assert instead in keeper.instead


@pytest.mark.parametrize(
    ("comm", "words"),
    [("bash", ("bash",)), ("runsv", ("runsv",)), ("vim", ("vim", "notes")), ("kthreadd", ())],
)
def test_an_ordinary_parent_keeps_nothing(comm: str, words: tuple[str, ...]) -> None:
    """What is no supervisor is not taken for one."""
    assert by_parent(Kin(7, comm, words), Kin(8, "web", ("web",))) is None


def test_a_supervisors_program_is_named_with_its_group_and_server() -> None:
    """The command in the advice works as it stands: group, name, and where the server listens."""
    environ = {
        "SUPERVISOR_PROCESS_NAME": "web_00",
        "SUPERVISOR_GROUP_NAME": "web",
        "SUPERVISOR_SERVER_URL": "unix:///tmp/my sock",
    }
    parent = Kin(7, "supervisord", ("/usr/bin/python3", "/usr/bin/supervisord"))
    keeper = by_parent(parent, Kin(8, "web", ("web",), environ))
    assert keeper is not None
    assert keeper.instead == "supervisorctl -s 'unix:///tmp/my sock' stop web:web_00"


def test_pm2_that_does_not_restart_is_no_keeper() -> None:
    """An app with autorestart off stays down, in either mode; broken settings are no error."""
    god = Kin(7, "PM2 v7", ("PM2 v7.0.4: God Daemon (/home/me/.pm2)",))
    assert by_parent(god, Kin(8, "", (), {"autorestart": "false", "name": "x"})) is None
    assert by_parent(god, Kin(8, "", (), {"pm2_env": '{"autorestart": false}'})) is None
    kept = by_parent(god, Kin(8, "", (), {"pm2_env": "{broken", "PM2_HOME": "/x"}))
    assert kept is not None
    assert kept.instead == "PM2_HOME=/x pm2 stop NAME"


# -- the real ones


@contextlib.contextmanager
def supervisord(tmp_path: Path, command: str) -> Iterator[list[str]]:
    """A real supervisord that keeps one program; gives the supervisorctl command."""
    conf = tmp_path / "supervisord.conf"
    conf.write_text(
        f"""
[unix_http_server]
file={tmp_path}/s.sock
[supervisord]
nodaemon=true
logfile={tmp_path}/log
pidfile={tmp_path}/pid
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{tmp_path}/s.sock
[program:web]
command={command}
startsecs=0
autorestart=true
stopasgroup=true
killasgroup=true
""",
        encoding="utf-8",
    )
    # The tests' own environment must not pass for the one that supervisord gives.
    env = {k: v for k, v in os.environ.items() if not k.startswith("SUPERVISOR_")}
    binary = Path(sys.executable).parent / "supervisord"
    assert binary.exists(), "supervisord is missing: install the dev group (pip: supervisor)"
    with victim(str(binary), "-c", str(conf), ready="", env=env) as process:
        try:
            yield [str(binary.with_name("supervisorctl")), "-c", str(conf)]
        finally:
            process.child.terminate()
            process.wait()


def running(ctl: list[str], name: str) -> int:
    """The pid of a program that supervisord runs; waits for it."""
    pid = 0

    def known() -> bool:
        nonlocal pid
        said = subprocess.run([*ctl, "pid", name], capture_output=True, text=True, check=False)
        pid = int(said.stdout) if said.stdout.strip().isdecimal() else 0
        return pid > 0

    wait_until(known, f"supervisord runs {name}")
    wait_until(lambda: "supervisord" not in " ".join(procfs.cmdline(pid)), "it runs its program")
    return pid


def test_supervisord_starts_it_again(tmp_path: Path) -> None:
    """The finding says so, its advice stops it for good, and without that it does come again."""
    with supervisord(tmp_path, " ".join(python("sig_modes.py", "handler"))) as ctl:
        pid = running(ctl, "web")
        (found,) = findings(pid)
        assert (found.severity, found.confidence) == (Severity.WARNING, Confidence.LIKELY)
        assert "supervisord will start it again" in found.title
        os.kill(pid, 15)
        wait_until(lambda: running(ctl, "web") != pid, "another one was started")
        advice = found.advice.partition(": ")[2].split()
        assert advice[0] == "supervisorctl"
        subprocess.run([ctl[0], *advice[1:]], check=True, capture_output=True, timeout=60)
        said = subprocess.run([*ctl, "status", "web"], capture_output=True, text=True, check=False)
        assert "STOPPED" in said.stdout


def test_a_grandchild_of_supervisord_is_not_its_program(tmp_path: Path) -> None:
    """What runs below a kept program inherits its environment, and is still only a part of it."""
    script = PROGRAMS / "sig_shell.sh"
    with supervisord(tmp_path, f"sh {script} {sys.executable}") as ctl:
        pid = running(ctl, "web")
        wait_until(lambda: bool(procfs.children(pid)), "the shell has its child")
        child = procfs.children(pid)[0]
        (found,) = findings(child)
        (own,) = findings(pid)
    assert own.severity is Severity.WARNING
    assert (found.severity, found.confidence) == (Severity.NOTE, Confidence.POSSIBLE)
    assert f"supervisord started process {pid}, not {child}" in found.evidence


def test_an_inherited_environment_alone_says_nothing() -> None:
    """A program that merely carries the variables, with nobody above it, is kept by nobody."""
    env = {**os.environ, "SUPERVISOR_PROCESS_NAME": "web", "pm_id": "0", "INVOCATION_ID": "x"}
    with victim(*python("sig_modes.py", "plain"), env=env) as process:
        assert all("web" not in found.title for found in findings(process.pid))


def pm2_program() -> str:
    """A real pm2, installed once in the build folder from the versions pinned in the tests."""
    folder, pins = BUILD / "pm2", PROGRAMS / "pm2"
    lock = (pins / "package-lock.json").read_text(encoding="utf-8")
    done = folder / "installed"
    if not done.exists() or done.read_text(encoding="utf-8") != lock:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(pins / name, folder / name)
        quiet = ["--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund"]
        said = subprocess.run(
            [program("npm"), "ci", *quiet], cwd=folder, capture_output=True, text=True, check=False
        )
        assert said.returncode == 0, f"npm package pm2 could not be installed:\n{said.stderr}"
        done.write_text(lock, encoding="utf-8")
    return str(folder / "node_modules" / "pm2" / "bin" / "pm2")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", ["fork", "cluster"])
def test_pm2_starts_it_again(tmp_path: Path, mode: str) -> None:
    """A real pm2 in both of its modes: found, named, and the advice stops it for good."""
    env = {**os.environ, "PM2_HOME": str(tmp_path)}

    def pm2(*words: str) -> str:
        command = [program("node"), pm2_program(), *words]
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, check=True, timeout=100
        )
        return done.stdout.strip()

    def pid_now() -> int:
        said = pm2("pid", "web").splitlines()[-1]
        return int(said) if said.isdecimal() else 0

    try:
        extra = ["-i", "1"] if mode == "cluster" else []
        pm2("start", str(PROGRAMS / "sig_node.js"), "--name", "web", *extra)
        pid = pid_now()
        (found,) = findings(pid)
        assert (found.severity, found.confidence) == (Severity.WARNING, Confidence.LIKELY)
        assert found.title == "pm2 will start it again: it is the app web"
        os.kill(pid, 15)
        wait_until(lambda: pid_now() not in {0, pid}, "another one was started")
        assert found.advice.endswith(f"PM2_HOME={tmp_path} pm2 stop web")
        pm2("stop", "web")
        assert pid_now() == 0
    finally:
        pm2("kill")


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("system.slice/lastcall-test-{}.service", "systemctl stop lastcall-test-{}.service"),
        (f"docker/{ID}", f"docker stop {SHORT}"),
    ],
)
def test_a_real_cgroup_is_seen(name: str, advice: str) -> None:
    """A process in the cgroup of a unit or a container is kept; its own child is a part of it."""
    name, advice = name.format(os.getpid()), advice.format(os.getpid())
    script = str(PROGRAMS / "sig_shell.sh")
    with (
        victim("sh", script, sys.executable) as process,
        cgroup_of(any_hierarchy(), name, process.pid) as folder,
    ):
        child = procfs.children(process.pid)[0]
        (folder / "cgroup.procs").write_text(str(child), encoding="ascii")
        (top,) = findings(process.pid)
        (part,) = findings(child)
        os.kill(child, 9)
    assert (top.code, top.severity, top.confidence) == (
        "will-restart",
        Severity.WARNING,
        Confidence.LIKELY,
    )
    assert advice in top.advice
    assert (part.severity, part.confidence) == (Severity.NOTE, Confidence.POSSIBLE)


def test_systemctl_that_is_missing_or_slow_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asking systemd has a limit of its own, and no answer is no error."""
    monkeypatch.setattr(supervisor, "SYSTEMCTL_LIMIT_S", 0.2)
    assert supervisor._output([str(tmp_path / "missing")]) == ""
    assert supervisor._output(["sleep", "60"]) == ""
    assert supervisor._output(["false"]) == ""
    assert supervisor._output(["echo", "Restart=no"]) == "Restart=no\n"
