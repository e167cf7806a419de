"""uvicorn's worker processes: their parent closes the door, and each worker drains by itself.

When the whole service ends, the parent turns newcomers away at once, gives up its own copy of the
socket, and passes the signal on; a second and a third go to the workers as well. What each worker
does then is its own lifecycle's matter; the parent waits for all, and ends as they did: cut off
(22) if one was, of the signal if they died of it, 0 if they drained and were to exit with 0.

On a restart (HUP), with fewer workers (TTOU) and where a worker has had its number of requests,
only that one drains, and the others go on with the same socket.

Source: uvicorn 0.54, supervisors/multiprocess.py; multiprocessing's spawn.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from multiprocessing import connection
from time import monotonic
from typing import TYPE_CHECKING

from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import multiprocess

from lastcall.app.http.listeners import own_listeners
from lastcall.app.http.serving import passed_inodes
from lastcall.app.servers.parents import code_of, notify_ready
from lastcall.app.servers.uvicorn import Server
from lastcall.app.signals import name_of, same_s

if TYPE_CHECKING:
    from socket import socket

    from uvicorn import Config

logger: logging.Logger = logging.getLogger("uvicorn.error")
_END = frozenset({signal.SIGTERM, signal.SIGINT})
_READ_BYTES = 4096
_TIMES_KILLED = 3
_KILL_AFTER_S = 1.0


class Process(multiprocess.Process):
    """One worker.

    Args:
        config: uvicorn's.
        sockets: the listening ones.
    """

    def __init__(self, config: Config, sockets: list[socket]) -> None:
        super().__init__(config, sockets)
        self.told: int = 0  # how often it was asked to end
        self.served: bool = False  # as far as is known

    @property
    def server(self) -> Server:
        """The server of the worker."""
        if not isinstance(self._server, Server):
            self._server = Server(self.config, shared=True)
        return self._server

    def _healthcheck(self, timeout: float) -> bool | None:
        # What uvicorn's own checks ask it anyway.
        started = super()._healthcheck(timeout)
        self.served = self.served or bool(started)
        return started

    @property
    def begun(self) -> bool:
        """Whether there is a process, running or ended."""
        return self.process.pid is not None

    def terminate(self, signum: int = signal.SIGTERM, times: int = 1) -> None:
        """Ask it to end.

        Args:
            signum: by this signal.
            times: it is to have been asked so often in all.
        """
        if os.name == "nt":
            super().terminate()
        elif self.told < times and not self.gone():
            self.told = times
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid or 0, signum)
            logger.info("Terminated child process [%s]", self.process.pid)

    @property
    def killed(self) -> bool:
        """Whether it has died of a signal."""
        return (self.exitcode or 0) < 0

    def gone(self) -> bool:
        """Whether it does not run; asked without reaping it, from any thread."""
        return not self.begun or bool(connection.wait([self.process.sentinel], 0))

    def kill(self) -> None:
        """End it by force."""
        if self.begun:
            super().kill()

    def join(self) -> None:
        """Wait for its end."""
        if self.begun:
            super().join()


class Multiprocess(multiprocess.Multiprocess):
    """The parent of the workers.

    Args:
        config: uvicorn's.
        sockets: bound, to be shared by all workers.
    """

    def __init__(self, config: Config, sockets: list[socket]) -> None:
        super().__init__(config, sockets)
        self._lock = threading.RLock()  # no worker is started once the socket is given up
        self._every: list[Process] = []
        self._ready = False  # the service manager was told that all serve
        self._times = 0  # it was asked to end
        self._seen_s = float("-inf")
        self._signum: int | None = None
        self.code: int | None = None  # to exit with, see `parents.leave_with`; None: as it is

    def run(self) -> None:
        """Start the workers, look after them, and end with them; `code` tells how they ended."""
        if os.name == "nt":
            super().run()
            return
        ours, bell = os.pipe()
        os.set_blocking(bell, False)
        before = signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
        # Whatever the main thread waits for just then: the door is closed, the workers are told.
        threading.Thread(target=self._listen, args=(ours,), daemon=True).start()
        super().run()
        signal.set_wakeup_fd(before)
        os.close(bell)
        if self._signum is not None:
            # A worker that the signal met on its way up decided nothing.
            ends = (each.exitcode for each in self._every if each.served or not each.killed)
            self.code = code_of(ends, self._signum)

    # -- the end, in a thread of its own

    def _listen(self, bell: int) -> None:
        while numbers := os.read(bell, _READ_BYTES):
            for number in numbers:
                if number in _END:
                    self._asked(number)
        os.close(bell)

    def _asked(self, number: int) -> None:
        now_s = monotonic()
        same = now_s - self._seen_s < same_s(number)
        self._seen_s = now_s
        if same:
            return
        logger.info("Received %s, exiting.", name_of(number))
        self._signum = self._signum or number
        self._end(number, self._times + 1)

    def _end(self, number: int, times: int) -> None:
        with self._lock:
            if not self._times:
                self._close_door()
            self._times = times
            self.should_exit.set()
            for each in self._every:
                each.terminate(number, times)
        if times == _TIMES_KILLED:
            timer = threading.Timer(_KILL_AFTER_S, self._kill_all)
            timer.daemon = True
            timer.start()

    def _close_door(self) -> None:
        """Turn newcomers away, for all workers, and give up our own copy of the sockets."""
        kept = passed_inodes()
        listeners = own_listeners()
        for each in listeners:
            if self.config.fd is None and each.inode not in kept:
                each.turn_newcomers_away()
            each.close()
        for sock in self.sockets:
            sock.close()

    def _kill_all(self) -> None:
        for each in self._every:
            if not each.gone():
                each.kill()

    # -- the workers, in the main thread

    def _new(self) -> Process:
        """A worker more, started unless all are to end."""
        with self._lock:
            process = Process(self.config, self.sockets)
            self._every = [each for each in self._every if not each.gone()]
            if not self.should_exit.is_set():
                process.start()
                self._every.append(process)
        return process

    def init_processes(self) -> None:
        """Start the first workers."""
        self.processes: list[multiprocess.Process] = [
            self._new() for _ in range(self.processes_num)
        ]

    def terminate_all(self) -> None:
        """Ask all to end, if no signal has done so."""
        if not self._times:
            self._end(signal.SIGTERM, 1)

    def join_all(self) -> None:
        """Wait for the ends of all, also of those that were on their way out before."""
        for each in self._every:
            each.join()

    def keep_subprocess_alive(self) -> None:
        """Put a new worker in the place of each that died or hangs."""
        for index, each in enumerate(self.processes):
            if self.should_exit.is_set():
                return
            if each.is_alive(self.config.timeout_worker_healthcheck):
                continue
            with self._lock:
                if self.should_exit.is_set():
                    return  # it drains
                each.kill()
            each.join()
            if each.exitcode == STARTUP_FAILURE:
                logger.error("Child process [%s] failed to start: the parent ends.", each.pid)
                self.should_exit.set()
                return
            logger.info("Child process [%s] died", each.pid)
            self.processes[index] = self._new()
        if not self._ready and all(isinstance(p, Process) and p.served for p in self.processes):
            self._ready = True
            notify_ready()

    def restart_all(self) -> None:
        """Replace each worker: the new one serves before the old one is asked to end."""
        for index, old in enumerate(self.processes):
            new = self._new()
            ready = new.wait_until_ready(self.config.timeout_worker_healthcheck, self.should_exit)
            if self.should_exit.is_set():
                return
            if not ready:
                new.kill()
                new.join()
                logger.error(
                    "New child process [%s] was not ready in time: worker [%s] stays, "
                    "and nothing more is restarted.",
                    new.pid,
                    old.pid,
                )
                return
            old.terminate()
            old.join()
            self.processes[index] = new

    def handle_ttin(self) -> None:
        """Start one more."""
        logger.info("Received SIGTTIN, one worker more.")
        self.processes_num += 1
        self.processes.append(self._new())
