# An HTTP server that answers as its argument says; its address: a port of 127.0.0.1 (0: any), or
# what contains a slash, a Unix socket. It says `ready (port: N)`.
from __future__ import annotations

import socket
import ssl
import sys
import threading

deed, place, *rest = sys.argv[1:]
if "/" in place:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(place)
elif deed == "six":
    listener = socket.socket(socket.AF_INET6)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind(("::1", int(place)))
else:
    listener = socket.socket()
    listener.bind(("127.0.0.1", int(place)))
listener.listen()
asked: list[str] = []
ANSWERS = {
    "plain": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "unready": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
    "missing": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    "broken": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
    "garbage": b"\x00\x01garbage\r\n\r\n",
    "flood": b"HTTP/1.1 200 OK\r\n\r\n",
    "endless": b"",
    "hang": b"",
    "close": b"",
}


def answer(link: socket.socket) -> None:
    asked.append(link.recv(65536).decode().partition("\r\n")[0])
    print("asked", asked[-1], flush=True)
    kind = "unready" if deed == "busy" and len(asked) < 3 else deed
    link.sendall(ANSWERS.get(kind, ANSWERS["plain"]))
    if deed == "hang":
        link.recv(1)
    while deed in ("flood", "endless"):
        link.sendall(b"x" * 65536)


def serve(link: socket.socket) -> None:
    try:
        if rest:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(rest[0])
            link = context.wrap_socket(link, server_side=True)
        answer(link)
    except OSError:
        pass
    finally:
        link.close()


print(
    f"ready (port: {listener.getsockname() if '/' in place else listener.getsockname()[1]})",
    flush=True,
)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
