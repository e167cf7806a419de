"""`lastcall stop` through the command line, on real processes: endings, messages, exit codes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cli.commands import COMMAND, environment, lastcall
from helpers import python, victim
from lastcall.kernel import procfs
from lastcall.targets.process import sockets

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("deed", "options", "code", "ending", "status"),
    [
        (["exit", "0"], [], 0, "orderly", 0),
        (["exit", "143", "0.1"], [], 0, "orderly", 143),
        (["reraise"], [], 0, "orderly", -15),
        (["exit", "0"], ["--signal", "INT"], 0, "orderly", 0),
        (["exit", "0"], ["--signal", "2"], 0, "orderly", 0),
        (["careless"], [], 10, "abrupt", -15),
        (["exit", "3"], [], 13, "crashed", 3),
        (["segfault"], [], 13, "crashed", -11),
        (["ignore"], ["--grace", "0.3", "--force"], 11, "forced", -9),
        (["exit", "0"], ["--grace", "0s", "--force"], 0, "orderly", 0),
    ],
)
def test_each_ending(
    tmp_path: Path, deed: list[str], options: list[str], code: int, ending: str, status: int
) -> None:
    """The ending, the exit code, and what the parent saw agree; the journal keeps the same."""
    with victim(*python("worker.py", *deed)) as child:
        said = lastcall(tmp_path, "stop", f"pid:{child.pid}", *options)
        assert (said.code, said.last.split(":")[0]) == (code, ending), said
        assert child.wait() == status
    [row] = lastcall(tmp_path, "log", "--json").messages
    assert (row["ending"], row["target"]) == (ending, f"pid:{child.pid}")


def test_left_alone_without_consent(tmp_path: Path) -> None:
    """The grace runs out: it is left, it lives, and the exit code says so."""
    with victim(*python("worker.py", "ignore")) as child:
        said = lastcall(tmp_path, "stop", f"pid:{child.pid}", "--grace", "300ms")
        assert (said.code, said.last.split(":")[0]) == (20, "still running")
        assert child.child.poll() is None


def test_killed_from_outside(tmp_path: Path) -> None:
    """Somebody else's SIGKILL during the grace is not ours, and not orderly."""
    with victim(*python("worker.py", "ignore")) as child:
        stop = subprocess.Popen(
            [*COMMAND, "stop", f"pid:{child.pid}"],
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.line().startswith("heard SIGTERM")
        child.child.kill()
        out, _ = stop.communicate(timeout=30)
        assert (stop.returncode, out.splitlines()[-1].split(":")[0]) == (12, "killed from outside")


def test_nothing_to_stop(tmp_path: Path) -> None:
    """A process that is gone: code 3, and the message names it."""
    with victim("sh", "-c", "echo ready") as child:
        child.wait()
        said = lastcall(tmp_path, "stop", f"pid:{child.pid}")
    assert (said.code, said.err) == (3, f"lastcall: no process {child.pid} is running\n")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["4242"], "did you mean pid:4242 or port:4242 ?"),
        (["nginx"], "did you mean name:nginx ?"),
        (["run/vm.sock"], "qmp:run/vm.sock ?"),
        (["pid:"], "names nothing"),
        (["pid:-1"], "pids go from 1"),
        (["vm:x"], "known kinds"),
        (["localhost:8080"], "did you mean port:8080 ?"),
        (["PID:5"], "did you mean pid:5 ?"),
        (["pid:1", "--children", "first"], "add --tree"),
        (["pid:1", "--signals", ""], "names no signal"),
        (["pid:1", "--extend-up-to", "1s"], "ceiling"),
        (["pid:1", "--signals", "INT:5s,TERM", "--grace", "3"], "before the last signal"),
        (["pid:1", "--gracee", "5"], "see: lastcall"),
        (["pid:1", "--grace", "soon"], "'soon' is not a length of time"),
        (["pid:1", "--signal", "TREM"], "TERM"),
        (["pid:1", "--signal", "KILL"], "--force"),
        (["pid:1", "--signals", "INT:5s,,TERM"], "signal"),
        (["pid:1", "--policy", "/nowhere/policy.toml"], "cannot be read"),
        (["pid:1", "--grace", "30s", "--extend-up-to", "10s"], "ceiling"),
    ],
)
def test_bad_usage(tmp_path: Path, words: list[str], what: str) -> None:
    """A mistake of the caller: code 2, and the message helps; nothing is recorded."""
    said = lastcall(tmp_path, "stop", *words)
    assert (said.code, what in said.err) == (2, True), said
    assert "Traceback" not in said.err
    assert not (tmp_path / "journal.db").exists()


def test_one_bad_address_stops_nobody(tmp_path: Path) -> None:
    """A typo among several targets: nothing is asked at all."""
    with victim(*python("worker.py", "exit", "0")) as child:
        assert lastcall(tmp_path, "stop", f"pid:{child.pid}", "prot:80").code == 2
        assert child.child.poll() is None


def test_refusals(tmp_path: Path) -> None:
    """Pid 1 and our ancestors are refused; the message names the switch."""
    for target, switch in (("pid:1", "--allow init"), (f"pid:{os.getpid()}", "--allow ancestor")):
        said = lastcall(tmp_path, "stop", target)
        assert (said.code, switch in said.err) == (5, True), said


def test_several_targets(tmp_path: Path) -> None:
    """Side by side, one result line each as it comes, the gravest code."""
    with (
        victim(*python("worker.py", "exit", "0", "0.3")) as slow,
        victim(*python("worker.py", "careless")) as careless,
        victim(*python("worker.py", "ignore")) as deaf,
    ):
        targets = [f"pid:{v.pid}" for v in (slow, careless, deaf)]
        said = lastcall(tmp_path, "stop", *targets, targets[0], "--grace", "0.6")
        lines = [line.split(": ")[:2] for line in said.out.splitlines() if "  [stop " in line]
        assert said.code == 20
        assert lines == [
            ["abrupt", targets[1]],
            ["orderly", targets[0]],
            ["still running", targets[2]],
        ]


def test_json(tmp_path: Path) -> None:
    """One object a line; the last of a target is its result, with the same code as the command."""
    with victim(*python("worker.py", "exit", "0")) as child:
        said = lastcall(tmp_path, "stop", f"pid:{child.pid}", "name:no-such-program", "--json")
    assert said.code == 3
    events = [message["event"] for message in said.messages]
    assert events == [
        "result", "started", "intended", "asked", "ended", "finished", "result",
    ]  # fmt: skip
    *_, result = said.messages
    assert (result["ending"], result["exit_code"], result["stop"]) == ("orderly", 0, 1)
    assert said.messages[0]["error"]["code"] == "not-running"


def test_json_error(tmp_path: Path) -> None:
    """A mistake of the caller is an object as well."""
    said = lastcall(tmp_path, "stop", "nginx", "--json")
    [message] = said.messages
    assert (said.code, message["event"], message["code"]) == (2, "error", "bad-address")


def test_quiet(tmp_path: Path) -> None:
    """Nothing but the exit code."""
    with victim(*python("worker.py", "careless")) as child:
        said = lastcall(tmp_path, "stop", "--quiet", f"pid:{child.pid}")
    assert (said.code, said.out, said.err) == (10, "", "")


def test_sequence(tmp_path: Path) -> None:
    """INT, and after its time TERM; the program hears both, in this order."""
    with victim(*python("worker.py", "ignore")) as child:
        words = ["--signals", "INT:0.2s,TERM:0.3s", "--force"]
        said = lastcall(tmp_path, "stop", f"pid:{child.pid}", *words)
        heard = [child.line().split(" (")[0] for _ in range(2)]
    assert (said.code, heard) == (11, ["heard SIGINT", "heard SIGTERM"])


@pytest.mark.parametrize("order", ["last", "first"])
def test_tree(tmp_path: Path, order: str) -> None:
    """Parent and child are asked one after the other, in the order that was chosen."""
    with victim(*python("worker.py", "--child", "exit", "0", "0.2")) as child:
        assert child.line().startswith("ready")
        below = [p for p in procfs.family(child.pid) if p != child.pid]
        words = ["--tree", f"pid:{child.pid}", "--children", order, "--json"]
        stop = lastcall(tmp_path, "stop", *words)
        handles = [m for m in stop.messages if m["event"] == "asked"]
        asked = [int(m["data"]["detail"].split("pid ")[1]) for m in handles]
    assert stop.code == 0, stop.out
    assert asked == ([child.pid, *below] if order == "last" else [*below, child.pid])


@pytest.mark.parametrize("order", ["last", "first"])
def test_tree_of_one(tmp_path: Path, order: str) -> None:
    """Nobody is below it: it is asked at once all the same, whoever would come first."""
    with victim(*python("worker.py", "exit", "0")) as child:
        said = lastcall(tmp_path, "stop", f"pid:{child.pid}", "--tree", "--children", order)
        assert said.code == 0, said
        assert child.wait() == 0


def test_a_second_ask_that_kills_is_abrupt(tmp_path: Path) -> None:
    """Its handler put the default back at the first ask: the second one takes its work away."""
    with victim(*python("worker.py", "once")) as child:
        said = lastcall(tmp_path, "stop", f"pid:{child.pid}", "--signals", "TERM:200ms,TERM")
        assert (said.code, said.last.split(":")[0]) == (10, "abrupt"), said
        assert child.wait() == -signal.SIGTERM


def test_a_process_without_its_main_thread_lives(tmp_path: Path) -> None:
    """It looks like a zombie and is none: that is not claimed, and it is stopped."""
    with victim(*python("worker.py", "headless")) as child:
        said = lastcall(tmp_path, "stop", f"pid:{child.pid}", "--grace", "0.2", "--force", "--json")
        begun = said.messages[0]["data"]["findings"]
        assert "zombie" not in [finding["code"] for finding in begun]
        assert said.code == 11, said
        assert child.wait() == -signal.SIGKILL


def test_an_ignored_hangup_stays_ignored(tmp_path: Path) -> None:
    """Under `nohup` it goes on watching when the terminal goes away."""
    with victim(*python("worker.py", "ignore")) as child:
        words = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *COMMAND, "stop", f"pid:{child.pid}"]
        stop = subprocess.Popen(words, env=environment(tmp_path), stdout=subprocess.DEVNULL)
        assert child.line().startswith("heard SIGTERM")
        stop.send_signal(signal.SIGHUP)
        child.child.kill()
        assert stop.wait(30) == 12


def test_an_output_that_knows_only_ascii(tmp_path: Path) -> None:
    """A name that it cannot show is written in escapes, and the target is stopped."""
    with victim(*python("worker.py", "exit", "0", "0", "schläft")) as child:
        done = subprocess.run(
            [*COMMAND, "stop", f"pid:{child.pid}"],
            env=environment(tmp_path, PYTHONIOENCODING="ascii"),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, "schl\\xe4ft" in done.stdout) == (0, True), done


def test_children_left_behind_are_named(tmp_path: Path) -> None:
    """Without --tree the child lives on, and the result says so."""
    with victim(*python("worker.py", "--child", "exit", "0")) as child:
        assert child.line().startswith("ready")
        [below] = [p for p in procfs.family(child.pid) if p != child.pid]
        said = lastcall(tmp_path, "stop", f"pid:{child.pid}")
        try:
            assert said.code == 0
            assert f"lastcall stop pid:{below}" in said.out
        finally:
            os.kill(below, signal.SIGKILL)


def test_group(tmp_path: Path) -> None:
    """A whole process group, which outlives its leader, ends; the gravest member decides."""
    with victim(*python("worker.py", "--child", "exit", "0", "0.2")) as child:
        assert child.line().startswith("ready")
        below = [p for p in procfs.family(child.pid) if p != child.pid]
        said = lastcall(tmp_path, "stop", f"pid:{child.pid}", "--group")
        assert said.code == 0, said.out
        assert below
        assert not [p for p in below if _lives(p)]


def _lives(pid: int) -> bool:
    """Whether it runs; an orphan that init has not reaped yet does not."""
    try:
        return procfs.stat(pid).state not in "ZX"
    except ProcessLookupError:
        return False


def test_a_group_is_asked_once(tmp_path: Path) -> None:
    """Two addresses of one group: each member hears one signal."""
    with victim(*python("worker.py", "--child", "ignore")) as child:
        assert child.line().startswith("ready")
        [below] = procfs.family(child.pid)[1:]
        words = [f"pid:{child.pid}", f"pid:{below}", "--group", "--grace", "0.3", "--force"]
        assert lastcall(tmp_path, "stop", *words).code == 11
        heard = [line for line in child.out if line.startswith("heard")]
    assert len(heard) == 2


def test_a_wider_stop_that_joins_goes_on_with_the_rest(tmp_path: Path) -> None:
    """`--tree` joins a stop of the process alone: when that is over, its child is asked too."""
    with victim(*python("worker.py", "--child", "exit", "0", "0.7")) as child:
        assert child.line().startswith("ready")
        [below] = procfs.family(child.pid)[1:]
        words = [*COMMAND, "stop", "-q", f"pid:{child.pid}"]
        with subprocess.Popen(words, env=environment(tmp_path)) as first:
            assert child.line().startswith("heard SIGTERM")
            said = lastcall(tmp_path, "stop", f"pid:{child.pid}", "--tree")
            assert first.wait(30) == 0
        assert "stops this already" in said.out
        assert said.code == 0, said
        assert not _lives(below)


def test_own_group_is_refused(tmp_path: Path) -> None:
    """A group that holds this command itself is not stopped."""
    with victim(*python("worker.py", "exit", "0"), own_session=False) as child:
        said = lastcall(tmp_path, "stop", f"pid:{child.pid}", "--group")
        assert (said.code, "setsid" in said.err) == (5, True), said
        assert child.child.poll() is None


def test_a_reader_that_goes_away_loses_nothing(tmp_path: Path) -> None:
    """`lastcall stop ... | head -1`: the pipe breaks, the stop goes on to its end."""
    with victim(*python("worker.py", "exit", "0", "0.4")) as child:
        stop = subprocess.Popen(
            [*COMMAND, "stop", f"pid:{child.pid}"],
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
        )
        assert stop.stdout is not None
        stop.stdout.close()
        assert child.wait() == 0
        stop.wait(30)
    [row] = lastcall(tmp_path, "log", "--json").messages
    assert row["ending"] == "orderly"


@pytest.mark.parametrize("where", [">/dev/full", ">&-", "<&- >&- 2>&-"])
def test_output_that_cannot_be_written_loses_nothing(tmp_path: Path, where: str) -> None:
    """A full disk or a closed output: the target is stopped all the same, and recorded."""
    with victim(*python("worker.py", "exit", "0")) as child:
        command = f'exec "$@" {where}'
        words = ["sh", "-c", command, "sh", *COMMAND, "stop", f"pid:{child.pid}"]
        env = environment(tmp_path)
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
        assert child.wait() == 0
    assert "Traceback" not in done.stderr
    assert done.returncode == 0
    [row] = lastcall(tmp_path, "log", "--json").messages
    assert row["ending"] == "orderly"


def test_log_says_that_it_cannot_write(tmp_path: Path) -> None:
    """One plain line, and not code 0."""
    with victim(*python("worker.py", "exit", "0")) as child:
        lastcall(tmp_path, "stop", f"pid:{child.pid}")
    words = ["sh", "-c", 'exec "$@" >/dev/full', "sh", *COMMAND, "log"]
    done = subprocess.run(
        words, env=environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "lastcall: the output cannot be written: No space left on device\n"


def test_a_tree_names_who_ended_how(tmp_path: Path) -> None:
    """The gravest member decides, and each is told apart; `check --tree` says so beforehand."""
    program = "import signal, subprocess, sys; subprocess.Popen(['sleep', '60'])\n"
    program += "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
    program += "print('ready', flush=True)\nsignal.pause()"
    with victim(sys.executable, "-c", program) as child:
        [below] = procfs.family(child.pid)[1:]
        check = lastcall(tmp_path, "check", f"pid:{child.pid}", "--tree")
        assert (check.code, f"pid {below} (sleep 60): SIGTERM" in check.out) == (6, True), check
        said = lastcall(tmp_path, "stop", f"pid:{child.pid}", "--tree")
    assert said.code == 10
    assert f"pid {below}: died of SIGTERM" in said.last
    assert f"pid {child.pid}: exit status 0" in said.last


def test_policy_file(tmp_path: Path) -> None:
    """Grace, force and its reason from a file; force without a reason is refused."""
    policy = tmp_path / "policy.toml"
    policy.write_text('[stop]\ngrace = "200ms"\nforce = true\nreason = "nightly"\n')
    with victim(*python("worker.py", "ignore")) as child:
        said = lastcall(tmp_path, "stop", f"pid:{child.pid}", "--policy", str(policy))
    assert (said.code, "force allowed: nightly" in said.out) == (11, True)
    policy.write_text('[stop]\ngrace = "200ms"\nforce = true\n')
    words = ("--policy", str(policy), "--reason", "because")
    with victim(*python("worker.py", "ignore")) as child:
        said = lastcall(tmp_path, "stop", f"pid:{child.pid}", *words)
    assert (said.code, "force allowed: because" in said.out) == (11, True)
    said = lastcall(tmp_path, "stop", "pid:1", "--policy", str(policy))
    assert (said.code, "no stated reason" in said.err) == (2, True)


def test_port_of_a_server_with_slow_requests(tmp_path: Path) -> None:
    """A real uvicorn: its three open requests are what it waits for, and nothing else is."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(victim(*python("net_uvicorn.py")))
        [listener] = sockets.listening_of([server.pid])
        port = listener.local.port
        for path in ("/slow", "/slow", "/slow", "/idle"):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert server.line() == "slow" if path == "/slow" else client.recv(4096)
        said = lastcall(tmp_path, "stop", f"port:{port}", "--grace", "1.5")
        assert said.code == 20
        assert f"3 requests in flight on port {port}" in said.out
        in_flight = [line for line in said.out.splitlines() if "request in flight, " in line]
        assert len(in_flight) % 3 == 0
        assert in_flight
