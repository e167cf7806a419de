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
from lastcall.stop.policy import DEFAULT_GRACE_S, Policy, whole_grace_s

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lastcall.clock import Clock
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

    def going_on(self, ladder: tuple[Rung, ...] | None, *, ask_again: bool) -> list[Event]:
        """What a stop that goes on is told.

        Args:
            ladder: of a later stop: it brings its own consent and grace. With None the operation
                goes on with its own, unless the caller says more.
            ask_again: whether it repeats its last ask although that may not be harmless.
        """
        wishes: list[Event] = [Resumed(self.by, ask_again=ask_again)]
        consent = self._consent()
        if ladder is not None or consent is not None:
            wishes.append(Consented(consent))
        if ladder is not None or self.policy.grace_s is not None:
            deadline_s = self.clock.now_s() + self._grace_s(ladder or ())
            wishes.append(DeadlineMoved(deadline_s, self.by))
        return wishes

    def request(self, stop: int) -> dict[str, object]:
        """What is asked of another owner: to follow, to force or to give it longer."""
        request: dict[str, object] = {"do": "follow", "stop": stop, "by": self.by}
        consent, grace_s = self._consent(), self.policy.grace_s
        if consent is not None:
            request["do"] = "force"
            request["consent"] = {"reason": consent.reason, "by": consent.by}
            grace_s = DEFAULT_GRACE_S if grace_s is None else grace_s
        elif grace_s is not None:
            request["do"] = "extend"
        if grace_s is not None:
            request["deadline_s"] = self.clock.now_s() + grace_s
        return request

    def _grace_s(self, ladder: Sequence[Rung]) -> float:
        """As the caller said, or what a sequence brings with it, or the usual."""
        soft = [r for r in ladder if r.consent is Consent.NONE and not r.on_call]
        return whole_grace_s(self.policy.grace_s, [rung.wait_s for rung in soft])

    def _consent(self) -> ForceConsent | None:
        reason = self.policy.force_reason
        return None if reason is None else ForceConsent(reason, self.by, unrecorded=True)
