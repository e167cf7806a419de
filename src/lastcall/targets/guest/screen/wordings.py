"""What guests write on their screens while they end, or will not end. A table, nothing else.

`sure` says how much of a sign a wording is alone: 1 is enough, two different ones of 0.5 are, and
what has 0 only belongs to such a screen, and does not speak against it.

Sources: the screens of Windows 7 to 11 and Server 2008 R2 to 2025 as Microsoft's documentation
shows and quotes them (Shutdown Event Tracker; "Interactive logon: Do not require CTRL+ALT+DEL";
"Bug check code reference"; support pages on Windows Update and chkdsk), in the languages' own
editions; systemd 252 src/core/manager.c and job.c; Linux 6.1 kernel/reboot.c and kernel/panic.c;
util-linux 2.38 term-utils/agetty.c; e2fsprogs 1.47 e2fsck; SeaBIOS 1.16 src/boot.c; GRUB 2.06;
edk2 ShellPkg and BdsDxe; QEMU 7.2 ui/console.c and hw/display. Wordings nobody of us saw on a real
screen are among them: each has to be told apart from ordinary text by `phrases`, not trusted.
"""

from __future__ import annotations

from enum import StrEnum

from lastcall.record import record


class Kind(StrEnum):
    """What a screen says about the guest's end."""

    UPDATING = "it installs updates"
    REASON = "it asks a person for the reason of the shutdown"
    APP_BLOCKS = "an application holds the shutdown up"
    LOGON = "nobody is logged on, or the session is locked"
    STOP_JOB = "systemd waits for a service to end"
    SHUTTING_DOWN = "it shuts down"
    HALTED = "it has ended, and did not switch itself off"
    PANIC = "its system crashed"
    FIRMWARE = "no system runs: firmware or a boot menu"
    DISK_CHECK = "it checks a disk"
    NO_DISPLAY = "its display is off or was never on"


class Place(StrEnum):
    """Where such a wording stands."""

    SCREEN = "alone on the whole screen"
    WINDOW = "in a window of its own, others may be behind it"
    END = "among the last lines of a console"


@record
class Wording:
    """What a guest writes.

    Args:
        kind: of what it is a sign.
        place: where it stands.
        language: ISO 639-1.
        text: the words.
        sure: how much of a sign it is alone: 1 is enough.
    """

    kind: Kind
    place: Place
    language: str
    text: str
    sure: float


def table(kind: Kind, place: Place, language: str, sure: float, texts: str) -> list[Wording]:
    """Wordings of one sort, one a line."""
    lines = (line.strip() for line in texts.strip().splitlines())
    return [Wording(kind, place, language, line, sure) for line in lines]


_S, _W, _E = Place.SCREEN, Place.WINDOW, Place.END

# fmt: off
ENGLISH: tuple[Wording, ...] = (
    *table(Kind.UPDATING, _S, "en", 1, """
        Do not turn off your computer
        Don't turn off your computer
        Don't turn off your PC
        Please keep your computer on
        Please do not power off or unplug your machine
        Working on updates
        Working on features
        Getting Windows ready
        Configuring Windows updates
        Configuring Windows features
        Configuring update for Windows
        Preparing to configure Windows
        Undoing changes made to your computer
        Failure configuring Windows updates. Reverting changes
        We couldn't complete the updates
        Updating your system
        """),
    *table(Kind.UPDATING, _S, "en", 0.5, """
        Installing update 3 of 10
        Updates are underway
        There are some updates
        Installing Updates
        Your PC will restart several times
        This will take a while
        This may take several minutes
        Your computer will restart several times
        """),
    *table(Kind.UPDATING, _S, "en", 0, """
        complete
        Please wait
        Stage 3 of 3
        Preparing
        """),
    *table(Kind.REASON, _W, "en", 1, """
        Choose a reason that best describes why you want to shut down this PC
        Choose a reason that best describes why you want to shut down this computer
        Select the option that best describes why you want to shut down the computer
        """),
    *table(Kind.REASON, _W, "en", 0.5, """
        Shutdown Event Tracker
        Shut Down Windows
        What do you want the computer to do
        Why did the computer shut down unexpectedly
        Why do you want to shut down
        Choose a reason
        Select a reason
        Other (Unplanned)
        Other (Planned)
        Problem ID
        """),
    *table(Kind.REASON, _W, "en", 0, """
        Option
        Comment
        Planned
        Continue
        Cancel
        """),
    *table(Kind.APP_BLOCKS, _S, "en", 1, """
        This app is preventing you from shutting down
        This app is preventing you from restarting
        This app is preventing shutdown
        This program is preventing Windows from shutting down
        Closing 2 apps and shutting down
        Closing 1 app and shutting down
        Closing apps and shutting down
        program still needs to close
        programs still need to close
        Waiting for background programs to close
        """),
    *table(Kind.APP_BLOCKS, _S, "en", 0.5, """
        Shut down anyway
        Restart anyway
        Force shut down
        is preventing shutdown
        To go back and save your work, click Cancel and finish what you need to
        """),
    *table(Kind.APP_BLOCKS, _S, "en", 0, """
        To close the program that's preventing Windows from shutting down, click Cancel
        and then close the program
        Cancel
        """),
    *table(Kind.LOGON, _S, "en", 1, """
        Press Ctrl+Alt+Delete to unlock
        Press Ctrl+Alt+Del to unlock
        Press Ctrl+Alt+Delete to sign in
        Press Ctrl+Alt+Delete to log on
        Press Ctrl+Alt+Del to log on
        Press Ctrl-Alt-Delete to begin
        How do I sign in to another domain
        How do I log on to another domain
        """),
    *table(Kind.LOGON, _S, "en", 0.5, """
        Other user
        Switch user
        Sign in to
        Sign-in options
        Log on to
        I forgot my PIN
        I forgot my password
        Enter your password
        Enter your PIN
        This computer is locked
        The computer is in use and has been locked
        """),
    *table(Kind.LOGON, _S, "en", 0, """
        Sign in
        Password
        User name
        Locked
        Administrator
        Unlock the PC
        """),
    *table(Kind.STOP_JOB, _E, "en", 1, """
        A stop job is running for
        """),
    *table(Kind.SHUTTING_DOWN, _S, "en", 1, """
        Shutting down
        Windows is shutting down
        Logging off
        Signing out
        """),
    *table(Kind.SHUTTING_DOWN, _E, "en", 1, """
        Reached target System Shutdown
        Reached target System Power Off
        Reached target Late Shutdown Services
        The system is going down NOW
        reboot: Power down
        """),
    *table(Kind.HALTED, _S, "en", 1, """
        It is now safe to turn off your computer
        """),
    *table(Kind.HALTED, _E, "en", 1, """
        reboot: System halted
        """),
    *table(Kind.NO_DISPLAY, _S, "en", 1, """
        Display output is not active
        Guest has not initialized the display (yet)
        This VM has no graphic display device
        """),
    *table(Kind.PANIC, _E, "en", 1, """
        Kernel panic - not syncing
        """),
    *table(Kind.PANIC, _S, "en", 1, """
        Your PC ran into a problem and needs to restart
        Your PC ran into a problem that it couldn't handle
        Your device ran into a problem and needs to restart
        We're just collecting some error info, and then we'll restart for you
        A problem has been detected and Windows has been shut down to prevent damage
        """),
    *table(Kind.PANIC, _S, "en", 0.5, """
        Stop code
        If you call a support person, give them this info
        For more information about this issue and possible fixes, visit
        Beginning dump of physical memory
        Technical information
        """),
    *table(Kind.PANIC, _S, "en", 0, """
        to your computer
        If this is the first time you've seen this Stop error screen, restart your computer
        complete
        """),
    *table(Kind.FIRMWARE, _E, "en", 1, """
        No bootable device
        Booting from Hard Disk
        Boot failed: not a bootable disk
        Boot failed: could not read the boot disk
        UEFI Interactive Shell
        BdsDxe: failed to load Boot
        BdsDxe: No bootable option or device was found
        Start PXE over IPv4
        Operating System not found
        Missing operating system
        Reboot and Select proper Boot device
        BOOTMGR is missing
        error: no such device
        grub rescue
        """),
    *table(Kind.FIRMWARE, _E, "en", 0.5, """
        SeaBIOS (version
        """),
    *table(Kind.FIRMWARE, _S, "en", 0.5, """
        GNU GRUB version
        keys to select which entry is highlighted
        Press enter to boot the selected OS
        The highlighted entry will be executed automatically
        Windows Boot Manager
        Choose an operating system to start
        Machine UUID
        """),
    *table(Kind.FIRMWARE, _S, "en", 0, """
        Use the ^ and v
        `e' to edit the commands before booting or `c' for a command-line
        Advanced options for
        """),
    *table(Kind.DISK_CHECK, _S, "en", 1, """
        Scanning and repairing drive
        Checking file system on
        One of your disks needs to be checked for consistency
        To skip disk checking, press any key within
        CHKDSK is verifying
        """),
    *table(Kind.DISK_CHECK, _S, "en", 0.5, """
        The type of the file system is NTFS
        """),
    *table(Kind.DISK_CHECK, _S, "en", 0, """
        complete
        """),
    *table(Kind.DISK_CHECK, _E, "en", 1, """
        contains a file system with errors, check forced
        was not cleanly unmounted, check forced
        UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY
        Press Ctrl+C to cancel all filesystem checks in progress
        Pass 1: Checking inodes, blocks, and sizes
        """),
)
