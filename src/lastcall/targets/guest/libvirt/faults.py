"""What libvirt's errors mean for a stop.

Source: libvirt 9.0, include/libvirt/virterror.h (virErrorNumber, virErrorDomain).
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from lastcall.kernel.run import printable
from lastcall.targets.guest.machine import Fault, Trouble

if TYPE_CHECKING:
    from lastcall.targets.guest.libvirt.library import Library

_FROM_QEMU = 10

_INTERNAL_ERROR, _SYSTEM_ERROR, _INVALID_ARG = 1, 38, 8

_FAULTS: dict[int, Fault] = {
    3: Fault.UNSUPPORTED,  # VIR_ERR_NO_SUPPORT
    5: Fault.BROKEN,  # VIR_ERR_NO_CONNECT
    6: Fault.BROKEN,  # VIR_ERR_INVALID_CONN
    29: Fault.DENIED,  # VIR_ERR_OPERATION_DENIED
    39: Fault.BROKEN,  # VIR_ERR_RPC
    42: Fault.GONE,  # VIR_ERR_NO_DOMAIN
    45: Fault.DENIED,  # VIR_ERR_AUTH_FAILED
    67: Fault.UNSUPPORTED,  # VIR_ERR_CONFIG_UNSUPPORTED
    68: Fault.HUNG,  # VIR_ERR_OPERATION_TIMEOUT
    74: Fault.UNSUPPORTED,  # VIR_ERR_ARGUMENT_UNSUPPORTED
    79: Fault.DENIED,  # VIR_ERR_AUTH_CANCELLED
    84: Fault.UNSUPPORTED,  # VIR_ERR_OPERATION_UNSUPPORTED
    88: Fault.DENIED,  # VIR_ERR_ACCESS_DENIED
    94: Fault.DENIED,  # VIR_ERR_AUTH_UNAVAILABLE
}

_ADVICE: dict[Fault, str] = {
    Fault.HUNG: "another job may hold the guest: virsh domjobinfo; look into libvirt's log",
    Fault.DENIED: "ask as root, or as a user whom libvirt lets manage guests (group libvirt)",
    Fault.BROKEN: "see whether libvirt runs (virsh uri; systemctl status libvirtd virtqemud), and "
    "what --connect names, such as qemu:///system",
}


def fault_of(code: int | None, domain: int | None, system: int | None, message: str) -> Fault:
    """Of what kind an error is.

    Args:
        code: of `virErrorNumber`; None: libvirt gave no error.
        domain: the part of libvirt that it comes from.
        system: its first number, which is the errno of a system's error.
        message: its text.
    """
    if code == _SYSTEM_ERROR:
        if system in {errno.EACCES, errno.EPERM}:
            return Fault.DENIED
        return Fault.REFUSED if domain == _FROM_QEMU else Fault.BROKEN
    if code == _INTERNAL_ERROR:
        # QEMU's own "no" comes as an internal error of the QEMU driver.
        return Fault.REFUSED if domain == _FROM_QEMU else Fault.BROKEN
    if code == _INVALID_ARG and "unsupported flags" in message:
        return Fault.UNSUPPORTED
    if code is None:
        return Fault.BROKEN
    return _FAULTS.get(code, Fault.REFUSED)


def trouble_of(error: BaseException, what: str, library: Library) -> Trouble:
    """What an exception on libvirt's thread means.

    Args:
        error: what was raised.
        what: what came to nothing, as the beginning of a sentence.
        library: libvirt.
    """
    if isinstance(error, Trouble):
        return error
    if not isinstance(error, library.libvirtError):
        said = printable(f"{type(error).__name__}: {error}", 400)
        return Trouble(Fault.BROKEN, f"{what}: it makes no sense", evidence=(said,))
    said = printable(str(error), 400)
    fault = fault_of(error.get_error_code(), error.get_error_domain(), error.get_int1(), said)
    return Trouble(fault, f"{what}: {said}", _ADVICE.get(fault, ""))
