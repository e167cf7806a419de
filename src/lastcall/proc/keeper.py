"""A small program of its own: it starts a command, and clears away all that came of it.

Run as `python -I -S keeper.py FD` (or by its `main`, to spare compiling it), where FD is a stream
socket to the one who wants the command, here called the parent. What is said over that socket:

    parent    LENGTH newline, then the fields of `_Order`, each ended by a NUL
    keeper    failed STAGE ERRNO       the command could not be started; that is all
              started PID AT           AT: seconds of CLOCK_MONOTONIC, just before the fork
    parent    have                     it opened a pidfd; not before this is PID reaped
    keeper    ended STATUS AT          the command's main process ended: wait status, time
    parent    clear                    (or the end of the stream: the parent died)
    keeper    stuck PID...             only if so: these outlived SIGKILL
              cleared PID...           nothing is left; these had been there

Why a process of its own: only a child subreaper gets the orphans of what it started, so that none
is lost by a double fork or by setsid; it lives on when the parent is killed; and the parent's own
children and its settings stay as they were. It costs one start of Python, so it imports little
(`socket` or `json` would double that), and it is one file, for it runs without the package.

Why nobody else is hit: every live descendant has an unbroken line of parents up to the keeper, and
a child's number is its own until the keeper reaps it. So killing the keeper's own children (and
the process groups they are in, at once, before they can fork), reaping, and going on with those
who were handed up, until the kernel says that there is no child, is exact and complete.

Source: PR_SET_CHILD_SUBREAPER(2const), PR_SET_PDEATHSIG(2const), pid_namespaces(7),
user_namespaces(7), wait(2), kill(2), proc_pid_task(5).
"""

import ctypes
import errno
import os
import select
import signal
import sys
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWPID = 0x20000000
_MS_REC_PRIVATE = 0x4000 | 0x40000
_MS_NOSUID_NODEV_NOEXEC = 2 | 4 | 8
_DEEP_AFTER_S = 0.05
_LOOK_AGAIN_MS = 20
# So long it tries to kill what cannot be killed (another user's, or stuck in the kernel).
CLEAR_LIMIT_S = 5.0


def children(pid: int) -> list[int]:
    """The children of a process, zombies too; none when it is gone.

    No children now means no children: the kernel looks under its lock. Of several, one may be
    missed while another ends.
    """
    found: list[int] = []
    try:
        for tid in os.listdir(f"/proc/{pid}/task"):
            found += map(int, _read(f"/proc/{pid}/task/{tid}/children").split())
    except (FileNotFoundError, ProcessLookupError):
        if os.path.exists("/proc/thread-self/children"):
            return found  # it, or a thread of it, went away meanwhile
        return [each for each in _pids() if parent_of(each) == pid]  # no CONFIG_PROC_CHILDREN
    return found


def stat(pid: int) -> list[str]:
    """The fields of `/proc/PID/stat` from the third on (state, ppid, ...); empty when gone."""
    try:
        return _read(f"/proc/{pid}/stat").rpartition(b")")[2].decode().split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def parent_of(pid: int) -> int:
    """The parent's pid; 0 when it is gone."""
    fields = stat(pid)
    return int(fields[1]) if fields else 0


def group_of(pid: int) -> int:
    """The process group; 0 when it is gone."""
    fields = stat(pid)
    return int(fields[2]) if fields else 0


def below(root: int) -> list[int]:
    """All processes below `root`, zombies too, parents first."""
    found = {root: None}  # in order
    queue = [root]
    while queue:
        more = [pid for pid in children(queue.pop()) if pid not in found]
        found.update(dict.fromkeys(more))
        queue += more
    del found[root]
    return list(found)


def living(root: int) -> list[int]:
    """The processes below `root` that run, in ascending order, as two looks in a row agree."""
    seen: list[int] = []
    for _ in range(10):
        now = sorted(pid for pid in below(root) if not _over(pid))
        if now == seen and (now or not children(root)):
            break
        seen = now
    return seen


def descends(pid: int, root: int) -> bool | None:
    """Whether a process is below `root`; None when it is gone."""
    if not stat(pid):
        return None
    while pid > 1 and pid != root:
        pid = parent_of(pid)
    return pid == root


def members(session: int) -> list[int]:
    """The processes of a session that run."""
    return [pid for pid in _pids() if stat(pid)[3:4] == [str(session)] and not _over(pid)]


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _over(pid: int) -> bool:
    """Whether all its threads have ended: its main thread may end before the others."""
    if stat(pid)[:1] not in (["Z"], ["X"], []):
        return False
    try:
        tids = os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return True
    return all(stat(int(tid))[:1] in (["Z"], ["X"], []) for tid in tids)


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


class _Order:
    """What the parent wants started: mode, folder, litter, number of words, words, environment.

    The litter is a socket to be removed at the end, with its folder: a killed parent cannot.
    """

    def __init__(self, raw: bytes) -> None:
        mode, self.folder, self.litter, count, *rest = raw.split(b"\0")[:-1]
        self.pid1 = mode == b"pid1"
        self.words = rest[: int(count)]
        pairs = (field.partition(b"=") for field in rest[int(count) :])
        self.env = {name: value for name, _, value in pairs}


class _Failed(Exception):
    def __init__(self, stage: bytes, number: int) -> None:
        super().__init__(stage, number)
        self.stage = stage
        self.number = number


class _Keeper:
    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._inbox = b""
        self._litter = b""
        self._main = 0
        self._ended_at = 0.0
        self._may_reap = False
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._woken, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(signum, signal.SIG_IGN)
        # The handler has nothing to do: the byte that it puts into the pipe is what wakes us.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self._prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self._libc.prctl(_PR_SET_NAME, b"lastcall-keeper")

    def run(self) -> None:
        """Start, serve, clear; whatever happens, clear."""
        try:
            self._start(self._take_order())
            self._serve()
        except _Failed as failed:
            self._tell(b"failed %b %d" % (failed.stage, failed.number))
        except EOFError:
            pass  # the parent died before it said what it wanted
        except Exception as error:  # noqa: BLE001 (told to the parent, and all is cleared)
            self._tell(b"broken " + repr(error).encode(errors="replace").replace(b"\n", b" "))
        finally:
            self._clear()

    def _prctl(self, option: int, value: int) -> None:
        words = [ctypes.c_ulong(word) for word in (value, 0, 0, 0)]
        if self._libc.prctl(option, *words) < 0:
            raise _Failed(b"prctl", ctypes.get_errno())

    def _take_order(self) -> _Order:
        while b"\n" not in self._inbox:
            self._hear()
        length, _, self._inbox = self._inbox.partition(b"\n")
        while len(self._inbox) < int(length):
            self._hear()
        raw, self._inbox = self._inbox[: int(length)], self._inbox[int(length) :]
        order = _Order(raw)
        self._litter = order.litter
        return order

    def _hear(self) -> None:
        try:
            part = os.read(self._fd, 65536)
        except ConnectionError:
            part = b""
        if not part:
            raise EOFError
        self._inbox += part

    def _tell(self, words: bytes) -> None:
        words += b"\n"
        try:
            while words:
                words = words[os.write(self._fd, words) :]
        except OSError:
            pass  # the parent is gone; what it is told no longer matters

    def _start(self, order: _Order) -> None:
        if order.pid1:
            self._unshare_pids()
        failed, failing = os.pipe2(os.O_CLOEXEC)
        at = time.monotonic()
        try:
            self._main = os.fork()
        except OSError as error:
            raise _Failed(b"fork", error.errno or 0) from error
        if not self._main:
            self._become(order, failing)
        os.close(failing)
        with open(failed, "rb") as pipe:
            why = pipe.read().split()
        if why:
            raise _Failed(why[0], int(why[1]))
        # From here on the output is the command's alone, so that its end can be seen.
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, 1)
        os.dup2(null, 2)
        self._tell(b"started %d %b" % (self._main, repr(at).encode()))

    def _unshare_pids(self) -> None:
        """Let the next child be PID 1 of a namespace of its own."""
        if os.geteuid() == 0 and self._libc.unshare(_CLONE_NEWPID) == 0:
            return
        uid, gid = os.geteuid(), os.getegid()
        if self._libc.unshare(_CLONE_NEWUSER | _CLONE_NEWPID) < 0:
            raise _Failed(b"unshare", ctypes.get_errno())
        try:
            for name, text in (
                ("setgroups", "deny"),
                ("uid_map", f"{uid} {uid} 1"),
                ("gid_map", f"{gid} {gid} 1"),
            ):
                with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                    file.write(text)
        except OSError as error:
            raise _Failed(b"uid_map", error.errno or 0) from error

    def _become(self, order: _Order, failing: int) -> None:
        """Become the command, in the child; never returns."""
        stage = b"setsid"
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(signum, signal.SIG_DFL)
            # If the keeper is killed, the main process at least does not outlive it.
            self._prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            poller = select.poll()
            poller.register(failing, 0)
            if poller.poll(0):  # nobody reads any more: the keeper died before that
                os._exit(1)
            if order.pid1:
                stage = b"mount"
                self._mount_proc()
            stage = b"folder"
            if order.folder:
                os.chdir(order.folder)
            stage = b"exec"
            _execute(order.words, order.env)
        except _Failed as failed:
            os.write(failing, b"%b %d" % (failed.stage, failed.number))
        except OSError as error:
            os.write(failing, b"%b %d" % (stage, error.errno or 0))
        except BaseException:  # noqa: BLE001 (a child must never go on as a second keeper)
            os.write(failing, b"%b %d" % (stage, errno.EINVAL))
        finally:
            os._exit(127)

    def _mount_proc(self) -> None:
        """Let `/proc` show the new namespace, to this process and its children only."""
        if (
            self._libc.unshare(_CLONE_NEWNS) < 0
            or self._libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC_PRIVATE), None) < 0
            or self._libc.mount(
                b"proc", b"/proc", b"proc", ctypes.c_ulong(_MS_NOSUID_NODEV_NOEXEC), None
            )
            < 0
        ):
            raise _Failed(b"mount", ctypes.get_errno())

    def _serve(self) -> None:
        """Reap, and tell of the main process's end, until the parent says `clear` or is gone."""
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        poller.register(self._woken, select.POLLIN)
        while True:
            self._reap()
            ready = [fd for fd, _ in poller.poll()]
            self._forget_waking()
            if self._fd in ready:
                try:
                    self._hear()
                except EOFError:
                    return
            while b"\n" in self._inbox:
                word, _, self._inbox = self._inbox.partition(b"\n")
                if word == b"clear":
                    return
                self._may_reap = True

    def _forget_waking(self) -> None:
        try:
            while os.read(self._woken, 4096):
                pass
        except BlockingIOError:
            pass

    def _reap(self) -> bool:
        """Reap all that ended; whether any child is left."""
        try:
            if not self._ended_at and self._main:
                flags = os.WEXITED | os.WNOWAIT | os.WNOHANG
                if os.waitid(os.P_PID, self._main, flags) is not None:
                    self._ended_at = time.monotonic()
            while self._may_reap:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return True
                if pid == self._main:
                    at = self._ended_at or time.monotonic()
                    self._tell(b"ended %d %b" % (status, repr(at).encode()))
                    self._main = 0
        except ChildProcessError:
            return False
        return True

    def _clear(self) -> None:
        self._may_reap = True
        self._reap()
        left = living(os.getpid())
        begun = time.monotonic()
        poller = select.poll()
        poller.register(self._woken, select.POLLIN)
        while self._reap():
            now = time.monotonic()
            if now - begun > CLEAR_LIMIT_S:
                self._tell(b"stuck " + _numbers(living(os.getpid())))
                break
            for pid in children(os.getpid()):
                _kill_child(pid)
            if now - begun > _DEEP_AFTER_S:
                # A child that does not go (stuck in the kernel) hides what is below it.
                for pid in below(os.getpid()):
                    _kill_deep(pid)
            poller.poll(_LOOK_AGAIN_MS)
            self._forget_waking()
        if self._litter:
            try:
                os.unlink(self._litter)
                os.rmdir(os.path.dirname(self._litter))
            except OSError:
                pass  # the parent was quicker
        self._tell(b"cleared " + _numbers(left))


def _numbers(pids: list[int]) -> bytes:
    return b" ".join(b"%d" % pid for pid in pids)


def _kill_child(pid: int) -> None:
    """Kill a child that is not reaped yet, and at once all of its process group."""
    try:
        group = os.getpgid(pid)
        # A child that has not come to setsid() yet is in our own group.
        if group > 1 and group != os.getpgrp():
            os.killpg(group, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _kill_deep(pid: int) -> None:
    """Kill a descendant whose number is not ours to keep: only through a pidfd."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if descends(pid, os.getpid()):  # looked at after opening: so that is what the pidfd means
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    except OSError:
        pass
    finally:
        os.close(fd)


def _execute(words: list[bytes], env: dict[bytes, bytes]) -> None:
    """execvpe(3), but a file of unknown format is an error, not a script of /bin/sh."""
    if b"/" in words[0]:
        os.execve(words[0], words, env)  # noqa: S606 (that is the purpose)
    refused: PermissionError | None = None
    for folder in env.get(b"PATH", os.defpath.encode()).split(b":"):
        try:
            os.execve(os.path.join(folder or b".", words[0]), words, env)  # noqa: S606 (the same)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            refused = error
    raise refused or FileNotFoundError(errno.ENOENT, "not found")


def main() -> None:
    """Be the keeper."""
    fd = int(sys.argv[-1])
    os.set_inheritable(fd, False)
    try:
        _Keeper(fd).run()
    except _Failed as failed:
        os.write(fd, b"failed %b %d\n" % (failed.stage, failed.number))
    os._exit(0)  # at once: there is nothing to tidy up, and somebody waits


if __name__ == "__main__":
    main()
