# A small container: run it as pid 1 of a pid namespace. It listens, and so does a worker that it
# forks; a second child looks up its port as lastcall does, without and with consent, and says so.
import os
import signal
import socket

from lastcall.errors import LastcallError
from lastcall.model import Address
from lastcall.targets.process.lookup.resolve import resolve

door = socket.create_server(("127.0.0.1", 0))
where = Address("port", str(door.getsockname()[1]))
if os.fork() == 0:
    while True:
        signal.pause()
if os.fork() == 0:
    door.close()
    for allow in (frozenset(), frozenset({"init"})):
        try:
            print(f"{os.getppid()}: found pid {resolve(where, allow=allow).handle.identity.pid}")
        except LastcallError as error:
            print(f"{os.getppid()}: {error.code}: {error.advice}")
    print("ready", flush=True)
while True:
    signal.pause()
