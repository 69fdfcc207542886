"""When to try a failed call again: how often, how long to wait, and when to give up. Home of stamina.

The loop is not here. Every attempt is a fact in the log before the wait begins, and the next one may run in another
process after a crash; so the loop is the session's own, and only the wait is worked out here, by stamina's backoff and
under stamina's switches (`set_active(False)`: never again; `set_testing(True)`: at once).
"""

from __future__ import annotations

import random

from msgspec import Struct

from ...events.content import Failure
from ...events.errors import BadInput

LONGEST_WAIT_S = 86_400


class RetryPolicy(Struct, frozen=True, kw_only=True, rename="camel"):
    """attempts: calls in all, the first included. Waits double from wait_initial_s up to wait_max_s.

    jitter_s: up to so much is added by chance, so that many sessions do not come back at the same moment.
    retry_after_cap_s: a provider that asks for a longer wait than this gets this. Raises BadInput for what is no number
    of attempts, or no wait of at most a day.
    """

    attempts: int = 5
    wait_initial_s: float = 0.5
    wait_max_s: float = 30.0
    jitter_s: float = 0.5
    retry_after_cap_s: float = 60.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            least, most = (1, 1_000) if name == "attempts" else (0, LONGEST_WAIT_S)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not (whole or (isinstance(value, float) and name != "attempts")) or not least <= value <= most:
                raise BadInput(f"{name} must be a number from {least} to {most:,}, not {ascii(value)[:60]}.")


class Retries:
    """A policy at work. It has no memory, so the same one serves every call."""

    __slots__ = ("policy",)

    def __init__(self, policy: RetryPolicy | None = None) -> None:
        self.policy = policy or RetryPolicy()

    @property
    def longest_s(self) -> float:
        """No wait of this policy is longer."""
        policy = self.policy
        return max(policy.wait_max_s, policy.retry_after_cap_s) + policy.jitter_s

    def next_wait(self, attempt: int, failure: Failure) -> float | None:
        """Seconds to wait after attempt number `attempt` (from 1) failed so; None to give up.

        What the provider asked for is honoured up to the cap, and never shortens our own wait.
        """
        import stamina

        policy = self.policy
        if not failure.retryable or attempt >= policy.attempts or not stamina.is_active():
            return None
        if stamina.is_testing():
            return 0.0
        # stamina counts attempts within one loop; ours are counted in the log, so its first wait is set to our n-th.
        waits = stamina.retry_context(
            on=Exception,
            attempts=policy.attempts,
            timeout=None,
            wait_initial=policy.wait_initial_s * 2.0 ** min(attempt - 1, 64),
            wait_max=policy.wait_max_s,
            wait_jitter=0.0,
        )
        backoff_s = next(iter(waits)).next_wait
        asked_s = min(failure.retry_after_s or 0.0, policy.retry_after_cap_s)
        return max(backoff_s, asked_s) + random.uniform(0.0, policy.jitter_s)
