"""Screens that say nothing of why a guest does not stop, for the measurement (scripts/guests.py).

Clocks of lock screens, what systems show while they start, and other screens that speak of the same
things as those of `wordings_unseen` and mean nothing of the kind. Written without a look at the
rules, from what such programs show.
"""

from __future__ import annotations

from guests.wordings_unseen import console, dialog, message, page

CLOCK = (
    message("9:05", "Tuesday, November 3"),
    message("오후 3:27", "11월 3일 화요일"),
    message("14:32", "Friday 13 September"),
    message("6:58 AM", "Sunday, February 8"),
    message("21:10", "2월 8일 일요일"),
    message("00:00", "Wednesday, 1 January"),
    message("11:41", "Sat 22 Aug"),
    message("오전 12:15", "2025년 6월 1일"),
    message("5:20 PM", "Thursday, April 30"),
    message("17:47", "Montag, 4. Mai"),
    message("9:05", "3월 30일 월요일", "회의 10:00"),
    message("8:08", "Monday, August 8", "2 new messages"),
    message("13:13", "Tue 13 Oct"),
    message("오전 10:10", "10월 10일 토요일"),
    message("22:01", "lundi 2 mars"),
    message("3:45 AM", "Saturday, December 19", "Rain, 6 degrees"),
    message("오후 8:30", "1월 4일"),
    message("10:59", "Wednesday, July 22"),
    message("07:30", "7월 22일 수요일", "맑음 24도"),
    message("4:16 PM", "Friday, October 2", "Team lunch"),
)

BOOT = (
    message("Microsoft Windows Server 2008", "Loading files..."),
    message("Windows를 시작하는 중"),
    console("Loading Linux 6.1.0-18-amd64 ...", "Loading initial ramdisk ..."),
    message("Just a moment..."),
    message("잠시만 기다려 주세요"),
    message("Starting services", "Please wait"),
    console("[    0.531] pci 0000:00:01.1: IDE controller", "[    0.577] ata1: PATA max MWDMA2"),
    message("Windows Server를 불러오는 중..."),
    message("Applying computer settings..."),
    console("Welcome to GRUB!", "", "Booting 'Debian GNU/Linux'"),
    message("컴퓨터 설정을 적용하는 중..."),
    message("Resuming Windows"),
    message("Microsoft Windows XP Professional"),
    message("네트워크 연결을 준비하는 중..."),
    console("FreeBSD/amd64 bootstrap loader, Revision 1.1", "Loading kernel..."),
    message("Please wait for the Group Policy Client"),
    message("사용자 프로필 서비스를 기다리는 중"),
    message("Preparing network connections..."),
    message("Windows 시작 중", "잠시 기다리십시오"),
    console("iPXE 1.21.1 -- Open Source Network Boot Firmware"),
)

# None of these says why a guest does not stop.
NOTHING = (
    page(
        "notes.txt - Notepad",
        *("Patch day, Tuesday", "- install the updates on FILESRV01, then restart it"),
        *("- tell everybody: do not turn off your computer while updates are installed",),
        *("- write the reason of each shutdown into the log", "- call Mina about the licences"),
    ),
    page(
        "공지사항.txt - 메모장",
        *("화요일 업데이트 설치 안내", "- 업데이트가 설치되는 동안 컴퓨터를 끄지 마세요"),
        *("- 종료하는 이유를 일지에 적어 주세요", "- 문의: 전산팀 김민아"),
    ),
    message("LOADING LEVEL 3", "45%", "Do not turn off the power while the game is saved."),
    dialog(
        "Setup - PostgreSQL",
        *("Installing", "Please wait while Setup installs PostgreSQL on your computer."),
        *("Extracting files... 37%",),
        buttons=("Cancel",),
    ),
    page(
        "My PC is stuck on a message - Support",
        *("https://support.example.org/updates-stuck", "My PC shows Working on updates for hours."),
        *("What should I do? Wait at first: some updates take an hour. If it still says",),
        *("Don't turn off your computer the next day, hold the power button for ten seconds.",),
        *("Was this page helpful?   Yes   No",),
    ),
    message("게임을 저장하고 있습니다.", "전원을 끄지 마세요.", "72%"),
    page(
        "Event Viewer - System",
        *("Information   User32   1074", "The process shutdown.exe has initiated the power off of"),
        *("computer FILESRV01 on behalf of user CONTOSO\\mina for the following reason:",),
        *("Other (Planned)   Reason Code: 0x85000000   Shutdown Type: power off   Comment:",),
    ),
    console(
        "C:\\> shutdown /?",
        "/s    Shutdown the computer.",
        "/d    Provide the reason for the restart or shutdown.",
        "/c    Comment on the reason for the restart or shutdown.",
        "/f    Force running applications to close without forewarning users.",
        "C:\\> ",
    ),
    page(
        "컴퓨터가 종료되지 않아요 - 질문과 답변",
        *("https://help.example.kr/questions/1182", "종료하려고 하면 앱 때문에 종료할 수 없다고"),
        *("나옵니다. 어떻게 해야 하나요?", "답변: 작업 관리자에서 그 앱을 끝내고 다시 해 보세요."),
    ),
    page(
        "Inbox - Mina Kim - Outlook",
        *(
            "From: Joon Park",
            "Subject: FILESRV01 again",
            "Hi Mina, when I shut it down yesterday it",
        ),
        *("said that Notepad is preventing Windows from shutting down. I clicked Cancel.",),
        *("Can you have a look? Thanks, Joon",),
    ),
    console(
        "root@web01:~# apt-get upgrade",
        "Reading package lists... Done",
        "The following packages will be upgraded:",
        "  libssl3 openssl tzdata",
        "Setting up tzdata (2025b-0+deb12u1) ...",
        "Progress: [ 66%]",
    ),
    dialog(
        "한글 설치",
        *("설치 중입니다. 잠시만 기다려 주십시오.", "파일 복사 중... 61%"),
        buttons=("취소",),
    ),
    page(
        "Settings - Windows Update",
        *("Updates available. Last checked: today, 9:12", "Cumulative Update for Windows Server"),
        *("Status: Downloading - 45%", "Change active hours   View update history"),
    ),
    page(
        "Training.pptx - PowerPoint",
        *("How to log on", "1. Press Ctrl+Alt+Delete", "2. Enter your user name and password"),
        *("3. Choose the domain", "Never tell anybody your password."),
    ),
    page(
        "사용 설명서 - Adobe Reader",
        *(
            "2장. 로그온하기",
            "1. Ctrl+Alt+Delete를 누릅니다.",
            "2. 사용자 이름과 암호를 입력합니다.",
        ),
        *("3. 확인을 클릭합니다.", "12 / 84"),
    ),
    dialog(
        "Antivirus",
        *("Updating virus definitions", "62% complete", "Last scan: yesterday, no threats found"),
        buttons=("Hide", "Cancel"),
    ),
    page(
        "Book1 - Excel",
        *("Server      Reason of the shutdown      Who", "FILESRV01   Other (Unplanned)   Mina"),
        *(
            "WEB01       Hardware: Maintenance (Planned)   Joon",
            "DB2         Security issue   Mina",
        ),
    ),
    message("Ready?", "Press any key to start", "Insert coin"),
    page(
        "채팅 - 전산팀",
        *("민아: 서버 재시작했어요?", "준: 아직요. 업데이트 구성 중이라고 나와서 기다리고 있어요"),
        *("민아: 끄지 마세요 ㅎㅎ", "준: 네"),
    ),
    page(
        "Task Manager",
        *(
            "Processes   Performance   Users   Details",
            "Windows Modules Installer Worker   12% CPU",
        ),
        *("Notepad   Not responding", "SQL Server   3% CPU   412 MB"),
    ),
    dialog(
        "Visual Studio Installer",
        *(
            "Updating Build Tools 2022",
            "Downloading 214 MB of 1.2 GB",
            "Installing package 31 of 90",
        ),
        buttons=("Pause",),
    ),
    dialog(
        "백업",
        *("백업이 진행 중입니다. 44% 완료", "백업이 끝날 때까지 이 창을 닫지 마세요."),
        buttons=("중지",),
    ),
    dialog("Notepad", "Do you want to save changes to Untitled?", buttons=("Save", "Don't Save")),
    dialog(
        "Copying 1,204 items",
        *("From D: to E:", "35% complete", "About 4 minutes remaining"),
        buttons=("Pause", "Cancel"),
    ),
    message("다음 경기 준비 중", "35%", "잠시만 기다려 주세요"),
    page(
        "Server manual.pdf",
        *(
            "4.2 Switching the server off",
            "Select Shut down. If you are asked why you want to shut",
        ),
        *("down the computer, choose Other (Planned) and click OK. If an application prevents",),
        *("Windows from shutting down, click Cancel and close it. Page 31 of 120",),
    ),
    console(
        "$ journalctl -u unattended-upgrades",
        "Nov 03 09:12:01 web01 unattended-upgrade: All upgrades installed",
        "$ uptime",
        " 09:14:22 up 41 days,  3 users,  load average: 0.08, 0.02, 0.01",
        "$ ",
    ),
    page(
        "서버 점검 일지 - 엑셀",
        *("서버   종료 이유   담당", "FILESRV01   기타(계획되지 않음)   김민아"),
        *("WEB01   하드웨어: 유지 관리(계획됨)   박준",),
    ),
    dialog("Sign in to your account", "Email", "Password", "Keep me signed in", buttons=("Next",)),
    page(
        "Release notes",
        *("Version 4.1", "- the progress bar of updates no longer stops at 35%"),
        *(
            "- Shut down anyway no longer loses unsaved work",
            "- a reason can be given for a restart",
        ),
    ),
    message("설치가 완료되었습니다", "시작하려면 아무 키나 누르세요"),
    page(
        "윈도우 업데이트 오류 해결 - 블로그",
        *(
            "https://blog.example.kr/1041",
            "업데이트 작업 중 화면에서 멈췄을 때 컴퓨터를 끄지 마세요",
        ),
        *("라는 문구가 계속 나온다면 한 시간쯤 기다려 보세요.", "댓글 12"),
    ),
    dialog(
        "Backup Exec",
        *(
            "Backup in progress: 40% complete",
            "Do not shut down this server until it has finished.",
        ),
        buttons=("Close",),
    ),
    page(
        "Ticket 4412 - Helpdesk",
        *(
            "Priority: low   Status: open",
            "User cannot log on: after Ctrl+Alt+Delete the screen says",
        ),
        *("that the computer is locked.   Answer: only an administrator can unlock it.",),
    ),
    message("SCORE 120500", "LIVES 3", "Installing bonus level 2 of 17"),
    page(
        "프레젠테이션1 - PowerPoint",
        *("안전한 종료 방법", "1. 작업을 저장합니다", "2. 열린 프로그램을 모두 닫습니다"),
        *("3. 시작, 시스템 종료를 차례로 클릭합니다",),
    ),
    dialog(
        "Firefox Installer",
        *("Now installing", "Your browser is being updated and will start in a moment. 81%"),
    ),
    page(
        "config.ini - Visual Studio Code",
        *("[power]", "reason = Other (Planned)", "message = Do not turn off your computer"),
        *("force = no", "[updates]", "install = 3 of 17"),
    ),
    page(
        "Q: This app is preventing you from shutting down - Forum",
        *("forum.example.org/t/99121", "Every evening my PC says Closing 1 app and shutting down."),
        *("How do I find out which one it is?", "12 answers   1,204 views"),
    ),
    dialog(
        "바이러스 검사",
        *("엔진 업데이트 중... 88%", "검사를 시작하려면 잠시 기다려 주세요."),
        buttons=("취소",),
    ),
)
