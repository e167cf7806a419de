"""What the guest agent is good for in this stop. Pure.

Source: QEMU 7.2 qga/commands-win32.c (ExitWindowsEx with EWX_FORCE); learn.microsoft.com,
"Shutdown: Allow system to be shut down without having to log on".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.kernel.run import printable
from lastcall.model import Confidence, Finding, Severity
from lastcall.targets.guest.advice import WITHOUT_LOGON
from lastcall.targets.guest.words import System

if TYPE_CHECKING:
    from lastcall.targets.guest.before.known import Known
    from lastcall.targets.guest.words import AgentSight

# Of whom to tell by name.
_MOST_USERS = 5


def of_agent(known: Known) -> list[Finding]:
    """Whether it answers, what asking it would do, and what it knows of who is logged on."""
    found = []
    agent = known.agent
    absent = known.setup.agent is False
    if agent is not None and agent.answers and not absent:
        found.append(_answers(known, agent))
        if known.asks_agent:
            found += _closes(known)
    elif known.asks_agent or (agent is not None and agent.answers is False and not absent):
        found.append(_silent(known, absent=absent))
    if agent is not None and agent.users == () and known.system is System.WINDOWS and known.presses:
        found.append(
            Finding(
                "nobody-logged-on",
                "nobody is logged on: if this Windows may not be shut down without that, it does "
                "nothing on a press",
                Severity.WARNING,
                Confidence.POSSIBLE,
                evidence=("the guest agent names no user",),
                advice=f"in the guest: {WITHOUT_LOGON} (servers have 0 by default)",
            )
        )
    return found


def _answers(known: Known, agent: AgentSight) -> Finding:
    users = agent.users
    names = ", ".join(printable(name) for name in (users or ())[:_MOST_USERS])
    logged = () if users is None else (f"logged on: {names or 'nobody'}",)
    runs = printable(agent.name) or ("" if agent.system is System.UNKNOWN else agent.system.value)
    next_ask = known.presses and not known.asks_agent and known.system is not System.WINDOWS
    return Finding(
        "agent-answers",
        "its guest agent answers",
        evidence=(*((f"it runs on {runs}",) if runs else ()), *logged),
        advice="it can be asked if a press does nothing: --ask press:60s,agent" if next_ask else "",
    )


def _closes(known: Known) -> list[Finding]:
    if known.system is System.WINDOWS:
        return [
            Finding(
                "agent-closes-apps",
                "on Windows the guest agent closes applications by force: what is not saved is "
                "lost, and nobody is asked",
                Severity.WARNING,
                evidence=("qemu-ga calls ExitWindowsEx with EWX_FORCE",),
                advice="it is asked only with consent (--force --reason TEXT); without it, only "
                "the button is pressed",
            )
        ]
    if known.system is System.UNKNOWN:
        return [
            Finding(
                "agent-closes-apps",
                "what runs in it is not known, so the guest agent is not asked: on Windows it "
                "closes applications by force",
                Severity.WARNING,
                evidence=("qemu-ga calls ExitWindowsEx with EWX_FORCE",),
                advice="say what runs in it (--guest-os linux); with consent (--force) it is asked "
                "all the same, before the power is cut",
            )
        ]
    return []


def _silent(known: Known, *, absent: bool) -> Finding:
    agent = known.agent
    if absent:
        said = "its machine has no port for a guest agent"
    elif agent is None:
        said = "the guest agent was not looked at"
    elif agent.connected is False:
        said = "nothing in it holds the agent's port open"
    else:
        said = printable(agent.detail) or "the guest agent did not answer in time"
    alone = known.asks_agent and not known.presses
    unknown = agent is None and not absent
    grave = Severity.WARNING if known.asks_agent and not unknown else Severity.NOTE
    return Finding(
        "agent-silent",
        "whether its guest agent answers is not known" if unknown else "no guest agent answers",
        Severity.BLOCKER if alone and not unknown else grave,
        evidence=(said,),
        advice="start qemu-guest-agent in it, or ask by the button: --ask press"
        if known.asks_agent
        else "",
    )
