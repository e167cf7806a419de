"""What is said in more than one place of what to do about a guest.

No Windows ran in lastcall's tests: what is advised for Windows comes from its documentation.

Source: learn.microsoft.com: "Power button action" (PBUTTONACTION: 0 nothing, 1 sleep, 2 hibernate,
3 shut down), "Policy CSP - ADMX_Reliability" (ShutdownReasonOn), "Shutdown: Allow system to be shut
down without having to log on" (ShutdownWithoutLogon), "Application shutdown changes in Windows
Vista" (AutoEndTasks); logind.conf(5) (HandlePowerKey).
"""

from __future__ import annotations

# A machine started less than this ago may still be on its way up.
YOUNG_S = 120.0

LOSES = (
    "a power cut to the guest: what is not saved or not yet written is lost, and its file system "
    "may be damaged"
)
FORCE = f"the last resort is lastcall stop TARGET --force --reason TEXT, {LOSES}"
NOT_NOW = (
    "do not force it now: cut off in the middle of an update or a repair it may never start again"
)
LONGER = "give it longer: --grace 30m, or --extend-up-to 2h, used only while it works"
AGENT_NEXT = "ask by the guest agent next: --ask press:60s,agent"

WITHOUT_LOGON = (
    r"HKLM\SOFTWARE\Microsoft\Windows\CurrentVersion\Policies\System, ShutdownWithoutLogon = 1"
)
NO_REASON = r"HKLM\SOFTWARE\Policies\Microsoft\Windows NT\Reliability, ShutdownReasonOn = 0"
END_TASKS = r"HKCU\Control Panel\Desktop, AutoEndTasks = 1"
SHUTS_DOWN = (
    "powercfg /setacvalueindex SCHEME_CURRENT SUB_BUTTONS PBUTTONACTION 3 && "
    "powercfg /setactive SCHEME_CURRENT"
)
