"""What the screens of the measurement say (scripts/guests.py): words that the rules never saw.

They were gathered without a look at the rules (`targets/guest/screen`): what other versions of
Windows and other systems show, as public pages quote it and people remember it, and the same said
in other words. Real screens differ from all of them.

Source: learn.microsoft.com (Shutdown Event Tracker; "Restart or shut down locally and document the
reason"; Interactive logon: Do not require CTRL+ALT+DEL; ShutdownBlockReasonCreate; Windows 2000
DisableCAD), devblogs.microsoft.com/oldnewthing 20120614 and 20200414 (the buttons of the blocked
shutdown), and users' reports of what stood on their screens.
"""

from __future__ import annotations

from dataclasses import dataclass

# How it stands on the screen (`screens_unseen`).
MESSAGE, DIALOG, SECURE = "message", "dialog", "dialog, no desktop"
PAGE, CONSOLE = "page", "console"


@dataclass(frozen=True, slots=True)
class Wording:
    """One screen's words.

    Args:
        lines: of the text.
        form: how it stands on the screen.
        title: of its window; empty: it has none.
        buttons: of its window.
    """

    lines: tuple[str, ...]
    form: str = MESSAGE
    title: str = ""
    buttons: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """All of its words."""
        return "\n".join(each for each in (self.title, *self.lines, *self.buttons) if each)

    @property
    def korean(self) -> bool:
        """Whether it needs a Korean font."""
        return any("가" <= letter <= "힣" for letter in self.text)


def message(*lines: str) -> Wording:
    """A few lines on the whole screen."""
    return Wording(lines)


def console(*lines: str) -> Wording:
    """Lines from the upper left corner on, in letters of one width."""
    return Wording(lines, CONSOLE)


def dialog(title: str, *lines: str, buttons: tuple[str, ...] = ()) -> Wording:
    """A window on a desktop."""
    return Wording(lines, DIALOG, title, buttons)


def secure(title: str, *lines: str, buttons: tuple[str, ...] = ()) -> Wording:
    """A window where nobody is logged on: nothing is behind it."""
    return Wording(lines, SECURE, title, buttons)


def page(title: str, *lines: str) -> Wording:
    """A program that fills the screen."""
    return Wording(lines, PAGE, title)


UPDATING = (
    message("Configuring Windows updates", "35% complete", "Do not turn off your computer."),
    message("업데이트 작업 중", "30% 완료", "컴퓨터를 끄지 마세요."),
    message("Please do not power off or unplug your machine.", "Installing update 3 of 17..."),
    message("Working on updates", "27% complete", "Don't turn off your computer"),
    message("Windows 업데이트 구성 중", "35% 완료", "컴퓨터를 끄지 마십시오."),
    message("Updates are underway. Please keep your computer on.", "64% complete"),
    message("Undoing changes made to your computer", "Don't turn off your computer"),
    message("컴퓨터의 전원을 끄거나 플러그를 뽑지 마십시오.", "업데이트 설치 중(3/12)..."),
    message(
        "Failure configuring Windows updates", "Reverting changes", "Do not turn off your computer."
    ),
    message("We couldn't complete the updates", "Undoing changes", "Don't turn off your computer"),
    message("업데이트를 완료할 수 없음", "변경 내용 취소 중", "컴퓨터를 끄지 마세요."),
    message("Preparing to configure Windows.", "Do not turn off your computer."),
    message("Configuring Windows features", "40% complete", "Do not turn off your computer."),
    message(
        "Windows 업데이트를 구성하지 못했습니다.",
        "변경 내용을 되돌리는 중입니다.",
        "컴퓨터를 끄지 마십시오.",
    ),
    message(
        "Installing Windows", "48%", "Your PC will restart several times. This might take a while."
    ),
    message("Installing Updates...", "37% complete"),
    message("업데이트가 진행 중입니다.", "컴퓨터를 켜 두세요.", "52% 완료"),
    message(
        "Finishing the installation of updates",
        "Step 2 of 3, 80 % done",
        "Please leave this machine switched on until it is over.",
    ),
    message("Windows를 구성할 준비를 하는 중입니다.", "컴퓨터를 끄지 마십시오."),
    message(
        "업데이트를 설치하고 있습니다 61%", "PC가 여러 번 다시 시작됩니다.", "잠시 기다려 주세요."
    ),
)

_OK = ("OK", "Cancel", "Help")
_DO = "What do you want the computer to do?"
_SHUT = "Ends your session and shuts down Windows so that you can safely turn off power."
_SELECT = "Select the option that best describes why you want to shut down the computer."
_KO_OK = ("확인", "취소", "도움말")
_KO_DO = "무엇을 하시겠습니까?"
_KO_SELECT = "컴퓨터를 종료하려는 이유를 가장 잘 설명하는 옵션을 선택하십시오."

REASON = (
    dialog(
        "Shut Down Windows",
        *(_DO, "Shut down", _SHUT, "Shutdown Event Tracker", _SELECT),
        *("Option:   [x] Planned", "Operating System: Reconfiguration (Planned)", "Comment:"),
        buttons=_OK,
    ),
    dialog(
        "Windows 종료",
        *(_KO_DO, "시스템 종료", "시스템 종료 이벤트 추적기", _KO_SELECT),
        *("옵션:   [x] 계획됨", "운영 체제: 다시 구성(계획됨)", "설명:"),
        buttons=_KO_OK,
    ),
    dialog(
        "Shut Down Windows",
        *(_DO, "Restart", "Shutdown Event Tracker", _SELECT, "Option:   [ ] Planned"),
        *("Application: Unresponsive", "Comment:", "A comment is required for this option."),
        buttons=_OK,
    ),
    message(
        "Choose a reason that best describes why you want to shut down this PC",
        "Other (Unplanned)",
        "Continue",
    ),
    message(
        "이 PC를 종료하려는 이유를 가장 잘 설명하는 항목을 선택하세요.",
        "기타(계획되지 않음)",
        "계속",
    ),
    message(
        "Choose a reason that best describes why you want to restart this PC",
        "Hardware: Maintenance (Planned)",
        "Continue     Cancel",
    ),
    dialog(
        "Shut Down",
        *("Shutdown Event Tracker", "Why do you want to shut this computer down?"),
        *("Hardware: Installation (Planned)", "Comment:"),
        buttons=("OK", "Cancel"),
    ),
    dialog(
        "시스템 종료",
        *("종료 이벤트 추적기", "컴퓨터를 종료하려는 이유를 선택하십시오."),
        *("하드웨어: 유지 관리(계획됨)", "설명:"),
        buttons=("확인", "취소"),
    ),
    dialog(
        "Shut Down Windows",
        *("Shutdown Event Tracker", _SELECT, "Option:  Other (Planned)"),
        *("A shutdown or restart for an unknown reason", "Problem ID:", "Comment:"),
        buttons=_OK,
    ),
    message(
        "Pick the reason that best explains why this server is being shut down",
        "Security issue",
        "Continue",
    ),
    message("이 PC를 다시 시작하려는 이유를 선택하세요.", "보안 문제", "계속     취소"),
    dialog(
        "Shut Down Windows",
        *("Shutdown Event Tracker", "Select a reason for shutting down."),
        *("Application: Maintenance (Unplanned)", "Comment:"),
        buttons=_OK,
    ),
    dialog(
        "Windows Server",
        *("Select a reason for this shutdown:", "Operating System: Upgrade (Planned)"),
        *("Enter a comment:", ""),
        buttons=("OK", "Cancel"),
    ),
    dialog(
        "Windows 종료",
        *("시스템 종료 이벤트 추적기", "다시 시작하거나 종료하려는 이유를 선택하십시오."),
        *("응용 프로그램: 응답 없음", "설명:"),
        buttons=_KO_OK,
    ),
    dialog(
        "Shut down computer",
        *("Before the computer is shut down, give the reason for it.", "Reason: Other (Unplanned)"),
        *("Comment (required):",),
        buttons=("Shut down", "Cancel"),
    ),
    message(
        "Choose a reason that best describes why you want to shut down this computer",
        "Operating System: Recovery (Planned)",
        "Continue",
    ),
    message("이 컴퓨터를 종료하는 이유를 선택해 주세요", "운영 체제: 복구(계획됨)", "계속", "취소"),
    dialog(
        "Shut Down Windows",
        *(
            _DO,
            "Shut down",
            "Shutdown Event Tracker",
            _SELECT,
            "Option: Power Failure: Environment",
        ),
        *("Comment:", "UPS battery is low"),
        buttons=_OK,
    ),
    dialog(
        "Windows 시스템 종료",
        *(_KO_SELECT, "옵션:", "기타(계획됨)", "알 수 없는 이유로 종료하거나 다시 시작", "설명:"),
        buttons=_KO_OK,
    ),
    message("종료 이유를 선택하십시오", "하드웨어: 설치(계획되지 않음)", "확인     취소"),
)

_ANYWAY = "Shut down anyway          Cancel"
_BACK = "To go back and save your work, click Cancel and finish what you need to."
_KO_ANYWAY = "강제로 종료          취소"
_END_NOW = (
    "This program is not responding.",
    "To return to Windows and check the status of the program, click Cancel.",
    "If you choose to end the program immediately, you will lose any unsaved data.",
    "To end the program now, click End Now.",
)

APP_BLOCKS = (
    message(
        "1 program still needs to close:",
        "(Waiting for) Untitled - Notepad",
        "This program is preventing Windows from shutting down.",
        "Force shut down          Cancel",
    ),
    message(
        "1개 앱을 닫고 종료하는 중",
        "돌아가서 작업을 저장하려면 취소를 클릭하고 필요한 작업을 완료하세요.",
        "제목 없음 - 메모장",
        "이 앱 때문에 종료할 수 없습니다.",
        _KO_ANYWAY,
    ),
    message(
        "Closing 2 apps and shutting down",
        _BACK,
        "Book1 - Excel",
        "This app is preventing shutdown.",
        _ANYWAY,
    ),
    dialog("End Program - WINWORD.EXE", *_END_NOW, buttons=("End Now", "Cancel")),
    message(
        "아직 프로그램 1개를 닫아야 합니다.",
        "문서1 - Microsoft Word",
        "이 프로그램 때문에 Windows를 종료할 수 없습니다.",
        "강제 종료          취소",
    ),
    message(
        "2 programs still need to close:",
        "Backup Exec",
        "A backup is running.",
        "To close the program that's preventing Windows from shutting down, click Cancel,",
        "and then close the program.",
        "Force shut down          Cancel",
    ),
    message(
        "Closing 1 app and signing out",
        _BACK,
        "SQL Server Management Studio",
        "This app is preventing you from signing out.",
        "Sign out anyway          Cancel",
    ),
    dialog(
        "프로그램 끝내기 - 메모장",
        "이 프로그램이 응답하지 않습니다.",
        "Windows로 돌아가서 프로그램의 상태를 확인하려면 [취소]를 클릭하십시오.",
        "프로그램을 바로 끝내면 저장되지 않은 데이터는 모두 손실됩니다.",
        buttons=("지금 끝내기", "취소"),
    ),
    dialog("End Program - PaymentServer", *_END_NOW, buttons=("End Now", "Cancel")),
    message(
        "Closing 4 apps and restarting",
        "Visual Studio Code",
        "This app is preventing you from restarting.",
        "Restart anyway          Cancel",
    ),
    message(
        "앱 3개를 닫고 종료하는 중",
        "한글 2020",
        "이 앱이 종료를 막고 있습니다.",
        "그래도 종료          취소",
    ),
    message(
        "These programs are keeping Windows from shutting down:",
        "Nero Burning ROM - a disc is being burnt",
        "Force shut down          Cancel",
    ),
    dialog(
        "A program is still running",
        "Waiting for the program to finish. Interrupting the program may cause you to lose work.",
        "gedit",
        buttons=("Shut Down Anyway", "Cancel"),
    ),
    message(
        "닫아야 할 프로그램이 2개 더 있습니다.",
        "(기다리는 중) 보고서.xlsx - Excel",
        "Windows 종료를 방해하는 프로그램을 닫으려면 취소를 클릭한 다음 프로그램을 닫으십시오.",
        "강제 종료          취소",
    ),
    message(
        "Waiting for 1 app to close before shutting down",
        "AutoCAD 2019: unsaved changes in plant.dwg",
        _ANYWAY,
    ),
    message(
        "Closing apps and shutting down",
        _BACK,
        "Outlook - Sending messages",
        "This app is stopping you from shutting down.",
        _ANYWAY,
    ),
    message(
        "앱을 닫고 시스템을 종료하는 중입니다.",
        "SAP GUI",
        "이 앱으로 인해 시스템을 종료하지 못하고 있습니다.",
        "무시하고 종료          취소",
    ),
    message(
        "Windows can't shut down because 1 app is still open",
        "Paint - untitled",
        "Force shut down          Cancel",
    ),
    message(
        "1개 앱을 닫고 다시 시작하는 중",
        "Photoshop",
        "이 앱 때문에 다시 시작할 수 없습니다.",
        "그래도 다시 시작          취소",
    ),
    message(
        "종료하려면 다음 프로그램을 닫아야 합니다.",
        "데이터베이스 백업",
        "강제 종료          취소",
    ),
)

LOGON = (
    secure(
        "Welcome to Windows",
        "Press Ctrl-Alt-Delete to begin.",
        "Requiring this key combination at startup helps keep your computer secure.",
        "For more information, click Help.",
    ),
    message("Ctrl+Alt+Delete를 눌러 잠금을 해제하세요.", "오전 9:12", "11월 3일 화요일"),
    message("Press CTRL + ALT + DELETE to log on", "Windows Server 2008 R2 Standard"),
    message("Other user", "User name", "Password", "Sign in to: CONTOSO", "Sign-in options"),
    message("로그온하려면 <Ctrl>+<Alt>+<Del>을 누르십시오."),
    secure(
        "Unlock Computer",
        "This computer is in use and has been locked.",
        "Only CONTOSO\\Administrator or an administrator can unlock this computer.",
        "Press Ctrl-Alt-Del to unlock this computer.",
    ),
    secure(
        "Log On to Windows",
        *("Copyright 1985-2003 Microsoft Corporation", "User name: Administrator", "Password:"),
        *("Log on to: FILESRV01 (this computer)",),
        buttons=("OK", "Cancel", "Options >>"),
    ),
    message("다른 사용자", "사용자 이름", "암호", "로그인 대상: CONTOSO", "로그인 옵션"),
    message("Press Ctrl + Alt + Del to sign in.", "7:45", "Monday, January 12"),
    console("Debian GNU/Linux 12 web01 tty1", "", "web01 login: "),
    secure(
        "Windows 시작",
        "시작하려면 Ctrl-Alt-Delete를 누르십시오.",
        "시작할 때 이 키 조합을 사용하면 컴퓨터를 안전하게 보호할 수 있습니다.",
    ),
    message("Administrator", "Locked", "Password", "Switch User", "Windows 7 Professional"),
    console("Ubuntu 22.04.3 LTS db-2 tty1", "", "db-2 login: "),
    secure(
        "Windows 로그온",
        *("사용자 이름: Administrator", "암호:", "로그온 위치: SEOUL"),
        buttons=("확인", "취소", "옵션 >>"),
    ),
    message("Administrator", "Enter your PIN", "I forgot my PIN", "Sign-in options"),
    secure(
        "Computer Locked",
        "This computer has been locked.",
        "Only the user who is logged on, or an administrator, may unlock it.",
        "Press Ctrl+Alt+Del.",
    ),
    message("Administrator", "암호", "로그인", "Windows Server 2019"),
    message("Switch User", "To begin, click your user name", "Administrator", "Turn off computer"),
    message("잠김", "Administrator", "암호를 입력하세요", "사용자 전환"),
    message(
        "Ctrl + Alt + Del 키를 눌러 로그인하십시오", "Windows Server 2012 R2", "14:03", "5월 20일"
    ),
)
