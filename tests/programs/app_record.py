# A program that keeps a run record and does what it is told, line by line; it answers each line.
# app_record.py FILE [PROC [NAME]]; FILE "-" is the default place. It opens the record when told
# "open", so that a test can move it somewhere first.
import ctypes
import os
import signal
import sys
import threading

from lastcall.app.previous import Record

path = "" if sys.argv[1] == "-" else sys.argv[1]
proc = sys.argv[2] if len(sys.argv) > 2 else "/proc"
name = sys.argv[3] if len(sys.argv) > 3 else "victim"
slots: list[int] = []
record = None


def on_term(*_: object) -> None:
    record.stopping("SIGTERM")
    while slots:
        record.leave(slots.pop())
    record.ended(reason="SIGTERM", clean=True, left=(), exit_code=0)
    sys.exit(0)


def child() -> None:
    # It lives on after its parent, and works: none of that is the parent's.
    if os.fork() == 0:
        record.enter("the child's")
        record.stopping("the child's")
        print(f"child {os.getpid()}", flush=True)
        threading.Event().wait()


def c_child() -> None:
    # Forked below Python: no hook runs, so it keeps the descriptor and the mapping.
    python = ctypes.PyDLL(None)
    if pid := python.fork():
        print(f"child {pid}", flush=True)
    else:
        python.pause()


def fails() -> None:
    raise ValueError("no such order")


def in_thread() -> None:
    thread = threading.Thread(target=fails, name="worker")
    thread.start()
    thread.join()


signal.signal(signal.SIGTERM, on_term)
print(f"ready (pid: {os.getpid()})", flush=True)
for line in sys.stdin:
    word, _, rest = line.rstrip("\n").partition(" ")
    match word:
        case "open":
            record = Record.open(name, path, proc=proc)
            print(f"{record.previous.ended.value} {record.path} {record.warning}", flush=True)
            continue
        case "enter":
            slots.append(record.enter(rest))
        case "leave":
            record.leave(slots.pop())
        case "many":
            slots += [record.enter(f"order {n}") for n in range(int(rest))]
        case "stopping":
            record.stopping(rest)
        case "clean":
            record.ended(reason=rest, clean=True, left=(), exit_code=0)
        case "cut":
            record.ended(reason=rest, clean=False, left=["hook 'save'"], exit_code=143)
        case "close":
            record.close()
        case "raise":
            fails()
        case "thread":
            in_thread()
        case "os_exit":
            os._exit(int(rest))
        case "sys_exit":
            sys.exit(int(rest))
        case "end":
            break
        case "fault":
            ctypes.string_at(0)
        case "abort":
            os.abort()
        case "child":
            child()
            continue
        case "c_child":
            c_child()
            continue
        case "exit_child":
            if (pid := os.fork()) == 0:
                os._exit(7)
            os.waitpid(pid, 0)
        case "exec":
            os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606 (that is the case)
        case "work":
            # For ever, so that a kill falls anywhere.
            print("working", flush=True)
            while True:
                a, b = record.enter("first"), record.enter("second " + "x" * 60)
                record.stopping("again")
                record._fields.pop("stop_at")
                record.leave(a)
                record.leave(b)
        case "eat":
            eaten = bytearray()
            while True:
                eaten += b"x" * (1 << 20)
    print("done", flush=True)
