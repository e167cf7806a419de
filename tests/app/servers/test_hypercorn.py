"""hypercorn, drained: real servers, and whole drills."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from app.servers.manager_stage import manager
from app.servers.workers_stage import drilled, free_port, shop
from drill.experiments import bad, told
from helpers import PATIENCE_S, wait_until
from lastcall.app.lifecycle import Lifecycle
from lastcall.app.servers import hypercorn
from lastcall.app.servers.parents import Wishes, code_of
from lastcall.drill.how import How, To
from lastcall.drill.judge import Verdict
from lastcall.errors import BadPolicy, Unsupported

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = ("-P", "-m", "lastcall.app.servers.hypercorn", "-b", "127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("more", "how"),
    [
        (("-w", "0"), How()),
        (("-w", "2"), How(to=To.GROUP)),
        (("-w", "2"), How(again_s=0.3)),
    ],
)
def test_it_keeps_its_word(more: tuple[str, ...], how: How) -> None:
    """Every state of a connection in one stop: nothing is lost, and it dies of the signal."""
    result = drilled("hypercorn", *more, how=how)
    assert not bad(result), told(result)
    assert result.judgement.verdict is Verdict.KEEPS, told(result)
    assert result.aftermath.status == signal.SIGTERM  # as waitpid(2) tells it


def test_the_order_of_the_end(tmp_path: Path) -> None:
    """READY=1 of the parent; the request ends, then the lifespan, then the application's hooks."""
    path = tmp_path / "notify"
    more = ("-w", "2", "shop:app")
    with (
        manager(path) as service,
        shop(tmp_path, *COMMAND, *more, serves=False, NOTIFY_SOCKET=str(path)) as server,
    ):
        assert service.hear() == (server.child.pid, ["READY=1", f"MAINPID={server.child.pid}"])
        assert server.words().count("startup") == 2
        connection = server.ask("/draining")
        server.heard("begun")
        server.tell()
        answer = connection.getresponse()
        assert answer.getheader("connection") == "close"
        pid = int(answer.read())
        assert server.wait() == -signal.SIGTERM
        lines = (tmp_path / "words").read_text().splitlines()
    words = [line.split()[0] for line in lines if line.endswith(f" {pid}")]
    assert words[-3:] == ["answered", "shutdown", "close"]


def test_no_request_waits_for_the_clock(tmp_path: Path) -> None:
    """A stop of an idle server with workers takes no second: nobody polls."""
    with shop(tmp_path, *COMMAND, "-w", "2", "shop:app") as server:
        server.heard("startup", 2)
        server.tell()
        assert server.wait() == -signal.SIGTERM
        assert server.words().count("close") == 2


def test_a_second_signal_means_now(tmp_path: Path) -> None:
    """The parent passes it on: what is in hand is cut off; hooks still run."""
    with shop(tmp_path, *COMMAND, "-w", "2", "shop:app") as server:
        server.heard("startup", 2)
        with server.ask("/slow?30").sock:
            server.heard("begun", 2)
            server.tell()
            server.tell_again()
            assert server.wait() != 0
        assert server.words().count("answered") == 1
        assert "close" in server.words()


def test_immediate_cuts(tmp_path: Path) -> None:
    """No request of a worker is waited for."""
    more = ("-w", "1", "shop:app")
    with shop(tmp_path, *COMMAND, *more, LASTCALL_SHUTDOWN="immediate") as server:
        with server.ask("/slow?30").sock:
            server.heard("begun", 2)
            server.tell()
            assert server.wait() == -signal.SIGTERM
        assert server.words()[-2:] == ["shutdown", "close"]


def test_the_same_start_up_failures(tmp_path: Path) -> None:
    """No such application, and a lifespan that fails: exit 1, at once."""
    with shop(tmp_path, *COMMAND, "-w", "2", "nothing:app", serves=False) as server:
        assert server.wait() == 1
    assert "module not found" in (tmp_path / "err").read_text()
    with shop(tmp_path, *COMMAND, "shop:app", serves=False, SHOP_FAILS="1") as server:
        assert server.wait() == 1
    assert "no goods" in (tmp_path / "err").read_text()


def test_a_reload_serves_all_the_time(tmp_path: Path) -> None:
    """HUP: new workers answer before the old ones end, and what those have in hand is answered."""
    with shop(tmp_path, *COMMAND, "-w", "2", "shop:app") as server:
        server.heard("startup", 2)
        before = server.workers()
        begun = server.words().count("begun")
        connection = server.ask("/slow?1")
        server.heard("begun", begun + 1)
        server.tell(signal.SIGHUP)
        server.heard("startup", 4)
        wait_until(lambda: int(server.answer()) not in before, "a new worker answers")
        assert int(connection.getresponse().read()) in before
        server.heard("close", 2)
        server.tell()
        assert server.wait() == -signal.SIGTERM


def test_a_reload_that_fails_changes_nothing(tmp_path: Path) -> None:
    """The new workers cannot load the application: the old ones go on."""
    broken = tmp_path / "broken"
    with shop(tmp_path, *COMMAND, "-w", "1", "shop:app", SHOP_BROKEN=str(broken)) as server:
        pid = server.answer()
        broken.touch()
        server.tell(signal.SIGHUP)
        err = tmp_path / "err"
        wait_until(lambda: "the old ones go on" in err.read_text(), "it gives up the reload")
        assert server.answer() == pid
        server.tell()
        assert server.wait() == -signal.SIGTERM


def test_a_worker_that_has_had_its_requests_is_replaced(tmp_path: Path) -> None:
    """Of max_requests nobody notices anything but another pid."""
    with shop(tmp_path, *COMMAND, "-w", "1", "--max-requests", "2", "shop:app") as server:
        first = server.answer()
        wait_until(lambda: server.answer() != first, "another worker answers")
        server.tell()
        assert server.wait() == -signal.SIGTERM


def test_a_worker_that_crashes_ends_all(tmp_path: Path) -> None:
    """As with the bare server, whose exit code it is."""
    with shop(tmp_path, *COMMAND, "-w", "2", "shop:app") as server:
        server.heard("startup", 2)
        os.kill(int(server.answer()), signal.SIGKILL)
        assert server.wait() not in {0, -signal.SIGTERM}


def test_what_several_workers_cannot_have() -> None:
    """An application object, a lifecycle of the parent's, and trio are refused in words."""
    with pytest.raises(BadPolicy, match="by name"):
        hypercorn.serve(object(), workers=2)
    with pytest.raises(BadPolicy, match="lifecycle"):
        hypercorn.serve("shop:app", workers=2, lifecycle=Lifecycle())
    with pytest.raises(Unsupported, match="trio"):
        hypercorn.serve("shop:app", workers=2, worker_class="trio")


def test_inside_a_lifecycle_that_is_entered(tmp_path: Path) -> None:
    """`serve` returns, and the code behind it runs before the hooks."""
    port = free_port()
    code = (
        "import shop\n"
        "from lastcall.app.servers.hypercorn import serve\n"
        "with shop.lifecycle:\n"
        f"    serve(shop.app, bind='127.0.0.1:{port}')\n"
        "    shop.say('behind')\n"
    )
    with shop(tmp_path, "-c", code, port=port) as server:
        server.tell()
        assert server.wait() == -signal.SIGTERM
        assert server.words()[-3:] == ["shutdown", "behind", "close"]


def test_an_inherited_socket_serves_the_next_start(tmp_path: Path) -> None:
    """A socket of a service manager is not shut: who waits in its queue gets the successor."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        kept.listen()
        os.set_inheritable(kept.fileno(), True)
        (tmp_path / "words").touch()
        with shop(tmp_path, *COMMAND, "shop:app", serves=False):
            pass  # only to write the shop down
        bind = f"fd://{kept.fileno()}"
        command = [sys.executable, "-P", "-m", "lastcall.app.servers.hypercorn", "-b", bind]
        for workers in ("0", "1"):
            child = subprocess.Popen(
                [*command, "-w", workers, "shop:app"],
                cwd=tmp_path,
                pass_fds=[kept.fileno()],
                env={
                    **os.environ,
                    "WORDS": str(tmp_path / "words"),
                    "PYTHONPATH": str(tmp_path),
                },
                stderr=subprocess.DEVNULL,
            )
            try:
                with socket.create_connection(kept.getsockname(), PATIENCE_S) as client:
                    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    assert client.recv(12) == b"HTTP/1.1 200"
                child.terminate()
                assert child.wait(PATIENCE_S) == -signal.SIGTERM
            finally:
                child.kill()
                child.wait()


def test_exit_codes_of_workers() -> None:
    """The parent ends as its workers did, and says the worst where they differ."""
    term, interrupted = signal.SIGTERM, signal.SIGINT
    assert code_of([-15, -15], term) == -15
    assert code_of([-15], interrupted) == -2
    assert code_of([143, 143], interrupted) == 130
    assert code_of([0, 0], term) == 0
    assert code_of([0, -15], term) == -15
    assert code_of([0, -15, 22], term) == 22
    assert code_of([-9, -15], term) == -9
    assert code_of([], term) == -15


def test_what_the_signals_to_a_parent_mean() -> None:
    """The first ends, the second hurries, the third is at once; right behind, one is no more."""
    heard: list[str] = []
    wishes = Wishes(
        lambda _: heard.append("end"), lambda _: heard.append("now"), lambda _: heard.append("cut")
    )
    wishes.handle(signal.SIGTERM)
    wishes.handle(signal.SIGTERM)
    assert heard == ["end"]
    for _ in range(3):
        wishes._seen_s = float("-inf")  # a while ago
        wishes.handle(signal.SIGINT)
    assert heard == ["end", "now", "cut", "cut"]
    assert wishes.signum == signal.SIGTERM


def test_an_unknown_worker_class() -> None:
    """It is told as hypercorn tells it."""
    with pytest.raises(ValueError, match="No worker of class"):
        hypercorn.serve("shop:app", workers=2, worker_class="nothing")


def test_a_parent_that_is_to_exit_with_zero_does_not_serve_itself(tmp_path: Path) -> None:
    """`serve` with workers never comes back, whatever they ended with."""
    port = free_port()
    code = (
        "from lastcall.app.servers.hypercorn import serve\n"
        "if __name__ == '__main__':\n"
        f"    serve('shop:app', workers=2, bind='127.0.0.1:{port}')\n"
    )
    (tmp_path / "program.py").write_text(code)
    with shop(tmp_path, "program.py", port=port, LASTCALL_EXIT_WITH="zero") as server:
        server.heard("startup", 2)
        server.tell()
        assert server.wait() == 0
        assert server.words().count("startup") == 2
