"""Makes the kernel and the initramfs of the Linux guest: Debian's, unchanged, under `build/linux`.

The kernel and busybox are downloaded and unpacked, not installed; qemu-ga is the one of this
machine, with the libraries that it wants. What was downloaded stays, so that the network is needed
once. Run as a program it makes them now:

    .venv/bin/python tests/guests/linux_image.py
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Not "linux": type checkers would take the folder for the module of that name.
SCRIPTS = Path(__file__).parent / "linux-guest"
BUILD = Path(__file__).parents[2] / "build" / "linux"
KERNEL = "linux-image-cloud-amd64"
BUSYBOX = "busybox-static"
MODULES = (
    *("virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci"),
    *("virtio_blk", "virtio_console", "evdev", "pvpanic", "pvpanic-mmio", "button"),
)
# Where each script stands in the guest.
PLACES = {
    "init": "init",
    "database": "etc/database",
    "button": "etc/acpi/PWRF/00000080",
    "shutdown": "sbin/shutdown",
}
_TRIES = 3
_DOWNLOAD_S = 300.0


class Missing(AssertionError):
    """Something that the guest is made of is not here, and could not be had."""


def made() -> tuple[Path, Path]:
    """The guest's kernel and its initramfs, made now where they are not there yet.

    Raises:
        Missing: Debian's packages are neither here nor to be had, or qemu-ga is not installed.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    with _alone():
        kernel = _unpacked(KERNEL)
        busybox = _unpacked(BUSYBOX)
        files = _files(kernel, busybox)
        known = hashlib.sha256()
        for name, content in sorted(files.items()):
            known.update(f"{name} {len(content)} ".encode() + content)
        initramfs = BUILD / f"initramfs-{known.hexdigest()[:16]}"
        if not initramfs.exists():
            for old in BUILD.glob("initramfs-*"):
                old.unlink()
            _write(initramfs, cpio(files))
    return next(kernel.glob("boot/vmlinuz-*")), initramfs


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Tests run side by side: one makes it, the others wait."""
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(path: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as partial:
        partial.write(content)
        os.fchmod(partial.fileno(), 0o644)
    Path(partial.name).replace(path)


# Debian's packages


def _unpacked(package: str) -> Path:
    """The folder with a package's files."""
    folder = BUILD / package
    if folder.is_dir():
        return folder
    for program in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(program) is None:
            raise Missing(
                f"the Linux guest needs Debian's package {package}, and {program} is not here: "
                f"unpack one into {folder}"
            )
    with tempfile.TemporaryDirectory(prefix="new-", dir=BUILD) as made:
        archive = _downloaded(package, Path(made))
        _run(["dpkg-deb", "-x", str(archive), f"{made}/files"])
        Path(made, "files").chmod(0o755)
        Path(made, "files").rename(folder)
    return folder


def _downloaded(package: str, folder: Path) -> Path:
    """A package's archive: by the lists of this machine, else by new ones of our own.

    Raises:
        Missing: it cannot be had.
    """
    options: list[str] = []
    said = ""
    for attempt in range(_TRIES):
        try:
            if attempt:  # the machine's lists are old or empty; making them new is for root alone
                options = _own_lists()
                _run(["apt-get", *options, "-qq", "update"])
            real = _real_name(package, options)
            _run(["apt-get", *options, "-q", "-o", "APT::Sandbox::User=", "download", real], folder)
            return next(folder.glob("*.deb"))
        except (subprocess.SubprocessError, LookupError, StopIteration) as error:
            output = getattr(error, "stderr", None) or getattr(error, "stdout", None)
            said = str(output or error).strip()
    raise Missing(
        f"the Linux guest needs Debian's package {package}, and it could not be downloaded in "
        f"{_TRIES} tries; is the network there, and is this Debian on amd64? apt says: {said}"
    )


def _own_lists() -> list[str]:
    state, cache = BUILD / "apt" / "state", BUILD / "apt" / "cache"
    for folder in (state / "lists" / "partial", cache / "archives" / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    return ["-o", f"Dir::State={state}", "-o", f"Dir::Cache={cache}", "-o", "APT::Sandbox::User="]


def _real_name(package: str, options: list[str]) -> str:
    """The package itself, or the one that it stands for (as the newest kernel's name does)."""
    if package != KERNEL:
        return package
    shown = _run(["apt-cache", *options, "depends", package])
    found = re.search(r"Depends: (linux-image-[0-9]\S+)", shown)
    if found is None:
        raise LookupError(f"no package {package} in the lists")
    return found[1]


def _run(command: list[str], folder: Path | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        timeout=_DOWNLOAD_S,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "LC_ALL": "C"},
    )
    return done.stdout


# The initramfs


def _files(kernel: Path, busybox: Path) -> dict[str, bytes]:
    """What stands in the guest, by its path there."""
    files = {place: (SCRIPTS / name).read_bytes() for name, place in PLACES.items()}
    files["bin/busybox"] = next(busybox.glob("**/bin/busybox")).read_bytes()
    for module in MODULES:
        name = f"lib/modules/{module}.ko"
        files[name] = next(kernel.glob(f"**/{module}.ko")).read_bytes()
    files["etc/utmp"] = _logged_on("kim", "tty1")
    files["etc/passwd"] = b"root:x:0:0:root:/:/bin/sh\n"
    files["etc/os-release"] = b'ID=debian\nVERSION_ID="12"\nNAME="Debian GNU/Linux"\n'
    for path in _agent():
        files[path.lstrip("/")] = Path(path).read_bytes()
    return files


def _agent() -> list[str]:
    """qemu-ga and the libraries that it wants, by their paths.

    Raises:
        Missing: it is not installed.
    """
    agent = shutil.which("qemu-ga", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if agent is None:
        raise Missing("the Linux guest needs qemu-ga: apt-get install qemu-guest-agent")
    wanted = re.findall(r"(/\S+) \(0x", _run(["ldd", agent]))
    return [agent, *wanted]


def _logged_on(user: str, line: str) -> bytes:
    """An entry of utmp: somebody works at the console. Source: utmp(5), glibc 2.36, x86-64."""
    kind = (7).to_bytes(4, "little")  # USER_PROCESS, as 2 bytes and 2 of padding
    pid = (1).to_bytes(4, "little")
    name = user.encode().ljust(32, b"\0") + bytes(256)
    at = bytes(8) + (1_700_000_000).to_bytes(4, "little") + bytes(4)
    text = kind + pid + line.encode().ljust(32, b"\0") + line[-1:].encode().ljust(4, b"\0") + name
    return (text + at).ljust(384, b"\0")


def cpio(files: dict[str, bytes]) -> bytes:
    """An archive as the kernel unpacks it: all for root, and all may be run.

    Source: Linux 6.1 Documentation/driver-api/early-userspace/buffer-format.rst (newc).
    """
    folders = sorted({str(parent) for name in files for parent in Path(name).parents} - {"."})
    entries = [(name, stat.S_IFDIR | 0o755, b"") for name in folders]
    # The kernel opens it before /init runs.
    entries += [("dev", stat.S_IFDIR | 0o755, b"")]
    entries += [(name, stat.S_IFREG | 0o755, content) for name, content in files.items()]
    entries += [("TRAILER!!!", 0, b"")]
    return b"".join(
        _entry(number, name, mode, content)
        for number, (name, mode, content) in enumerate(entries, 1)
    )


def _entry(number: int, name: str, mode: int, content: bytes) -> bytes:
    # inode, mode, user, group, links, time, size, two devices (major, minor), name's size, check
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + "".join(f"{field:08x}" for field in fields).encode()
    return _whole_words(head + name.encode() + b"\0") + _whole_words(content)


def _whole_words(content: bytes) -> bytes:
    return content + bytes(-len(content) % 4)


if __name__ == "__main__":
    print(*made(), sep="\n")  # noqa: T201 (this is for the command line)
