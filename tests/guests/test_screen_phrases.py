"""What a screen says is named, through a reader's mistakes; what only speaks of it is not."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.targets.guest.screen.near import find, pattern, squash
from lastcall.targets.guest.screen.phrases import LIMIT_CHARS, Kind, signs
from lastcall.targets.guest.screen.tongues import WORDINGS

Case = tuple[Kind, str, str, str]


def screen(kind: Kind, language: str, value: str, *lines: str) -> Case:
    """A screen, and the one sign that it gives."""
    return kind, language, value, "\n".join(lines)


SCREENS = [
    screen(
        Kind.UPDATING,
        "en",
        "35%",
        "Working on updates",
        "35% complete",
        "Don't turn off your computer",
    ),
    screen(
        Kind.UPDATING,
        "en",
        "35%",
        "Working on updates 35%",
        "Don't turn off your PC. This will take a while.",
        "Your PC will restart several times",
    ),
    screen(
        Kind.UPDATING,
        "en",
        "7%",
        "Configuring Windows updates",
        "7% complete",
        "Do not turn off your computer.",
    ),
    screen(
        Kind.UPDATING,
        "en",
        "7 of 82",
        "Please do not power off or unplug your machine.",
        "Installing update 7 of 82...",
    ),
    screen(Kind.UPDATING, "en", "", "Updates are underway. Please keep your computer on."),
    screen(Kind.UPDATING, "en", "", "Getting Windows ready", "Don't turn off your computer"),
    screen(
        Kind.UPDATING,
        "en",
        "",
        "We couldn't complete the updates",
        "Undoing changes",
        "Don't turn off your computer",
    ),
    screen(Kind.UPDATING, "ko", "35%", "업데이트 작업 중 35% 완료", "컴퓨터를 끄지 마십시오."),
    screen(Kind.UPDATING, "ko", "", "PC를 끄지 마세요"),
    screen(
        Kind.UPDATING, "ko", "3 of 10", "10개 중 3개 업데이트 설치 중", "컴퓨터를 끄지 마십시오"
    ),
    screen(
        Kind.UPDATING,
        "de",
        "35%",
        "Updates werden verarbeitet",
        "35 % abgeschlossen",
        "Schalten Sie den Computer nicht aus.",
    ),
    screen(Kind.UPDATING, "ja", "", "コンピューターの電源を切らないでください"),
    screen(
        Kind.REASON,
        "en",
        "",
        "Shut Down Windows",
        "What do you want the computer to do?",
        "Shut down",
        "Shutdown Event Tracker",
        "Option: [x] Planned",
        "Other (Unplanned)",
        "Comment:",
        "OK Cancel Help",
    ),
    screen(
        Kind.REASON,
        "en",
        "",
        "Shutdown Event Tracker",
        "Why did the computer shut down unexpectedly?",
        "Problem ID:",
        "OK",
    ),
    screen(
        Kind.REASON,
        "en",
        "",
        "Choose a reason that best describes why you want",
        "to shut down this PC",
        "Other (Unplanned)",
        "Continue",
        "Cancel",
    ),
    screen(
        Kind.REASON,
        "ko",
        "",
        "시스템 종료 이벤트 추적기",
        "이유를 선택하십시오",
        "기타(계획되지 않음)",
        "확인",
    ),
    screen(
        Kind.APP_BLOCKS,
        "en",
        "Notepad",
        "Closing 2 apps and shutting down",
        "To go back and save your work, click Cancel and finish what you need to.",
        "Notepad",
        "This app is preventing you from shutting down.",
        "Word",
        "This app is preventing you from shutting down.",
        "Shut down anyway",
        "Cancel",
    ),
    screen(
        Kind.APP_BLOCKS,
        "en",
        "(Waiting for) Untitled - Paint",
        "1 program still needs to close:",
        "(Waiting for) Untitled - Paint",
        "This program is preventing Windows from shutting down.",
        "Force shut down",
        "Cancel",
    ),
    screen(
        Kind.APP_BLOCKS,
        "ko",
        "메모장",
        "앱 1개를 닫고 시스템 종료 중",
        "메모장",
        "이 앱 때문에 시스템을 종료할 수 없습니다.",
    ),
    screen(
        Kind.LOGON, "en", "dialog", "Press Ctrl+Alt+Delete to unlock.", "10:42", "Thursday, March 5"
    ),
    screen(
        Kind.LOGON,
        "en",
        "dialog",
        "Press CTRL + ALT + DELETE to log on",
        "Windows Server 2008 R2 Standard",
    ),
    screen(
        Kind.LOGON,
        "en",
        "dialog",
        "Other user",
        "User name",
        "Password",
        "Sign in to: EXAMPLE",
        "Sign-in options",
    ),
    screen(Kind.LOGON, "ko", "dialog", "잠금을 해제하려면 Ctrl+Alt+Delete 키를 누르세요."),
    screen(Kind.LOGON, "en", "clock", "10:42", "Thursday, March 5"),
    screen(Kind.LOGON, "ko", "clock", "10:42", "3월 5일 목요일"),
    screen(Kind.LOGON, "ko", "clock", "10:42", "3 월 5 일 목요일"),
    screen(Kind.LOGON, "en", "console", "Debian GNU/Linux 12 guest tty1", "", "guest login: _"),
    screen(
        Kind.STOP_JOB,
        "en",
        "Session 1 of User root",
        "[  OK  ] Stopped target Timers.",
        "[ ***  ] A stop job is running for Session 1 of User root (35s / 1min 30s)",
    ),
    screen(
        Kind.STOP_JOB,
        "en",
        "/srv/data",
        "[*** ] (1 of 2) A stop job is running for /srv/data (12s / no limit)",
    ),
    screen(Kind.SHUTTING_DOWN, "en", "", "Shutting down"),
    screen(Kind.SHUTTING_DOWN, "ko", "", "시스템 종료 중"),
    screen(
        Kind.SHUTTING_DOWN,
        "en",
        "",
        "[  OK  ] Reached target System Power Off.",
        "[   99.1] reboot: Power down",
    ),
    screen(Kind.HALTED, "en", "", "[   99.1] reboot: System halted"),
    screen(Kind.HALTED, "en", "", "It is now safe to turn off your computer."),
    screen(
        Kind.PANIC,
        "en",
        "VFS: Unable to mount root fs",
        "[ 3.2] Kernel panic - not syncing: VFS: Unable to mount root fs",
        "[ 3.2] CPU: 0 PID: 1",
        "[ 3.2] Call Trace:",
        "[ 3.2] ---[ end Kernel panic - not syncing: VFS ]---",
    ),
    screen(
        Kind.PANIC,
        "en",
        "CRITICAL_PROCESS_DIED",
        ":(",
        "Your PC ran into a problem and needs to restart. We're just collecting some",
        "error info, and then we'll restart for you.",
        "20% complete",
        "For more information about this issue and possible fixes, visit",
        "https://www.windows.com/stopcode",
        "If you call a support person, give them this info:",
        "Stop code: CRITICAL_PROCESS_DIED",
    ),
    screen(
        Kind.FIRMWARE,
        "en",
        "",
        "SeaBIOS (version 1.16.2-debian-1.16.2-1)",
        "Booting from Hard Disk...",
        "Boot failed: not a bootable disk",
        "",
        "No bootable device.",
    ),
    screen(
        Kind.FIRMWARE,
        "en",
        "",
        "GNU GRUB version 2.06",
        "Debian GNU/Linux",
        "Advanced options for Debian GNU/Linux",
        "Use the ^ and v keys to select which entry is highlighted.",
        "Press enter to boot the selected OS",
    ),
    screen(Kind.DISK_CHECK, "en", "12%", "Scanning and repairing drive (C:): 12% complete."),
    screen(
        Kind.DISK_CHECK,
        "en",
        "12%",
        "/dev/sda1 contains a file system with errors, check forced.",
        "/dev/sda1: 12.0%",
    ),
    screen(Kind.NO_DISPLAY, "en", "", "Guest has not initialized the display (yet)."),
    screen(
        Kind.UPDATING,
        "en",
        "",
        "SeaBIOS (version 1.16.2)",
        "Booting from Hard Disk...",
        "Getting Windows ready",
        "Do not turn off your computer",
        "This takes as long as it takes",
    ),
]

NEGATIVES = {
    "nothing": "",
    "desktop": "Recycle Bin\nType here to search\n10:42 AM\n3/5/2026",
    "editor": "notes.txt - Notepad\nFile Edit Format View Help\nWorking on updates\n"
    "Do not turn off your computer\nShutting down\nThis app is preventing you from shutting down.",
    "editor-ko": "메모장\n파일 편집 서식 보기 도움말\n컴퓨터를 끄지 마십시오\n시스템 종료 중",
    "prose": "While Windows installs updates it says: do not turn off your computer, and you had "
    "better\nheed it. Getting Windows ready may take hours. When it is shutting down for good you\n"
    "may be asked to choose a reason; a kernel panic - not syncing - is another matter.",
    "web": "How to shut down a server | Example\nhttps://example.com/shutdown\nHome Docs Blog\n"
    "Shutdown Event Tracker\nWhen an administrator shuts a server down, Windows asks for the reason"
    " in a dialog.\nYou choose among several, planned and unplanned, and may add a comment.\n"
    "Group policy turns the dialog off for all the machines of a domain.",
    "web-login": "Sign in to your account\nhttps://login.example.com\nEmail\nPassword\n"
    "Sign-in options\nI forgot my password",
    "forum": "Working on updates\nStuck for hours, please help! asked by someone three days ago\n"
    "My machine has been showing this since yesterday evening and the disk light is off.\n"
    "Answer: hold the power button, then boot from the installation medium and repair it.",
    "logs": "Nov 22 10:52:01 host sshd[812]: Failed password for invalid user login from ::1\n"
    "Nov 22 10:52:01 host systemd[1]: Reached target System Power Off.\n"
    "Nov 22 10:52:09 host su[99]: pam_unix(login:session): session opened for login:\n"
    "Nov 22 10:53:12 host app[7]: shutting down worker 3 of 10",
    "old-panic": "[    3.2] Kernel panic - not syncing: VFS\n-- Boot 2f1 --\nNov 22 host kernel: up"
    "\nNov 22 host systemd[1]: Started things.\nNov 22 host systemd[1]: Ready.\nroot@host:~#",
    "shell": "user@host:~$ echo Do not turn off your computer\nDo not turn off your computer\n"
    "user@host:~$ _",
    "shell, prompt unread": "user@host:~$ echo Do not turn off your computer\nDo not turn off your"
    " computer\n_",
    "shell of Windows": "C:\\Users\\me>echo Do not turn off your computer\nDo not turn off your"
    " computer",
    "journal": "systemd[1]: A stop job is running for it (3s / 10s)\nhost systemd[1]: Done.\n"
    "lines 1-2/2 (END)",
    "booted": "SeaBIOS (version 1.16.2)\nBooting from Hard Disk...\nLoading Linux 6.1 and the\n"
    "initial ramdisk of a system\nthat comes up\nand says so in many words",
    "opposite": "Do turn on your computer\nYou may now turn off your computer",
    "wall-clock": "10:42\nThursday, March 5\nNext meeting: planning of the release, third floor",
    "settings": "Windows Update\nYou're up to date\nLast checked: today\nAdvanced options\n"
    "Restart now\nUpdate history\nPause updates for 7 days",
}


@pytest.mark.parametrize(("kind", "language", "value", "text"), SCREENS)
def test_a_screen_is_named(kind: Kind, language: str, value: str, text: str) -> None:
    """Each screen gives its one sign, with its language and what it says besides."""
    found = signs(text)
    assert [(sign.kind, sign.language, sign.value) for sign in found] == [(kind, language, value)]
    assert all(0.5 <= sign.score <= 1 and sign.words for sign in found)


@pytest.mark.parametrize("name", NEGATIVES)
def test_what_only_speaks_of_it_is_not_named(name: str) -> None:
    """A document, a page, a log or a desktop gives no sign, whatever words are in it."""
    assert signs(NEGATIVES[name]) == ()


@pytest.mark.parametrize("case", SCREENS)
def test_a_readers_mistakes_name_nothing_else(case: Case) -> None:
    """One letter in twenty wrong: the sign may be lost, but never becomes another one."""
    kind, _, _, text = case
    chance = random.Random(text)
    for _ in range(10):
        letters = [
            chance.choice("aeoclI|rnm.,") if c.isalpha() and chance.random() < 0.05 else c
            for c in text
        ]
        kinds = {sign.kind for sign in signs("".join(letters))}
        assert kinds <= {kind}


def test_confusable_letters_cost_nothing() -> None:
    """What readers confuse most is the same letter to us."""
    (sign,) = signs("W0rk1ng 0n updates\nD0 n0t tum 0ff your cornputer")
    assert sign.kind is Kind.UPDATING
    assert sign.score > 0.95


def test_two_signs_on_one_screen_are_both_told() -> None:
    """Both are told, the surer first: to decide between them is the caller's."""
    text = "[ *** ] A stop job is running for a (3s / 10s)\n[ 9.1] reboot: System halted"
    assert {sign.kind for sign in signs(text)} == {Kind.STOP_JOB, Kind.HALTED}


def test_the_other_way_round_is_another_word() -> None:
    """Two letters make the opposite: a word that is half wrong is not the word."""
    wanted = pattern("Do not turn off your computer")
    assert find(wanted, squash("Do not turn off your computer"))
    for other in (
        "Do not turn on your computer",
        "It is now safe to turn off your computer",
        "You may now turn off your computer",
    ):
        assert not find(wanted, squash(other))
    assert not find(pattern("컴퓨터를 끄지 마십시오"), squash("컴퓨터를 켜지 마십시오"))


def test_every_wording_is_found_in_itself() -> None:
    """No wording is too short or too odd to be found at all."""
    for wording in WORDINGS:
        found = find(pattern(wording.text), squash(f"xyz {wording.text} xyz"))
        assert found, wording
        assert found[0].likeness == 1.0


def test_a_page_that_quotes_a_screen_is_none() -> None:
    """A page about such a screen has an address, also without a menu; the screen has none."""
    question = "This app is preventing you from shutting down"
    for address in ("forum.example.org/t/99121", "https://support.example.net/t/7"):
        assert signs(f"Q: {question} - Forum\n{address}\nHow do I find out which one it is?") == ()
        assert signs(f"Working on updates\n{address}\nDon't turn off your computer") == ()
    assert [sign.kind for sign in signs(f"Notepad\n{question}")] == [Kind.APP_BLOCKS]


def test_a_setting_is_no_message() -> None:
    """What a file of settings gives as a text is nothing that a system says."""
    assert signs("[power]\nmessage = Do not turn off your computer\ninstall = 3 of 17") == ()
    assert [sign.kind for sign in signs("= Do not turn off your computer")] == [Kind.UPDATING]


def test_no_wording_stands_for_two_kinds() -> None:
    """What alone is enough for one kind is no wording of another."""
    enough = {(w.text, w.kind) for w in WORDINGS if w.sure}
    assert len({text for text, _ in enough}) == len(enough)


def test_a_long_text_is_cut() -> None:
    """What stands beyond any screen's size is not looked at."""
    assert signs("\n" * LIMIT_CHARS + "Working on updates") == ()


@given(st.text(max_size=400))
def test_any_text_is_taken(text: str) -> None:
    """No text makes it fail, and every sign has words and a fair score."""
    for sign in signs(text):
        assert sign.words
        assert 0.5 <= sign.score <= 1


@given(
    st.lists(
        st.one_of(st.sampled_from([w.text for w in WORDINGS]), st.text(max_size=12)), max_size=8
    ),
    st.sampled_from(["\n", " ", "", "\r\n", "\u2028"]),
)
def test_any_mixture_of_wordings_is_taken(pieces: list[str], between: str) -> None:
    """Wordings in any company give each kind at most once."""
    found = [sign.kind for sign in signs(between.join(pieces))]
    assert len(found) == len(set(found))
