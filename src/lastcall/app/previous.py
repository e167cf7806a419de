"""The run record: what a run writes down, so that the next one knows how it ended.

The record is a small file mapped into memory. A store into it is there for the next run whatever
happens to this one, and costs no system call; so each work in flight is noted by name. After a
power cut it tells what the disk knew, which may be half a minute old; that a run began is on the
disk before `open` returns.

A store may wait for the disk while the kernel writes that page back, and the whole interpreter
with it. Where that counts, give a path in a tmpfs: it survives everything but the host.

Source: mmap(2), MAP_SHARED; https://www.evanjones.ca/jvm-mmap-pause.html (such a wait in the JVM).
"""

from __future__ import annotations

import os
import sys
import threading

from lastcall.app import runfile, runmarks, runplace
from lastcall.app.runended import Ended, Previous, judge
from lastcall.app.runfile import NAME_BYTES, SLOT, SLOTS_AT, TIME_AT, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Sequence

__all__ = ["Ended", "Previous", "Record"]

_choosing = threading.Lock()
_open: list[Record] = []
_fork_hook = False


class Record:
    """The record of this run. Make it with `Record.open`.

    Attributes:
        previous: how the last run ended.
        warning: why this run goes unrecorded; empty when it is recorded.
        path: where the record is; empty when there is none.
    """

    def __init__(self, name: str, traces: runmarks.Traces) -> None:
        import struct

        self.name: str = plain(name, 200)
        self.previous: Previous = Previous(Ended.NEVER_RAN)
        self.warning = ""
        self.path: str = ""
        self._traces = traces
        self._lock = threading.RLock()  # A signal handler may come back in.
        self._now = runmarks.clock()
        self._body = struct.Struct(f"<B{NAME_BYTES}sd").pack_into
        self._mark = struct.Struct("<I").pack_into
        self._gone = struct.Struct("<dI").pack_into
        self._tag = int.from_bytes(os.urandom(4), "little") | 1
        self._free = list(range(runfile.SLOTS - 1, 0, -1))
        self._more: list[None] = []
        # Notes go to memory that nobody reads: when unrecorded, when closed, and in a child.
        self._room: mmap.mmap | bytearray = bytearray(runfile.SIZE)
        self._push: Callable[[int, int], None] | None = None
        self._fd = -1
        self._number = 0
        self._fields: dict[str, str] = {}
        self._marks: runmarks.Marks | None = None

    @classmethod
    def open(cls, name: str, path: str = "", *, proc: str = "/proc") -> Record:
        """Read how the last run ended, and begin the record of this one.

        What goes wrong with the file stands in `warning`; the run then goes on unrecorded.

        A second instance of the same name has a record and a `previous` of its own. One that starts
        takes over the record that tells of lost work, if there are several; else the latest one.

        Args:
            name: which program this is: the record's file is called after it.
            path: the file, where it is not to be one of ours in the state folder.
            proc: where procfs is; tests give another.
        """
        record = cls(name, runmarks.Traces(proc))
        try:
            record._begin(path)
        except (runplace.Unusable, OSError, ValueError, ImportError) as error:
            why = str(error) if isinstance(error, runplace.Unusable) else _words(error)
            if record.previous.ended is Ended.NEVER_RAN:
                record.previous = Previous(Ended.UNKNOWN, why)
            record.warning = f"this run is not recorded, the next will not know how it ended: {why}"
        return record

    # -- in flight

    def enter(self, name: str) -> int:
        """Note that work begins; what it returns goes to `leave`, once."""
        try:
            slot = self._free.pop()
        except IndexError:
            return self._beyond(1)
        room = self._room
        at = SLOTS_AT + slot * SLOT
        text = name.encode("utf-8", "replace")[:NAME_BYTES]
        try:
            self._body(room, at, len(text), text, self._now())
            self._mark(room, at + SLOT - 4, self._tag)
        except ValueError:
            return slot  # closed in between
        if self._push is not None:
            self._push(at, SLOT)
        return slot

    def leave(self, slot: int) -> None:
        """Note that work is over."""
        if slot <= 0:
            self._beyond(-1)
            return
        at = SLOTS_AT + slot * SLOT + TIME_AT
        try:
            self._gone(self._room, at, self._now(), 0)
        except ValueError:
            return
        if self._push is not None:
            self._push(at, SLOT - TIME_AT)
        self._free.append(slot)

    def beat(self) -> None:
        """Give a sign of life: the ages of what is in flight count to the last one."""
        self._beyond(0)

    def _beyond(self, step: int) -> int:
        """All slots are taken: only count. Without a lock, as a signal handler may come in."""
        if step > 0:
            self._more.append(None)
        elif step < 0 and self._more:
            self._more.pop()
        count = -1
        while count != len(self._more):
            count = len(self._more)
            try:
                self._mark(self._room, SLOTS_AT, count)
                self._gone(self._room, SLOTS_AT + TIME_AT, self._now(), self._tag)
            except ValueError:
                break
            if self._push is not None:
                self._push(SLOTS_AT, SLOT)
        return 0

    # -- the end

    def stopping(self, reason: str) -> None:
        """Note that a stop has begun."""
        if "stop_at" not in self._fields:
            self._note(stop_reason=plain(reason, 400), stop_at=self._time())

    def ended(
        self, *, reason: str, clean: bool, left: Sequence[str] = (), exit_code: int | None = None
    ) -> None:
        """Note that the stop is over; the process is about to leave.

        Args:
            reason: what asked for it: "SIGTERM", "request", "main returned".
            clean: False when the deadline or a second signal cut something off.
            left: what was left behind then.
            exit_code: what the process will leave with; None when that is not known.
        """
        found = {"left": "\t".join(plain(one, 80) for one in left[:30])}
        found["clean"] = "1" if clean and not left else "0"
        if exit_code is not None:
            found["code"] = str(exit_code)
        if self._fields.get("state") != "crashed":
            found |= {"state": "ended", "end_reason": plain(reason, 400)}
        self._note(end_at=self._time(), **found)
        self._note()  # The other page too: a fault in one of them shall not hide it.

    def crashed(self, error: BaseException) -> None:
        """Note that this exception ends the process."""
        words = runmarks.describe(error)
        if isinstance(error, SystemExit):
            self.left(words, error.code if isinstance(error.code, int) else None)
        elif isinstance(error, KeyboardInterrupt):
            self.left(words, 130)
        else:
            self._note(state="crashed", end_reason=plain(words, 600), end_at=self._time())

    def left(self, reason: str, exit_code: int | None) -> None:
        """Note that the process leaves without its stop, unless more is known already."""
        if self._fields.get("state") in {"ended", "crashed"}:
            return
        code = {"code": str(exit_code)} if exit_code is not None else {}
        self._note(state="exited", end_reason=plain(reason, 400), end_at=self._time(), **code)

    def thread_died(self, name: str, error: BaseException) -> None:
        """Note that an exception ended a thread; the process goes on."""
        words = plain(runmarks.describe(error), 300)
        self._note(thread=f"its thread {plain(name, 60)!r} had died of {words}")

    def close(self) -> None:
        """Let go of the file, and give back what was hooked. Before `ended`, it counts as left."""
        self.left("its record was closed", None)
        self._drop()

    # -- inside

    def _time(self) -> str:
        return f"{self._now():.3f}"

    def _note(self, **fields: str) -> None:
        # Whoever hangs with the lock shall not keep the others from leaving.
        locked = self._lock.acquire(timeout=0.5)
        try:
            self._fields |= fields
            self._number += 1
            # A copy: a signal handler may come in and note something while this is put together.
            data = runfile.page_bytes(self._number, self._tag, dict(self._fields))
            at = self._number % 2 * runfile.PAGE
            try:
                self._room[at : at + len(data)] = data
            except (ValueError, IndexError):
                return
            if self._push is not None:
                self._push(at, len(data))
        finally:
            if locked:
                self._lock.release()

    def _begin(self, path: str) -> None:
        if sys.platform == "win32":
            raise runplace.Unusable("run records are kept on Linux and other Unixes only")
        if not path and not self.name:
            raise runplace.Unusable("the program has no name: give one to Lifecycle")
        own = not path
        path = runplace.default_path(self.name) if own else os.path.abspath(path)
        folder = os.path.dirname(path)
        runplace.make_private(folder)
        if own:
            runplace.close_folder(folder)
        with _choosing:
            fd, self.path, new = runplace.choose(path, self._traces)
            try:
                raw = runplace.read_all(fd)
                self._check(raw, own=own)
                if not new:
                    self.previous = judge(raw, self._traces)
                self._start(fd, raw, new=new)
            except BaseException:
                runplace.let_go(fd)
                self.path = ""
                raise
            _open.append(self)
        _hook_forks()
        self._marks = runmarks.Marks(self, fd)

    def _check(self, raw: bytes, *, own: bool) -> None:
        if runfile.written_by_newer(raw):
            raise runplace.Unusable(f"{self.path} is of a newer lastcall: update, or move it away")
        if not own and not runfile.is_ours(raw):
            raise runplace.Unusable(f"{self.path} is no run record: give another path")

    def _start(self, fd: int, raw: bytes, *, new: bool) -> None:
        page, _ = runfile.read_pages(raw)
        self._number = page.number if page is not None else 0
        self._fields = self._first_fields()
        try:
            # First that this run is on: a kill from here on shall not read as the last run's end.
            for _ in range(2):
                self._number += 1
                data = runfile.page_bytes(self._number, self._tag, self._fields)
                runplace.write_all(fd, data, self._number % 2 * runfile.PAGE)
            runplace.reserve(fd, os.path.dirname(self.path), new=new)
            os.fsync(fd)
        except OSError:
            if new:
                os.unlink(self.path)
            else:
                os.ftruncate(fd, 0)  # Better no word than that of an older run.
            raise
        os.lseek(fd, runfile.CRASH_AT, os.SEEK_SET)
        self._fd = fd
        if runplace.may_map(self.path):
            import mmap

            low = runplace.fill_standard()  # It duplicates the descriptor.
            self._room = mmap.mmap(fd, runfile.SIZE)
            for other in low:
                os.close(other)
        else:
            self._push = self._write

    def _first_fields(self) -> dict[str, str]:
        import faulthandler
        import time

        traces = self._traces
        fields = {
            "name": self.name,
            "state": "running",
            "pid": str(os.getpid()),
            "ticks": traces.start_ticks(os.getpid()),
            "boot": traces.boot_id,
            "wall": f"{time.time():.3f}",
            "at": self._time(),
            "watched": "0" if faulthandler.is_enabled() else "1",
        }
        machine = traces.machine_ooms()
        if machine is not None:
            fields["machine_ooms"] = str(machine)
        file = traces.cgroup_file()
        if file and plain(file, 2000) == file:
            ooms, inode = runmarks.cgroup_ooms(file)
            if ooms is not None:
                fields |= {"oom_file": file, "oom_inode": str(inode), "oom": str(ooms)}
        return fields

    def _write(self, at: int, length: int) -> None:
        """Where a mapping would not do: a system call each."""
        with self._lock:
            if runplace.is_ours(self._fd):
                try:
                    os.pwrite(self._fd, self._room[at : at + length], at)
                except OSError:
                    return  # A full disk, say: then the record is behind, and the program goes on.

    def forget(self) -> None:
        """In a child: the record is its parent's. Neither that nor its lock is touched."""
        self._lock = threading.RLock()  # Another thread may have had it at the fork.
        self._drop(forked=True)

    def _drop(self, *, forked: bool = False) -> None:
        room, self._room, self._push = self._room, bytearray(runfile.SIZE), None
        fd, self._fd = self._fd, -1
        if self._marks is not None:
            self._marks.remove()
            self._marks = None
        if not isinstance(room, bytearray):
            import contextlib

            with contextlib.suppress(BufferError):  # A thread is just writing: it ends with us.
                room.close()
        if self in _open:
            _open.remove(self)
        if fd >= 0 and not forked:
            runplace.let_go(fd)
        elif fd >= 0:
            os.close(fd)


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}"


def _hook_forks() -> None:
    global _fork_hook  # noqa: PLW0603 (such a hook cannot be taken back, so there is one)
    if not _fork_hook and hasattr(os, "register_at_fork"):
        _fork_hook = True
        os.register_at_fork(after_in_child=_after_fork)


def _after_fork() -> None:
    """A child has no part in its parent's record: neither its memory nor its marks."""
    global _choosing  # noqa: PLW0603 (another thread may have had it at the fork)
    _choosing = threading.Lock()
    runplace.held.clear()
    for record in tuple(_open):
        record.forget()
