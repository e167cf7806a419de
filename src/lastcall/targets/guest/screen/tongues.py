"""What guests write on their screens in Korean, German and Japanese; see `wordings`.

Sources: as in `wordings`, in the editions of those languages.
"""

from __future__ import annotations

from lastcall.targets.guest.screen.wordings import ENGLISH, Kind, Place, Wording, table

_S, _W = Place.SCREEN, Place.WINDOW

# fmt: off
OTHERS: tuple[Wording, ...] = (
    *table(Kind.UPDATING, _S, "ko", 1, """
        컴퓨터를 끄지 마십시오
        컴퓨터를 끄지 마세요
        컴퓨터의 전원을 끄지 마십시오
        PC를 끄지 마세요
        PC를 끄지 마십시오
        컴퓨터를 켜 두세요
        업데이트 작업 중
        업데이트 처리 중
        Windows를 준비하는 중
        Windows 준비 중
        Windows 업데이트 구성 중
        Windows 업데이트를 구성하는 중
        업데이트를 완료할 수 없습니다
        변경 내용을 취소하는 중
        """),
    *table(Kind.UPDATING, _S, "ko", 0.5, """
        업데이트 설치 중
        업데이트를 설치하는 중
        업데이트가 진행 중입니다
        PC가 여러 번 다시 시작됩니다
        이 작업은 시간이 걸릴 수 있습니다
        """),
    *table(Kind.UPDATING, _S, "ko", 0, """
        완료됨
        완료
        잠시 기다려 주세요
        """),
    *table(Kind.UPDATING, _S, "de", 1, """
        Schalten Sie den Computer nicht aus
        Schalten Sie den PC nicht aus
        Computer nicht ausschalten
        Updates werden verarbeitet
        Windows wird vorbereitet
        Windows-Updates werden konfiguriert
        """),
    *table(Kind.UPDATING, _S, "ja", 1, """
        コンピューターの電源を切らないでください
        PCの電源を切らないでください
        更新プログラムを構成しています
        Windowsの準備をしています
        """),
    *table(Kind.REASON, _W, "ko", 1, """
        컴퓨터를 종료하려는 이유를 가장 잘 설명하는 항목을 선택하세요
        이 PC를 종료하려는 이유를 선택하세요
        """),
    *table(Kind.REASON, _W, "ko", 0.5, """
        시스템 종료 이벤트 추적기
        Windows 시스템 종료
        Windows 종료
        컴퓨터가 수행할 작업을 선택하십시오
        원하는 작업을 선택하십시오
        컴퓨터가 예기치 않게 종료된 이유
        시스템을 종료하는 이유
        종료하는 이유를 선택하십시오
        종료 이유를 선택하세요
        이유를 선택하십시오
        이유를 선택하세요
        기타(계획되지 않음)
        기타(계획됨)
        """),
    *table(Kind.REASON, _W, "de", 0.5, """
        Ereignisprotokollierung für Herunterfahren
        Windows herunterfahren
        Wählen Sie einen Grund
        Anderer Grund (Ungeplant)
        Andere (Ungeplant)
        """),
    *table(Kind.APP_BLOCKS, _S, "ko", 1, """
        이 앱 때문에 시스템을 종료할 수 없습니다
        때문에 시스템을 종료할 수 없습니다
        닫고 시스템 종료 중
        이 앱이 시스템 종료를 방해하고 있습니다
        이 앱이 종료를 막고 있습니다
        이 프로그램이 Windows 종료를 방해하고 있습니다
        프로그램이 시스템 종료를 방해하고 있습니다
        앱 1개를 닫고 시스템 종료 중
        앱을 닫고 시스템 종료 중
        앱을 닫고 시스템을 종료하는 중
        프로그램 1개를 닫아야 합니다
        백그라운드 프로그램이 닫히기를 기다리는 중
        """),
    *table(Kind.APP_BLOCKS, _S, "ko", 0.5, """
        강제로 종료
        강제 종료
        무시하고 시스템 종료
        그래도 종료
        돌아가서 작업을 저장하려면 취소를 클릭하고 필요한 작업을 완료하세요
        """),
    *table(Kind.APP_BLOCKS, _S, "ko", 0, """
        취소
        """),
    *table(Kind.APP_BLOCKS, _S, "de", 1, """
        Diese App verhindert das Herunterfahren
        Dieses Programm verhindert, dass Windows heruntergefahren wird
        Apps werden geschlossen und der PC wird heruntergefahren
        """),
    *table(Kind.APP_BLOCKS, _S, "de", 0.5, """
        Trotzdem herunterfahren
        """),
    *table(Kind.APP_BLOCKS, _S, "ja", 1, """
        このアプリがシャットダウンを妨げています
        """),
    *table(Kind.LOGON, _S, "ko", 1, """
        잠금을 해제하려면 Ctrl+Alt+Delete 키를 누르세요
        잠금을 해제하려면 Ctrl+Alt+Delete를 누르십시오
        로그인하려면 Ctrl+Alt+Delete 키를 누르세요
        로그온하려면 Ctrl+Alt+Delete를 누르십시오
        Ctrl+Alt+Delete 키를 눌러 잠금을 해제하세요
        Ctrl+Alt+Delete 키를 눌러 로그인하세요
        다른 도메인에 로그인하려면 어떻게 해야 합니까
        """),
    *table(Kind.LOGON, _S, "ko", 0.5, """
        다른 사용자
        사용자 전환
        로그인 옵션
        잠금 해제
        로그온 대상
        로그인 대상
        암호를 입력하세요
        """),
    *table(Kind.LOGON, _S, "ko", 0, """
        로그인
        암호
        사용자 이름
        잠김
        """),
    *table(Kind.LOGON, _S, "de", 1, """
        Zum Entsperren STRG+ALT+ENTF drücken
        Drücken Sie STRG+ALT+ENTF, um sich anzumelden
        Drücken Sie STRG+ALT+ENTF zum Entsperren
        """),
    *table(Kind.SHUTTING_DOWN, _S, "ko", 1, """
        시스템 종료 중
        시스템을 종료하는 중
        Windows를 종료하는 중
        """),
    *table(Kind.SHUTTING_DOWN, _S, "de", 1, """
        Wird heruntergefahren
        """),
    *table(Kind.SHUTTING_DOWN, _S, "ja", 1, """
        シャットダウンしています
        """),
    *table(Kind.HALTED, _S, "ko", 1, """
        이제 컴퓨터를 안전하게 끌 수 있습니다
        """),
    *table(Kind.HALTED, _S, "ko", 1, """
        이제 컴퓨터의 전원을 끄셔도 됩니다
        """),
    *table(Kind.PANIC, _S, "ko", 1, """
        PC에 문제가 발생하여 다시 시작해야 합니다
        장치에 문제가 발생하여 다시 시작해야 합니다
        """),
    *table(Kind.PANIC, _S, "ko", 0.5, """
        일부 오류 정보를 수집하고 있습니다
        중지 코드
        """),
    *table(Kind.PANIC, _S, "de", 1, """
        Auf dem PC ist ein Problem aufgetreten
        """),
    *table(Kind.DISK_CHECK, _S, "ko", 1, """
        드라이브 검사 및 복구 중
        드라이브 스캔 및 복구 중
        에서 파일 시스템을 검사하는 중
        디스크 검사를 건너뛰려면
        """),
)
# fmt: on

WORDINGS = (*ENGLISH, *OTHERS)
