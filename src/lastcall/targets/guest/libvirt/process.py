"""QEMU's own process of a guest of libvirt, where it runs on this machine.

libvirt's API does not tell it; libvirt keeps it in a file. What the file says is believed only of a
process that was started with the guest's UUID.

Source: libvirt 9.0, src/qemu/qemu_conf.c (stateDir), src/util/virpidfile.c (NAME.pid in it).
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

from lastcall.errors import LastcallError
from lastcall.kernel.identity import Handle

if TYPE_CHECKING:
    from lastcall.targets.guest.libvirt.domain import DomainXml

_SYSTEM = "/run/libvirt"
_PID_BYTES = 16
_CMDLINE_BYTES = 256 * 1024


def of_domain(uri: str, xml: DomainXml) -> Handle | None:
    """QEMU's process, held by its pidfd; None: it cannot be seen.

    Args:
        uri: of a libvirt on this machine.
        xml: what libvirt says of the guest.
    """
    if "/" in xml.name or xml.name in {"", ".", ".."}:
        return None
    for folder in folders(uri):
        pid = _read_pid(os.path.join(folder, f"{xml.name}.pid"))
        if pid is None:
            continue
        try:
            handle = Handle.open(pid)
        except LastcallError:
            continue
        if _is_of(pid, xml.uuid) and not handle.exited():
            return handle
        handle.close()
    return None


def folders(uri: str) -> list[str]:
    """Where libvirt may keep the pids of a URI's guests."""
    parts = urlsplit(uri)
    if parts.path == "/session":
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        places = [os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}", home]
        known = [os.path.join(place, "libvirt", "qemu", "run") for place in places]
        inner = os.path.join("qemu", "run")
    else:
        known, inner = [os.path.join(_SYSTEM, "qemu")], "qemu"
    # A daemon with a socket of its own has its state beside it.
    sockets = [unquote(each) for each in parse_qs(parts.query).get("socket", [])]
    return [os.path.join(os.path.dirname(each), inner) for each in sockets] + known


def _read_pid(path: str) -> int | None:
    try:
        with open(path, "rb") as file:
            text = file.read(_PID_BYTES).strip()
    except OSError:
        return None
    return int(text) if text.isdigit() and int(text) > 1 else None


def _is_of(pid: int, uuid: str) -> bool:
    """Whether a process was started as the QEMU of this guest."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(_CMDLINE_BYTES).split(b"\0")
    except OSError:
        return False
    wanted = uuid.encode()
    return any(
        flag == b"-uuid" and value.lower() == wanted for flag, value in itertools.pairwise(words)
    )
