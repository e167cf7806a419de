# Runs lastcall and kills it with SIGKILL at a chosen point. Points are found by counting: just
# before and just after every commit of the journal (and whatever else writes its file), every
# signal sent, and every opening and closing of the owner's door.
#
# Speaks by lines: a request (JSON) on stdin, `{"pid": N}` and later `{"status": S}` on stdout.
#   argv: of lastcall    state: its state folder    out: a file for what it prints
#   ledger: a file for what it did: "point LABEL" and "sent PID SIGNUM", one a line
#   kill_at: kill it at the point of this number, from 1; kill_on: at the first point that is, or
#   holds, this one: a commit "before commit a, b" holds "before commit a"
#   victim: kill the process of this pid there instead, and go on
#   blind: it takes every other lastcall for dead, as if it lived in another pid namespace
# Each request runs in a fork of this program, which has everything loaded: no start-up to pay.
import json
import os
import signal
import sqlite3
import sys
import threading
import traceback
from typing import Any

import lastcall.cli.live
import lastcall.cli.main
import lastcall.cli.resume
import lastcall.cli.stop
import lastcall.cli.views
import lastcall.stop.operation
import lastcall.targets.open
import lastcall.targets.process.before.preflight
import lastcall.targets.process.lookup.resolve
from lastcall.kernel.identity import Handle
from lastcall.stop import ownership
from lastcall.targets.process.target import ProcessTarget

CONNECT = sqlite3.connect


def held(label: str) -> list[str]:
    """The points that a point holds: a commit of several events is one for each."""
    when, commit, written = label.partition(" commit ")
    return [f"{when} commit {each}" for each in written.split(", ")] if commit else [label]


class Points:
    """Counts the points, writes them down, and kills this process at the chosen one."""

    def __init__(self, ledger: str, kill_at: int | None, kill_on: str | None) -> None:
        self.ledger = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.kill_at, self.kill_on = kill_at, kill_on
        self.victim: int | None = None
        self.count = 0
        self.lock = threading.Lock()

    def write(self, line: str) -> None:
        os.write(self.ledger, f"{line}\n".encode())

    def point(self, label: str) -> None:
        with self.lock:
            self.count += 1
            self.write(f"point {label}")
            due = self.count == self.kill_at or self.kill_on in held(label)
            last = label == "at the end" and (self.kill_at or self.kill_on)
            if due and self.victim is not None:
                os.kill(self.victim, signal.SIGKILL)
            elif (due or last) and self.victim is None:
                os.kill(os.getpid(), signal.SIGKILL)


class Counted(sqlite3.Connection):
    """A connection whose writes to the file are points, named by what they write."""

    points: Points

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.writes: list[str] = []

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        word = sql.split(maxsplit=3) or [""]
        if word[0] == "BEGIN":
            self.writes = []
        elif word[:3] == ["INSERT", "INTO", "event"]:
            stop, _, _, kind, _, intent = parameters
            self.writes.append(f"{kind} {stop} {intent}" if intent else f"{kind} {stop}")
        elif word[:2] == ["CREATE", "TABLE"]:
            self.writes.append(f"table {word[2]}")
        elif word[:2] == ["UPDATE", "stop"] and "SET owner" in sql:
            self.writes.append("owner")
        elif word[0] == "COMMIT":
            return self.around(f"commit {', '.join(self.writes)}", sql)
        elif sql.startswith("PRAGMA journal_mode"):
            return self.around("journal mode", sql)
        return super().execute(sql, parameters)

    def around(self, what: str, sql: str) -> sqlite3.Cursor:
        self.points.point(f"before {what}")
        done = super().execute(sql)
        self.points.point(f"after {what}")
        return done

    def close(self) -> None:
        self.points.point("before journal close")
        super().close()
        self.points.point("after journal close")


def patch(points: Points, *, blind: bool) -> None:
    def connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        made = CONNECT(*args, **kwargs, factory=Counted)
        made.points = points
        return made

    sqlite3.connect = connect
    send, door_open, door_close = Handle.send, ownership.Door.open, ownership.Door.close

    def counted_send(handle: Handle, signum: int) -> None:
        points.point(f"before send {signum}")
        with points.lock:  # so that nobody kills us between the deed and its record
            send(handle, signum)
            points.write(f"sent {handle.identity.pid} {signum}")
        points.point(f"after send {signum}")

    async def counted_open(door: ownership.Door) -> None:
        points.point("before door open")
        await door_open(door)
        points.point("after door open")

    async def counted_close(door: ownership.Door) -> None:
        points.point("before door close")
        await door_close(door)
        points.point("after door close")

    async def look(_target: ProcessTarget, _depth: object) -> tuple[()]:
        return ()  # What holds it up is tested elsewhere; here it would only cost time.

    Handle.send = counted_send
    ownership.Door.open, ownership.Door.close = counted_open, counted_close
    ProcessTarget.look = look
    if blind:
        ownership.alive = lambda _owner: False
        ownership.ANSWER_S = 0.3


def run(request: dict[str, Any]) -> int:
    """In the fork: become lastcall."""
    os.environ["LASTCALL_STATE_DIR"] = request["state"]
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    out = os.open(request["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(out, 1)
    os.dup2(out, 2)
    points = Points(request["ledger"], request.get("kill_at"), request.get("kill_on"))
    points.victim = request.get("victim")
    patch(points, blind=request.get("blind", False))
    code = lastcall.cli.main.run(request["argv"])
    sys.stdout.flush()
    points.point("at the end")
    return int(code)


def main() -> None:
    print(f"ready (pid: {os.getpid()})", flush=True)
    while line := sys.stdin.readline():
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                code = run(json.loads(line))
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else 98
            except BaseException:  # noqa: BLE001 (the parent is to read of it)
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        print(json.dumps({"pid": pid}), flush=True)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"status": status}), flush=True)


if __name__ == "__main__":
    main()
