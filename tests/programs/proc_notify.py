# Sends each argument as one sd_notify datagram (`\n` between its lines), waits for a line of input
# that never comes, or ends if the last argument is `end`. With `--child` a child sends them.
import os
import signal
import socket
import sys

words = sys.argv[1:]
if words[0] == "--child":
    words = words[1:]
    if pid := os.fork():
        os.waitpid(pid, 0)
        print("sent", flush=True)
        signal.pause()
link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
link.connect(os.environ["NOTIFY_SOCKET"])
for word in words:
    if word == "end":
        raise SystemExit(4)
    if word == "barrier":  # as sd_notify_barrier(3): wait until the receiver closes our pipe
        reading, writing = os.pipe()
        socket.send_fds(link, [b"BARRIER=1"], [writing])
        os.close(writing)
        os.read(reading, 1)
        print("barrier passed", flush=True)
        continue
    link.send(word.replace("\\n", "\n").encode())
print("sent", flush=True)
if os.getppid() != os.getsid(0):
    signal.pause()
