"""What a caller wants of a stop, in the words of each who has to hear it.

That is a new stop, one that goes on, or the owner of one that another lastcall drives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lastcall.model import (
    Consent,
    Consented,
    DeadlineMoved,
    Event,
    Finding,
    ForceConsent,
    Resumed,
    Rung,
    Started,
)
from lastcall.record import record
from lastcall.stop.policy import Policy, whole_grace_s
from lastcall.stop.state import evolve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lastcall.clock import Clock
    from lastcall.stop.state import State
    from lastcall.targets.base import Target


@record
class Wishes:
    """See the module.

    Args:
        policy: what the caller wants.
        by: who the caller is.
        clock: tells the time.
    """

    policy: Policy
    by: str
    clock: Clock

    def started(self, target: Target, findings: tuple[Finding, ...]) -> Started:
        """A new stop of this target, its whole grace from now on."""
        now_s = self.clock.now_s()
        grace_s = self._grace_s(target.ladder)
        return Started(
            ladder=target.ladder,
            deadline_s=now_s + grace_s,
            ceiling_s=now_s + max(grace_s, self.policy.extend_up_to_s or 0.0),
            consent=self._consent(),
            findings=findings,
            reason=self.policy.reason,
        )

    def going_on(self, state: State, resumed: Resumed, *, anew: bool) -> list[Event]:
        """What a stop that goes on is told.

        Args:
            state: what is known of it.
            resumed: how it is taken up.
            anew: whether a later stop takes it up: that brings its own consent and grace.
                Otherwise it goes on with its own, unless the caller says more.
        """
        wishes: list[Event] = [resumed]
        consent, policy, now_s = self._consent(), self.policy, self.clock.now_s()
        if anew or consent is not None:
            wishes.append(Consented(consent))
        deadline_s = now_s + self._grace_s(state.ladder)
        if not anew and policy.grace_s is None:
            deadline_s = max(deadline_s, evolve(state, resumed, now_s).deadline_s)
        longer = policy.grace_s is not None or policy.extend_up_to_s is not None
        if anew or longer or resumed.ask_again:
            wishes.append(DeadlineMoved(deadline_s, self.by, self._ceiling_s(now_s)))
        return wishes

    def request(self, stop: int, ladder: Sequence[Rung]) -> dict[str, object]:
        """What is asked of another owner: to follow, to force or to give it longer.

        Args:
            stop: its number.
            ladder: how it is asked.
        """
        request: dict[str, object] = {"do": "follow", "stop": stop, "by": self.by}
        consent, policy, now_s = self._consent(), self.policy, self.clock.now_s()
        if consent is not None:
            request["do"] = "force"
            request["consent"] = {"reason": consent.reason, "by": consent.by}
        elif policy.grace_s is not None or policy.extend_up_to_s is not None:
            request["do"] = "extend"
        if consent is not None or policy.grace_s is not None:
            request["deadline_s"] = now_s + self._grace_s(ladder)
        if policy.extend_up_to_s is not None:
            request["ceiling_s"] = self._ceiling_s(now_s)
        return request

    def _ceiling_s(self, now_s: float) -> float | None:
        longest_s = self.policy.extend_up_to_s
        return None if longest_s is None else now_s + longest_s

    def _grace_s(self, ladder: Sequence[Rung]) -> float:
        """As the caller said, or what a sequence brings with it, or the usual."""
        soft = [r for r in ladder if r.consent is Consent.NONE and not r.on_call]
        return whole_grace_s(self.policy.grace_s, [rung.wait_s for rung in soft])

    def _consent(self) -> ForceConsent | None:
        reason = self.policy.force_reason
        return None if reason is None else ForceConsent(reason, self.by, unrecorded=True)
