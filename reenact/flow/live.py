"""A session as the runtime follows it while it is awake: what its model sees, and the notices its watchers get.

Both are folds over all of the session's events, its past first, then what is published.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..events.agent import AgentConfigured
from ..events.message import Context as Ids
from ..events.message import Live, Recorded, Signal
from ..events.policy import Policy
from ..projections.context import Context
from ..projections.notices import Notices
from ..secrets.veil import Veil


class LiveSession:
    """`version` is that of the newest event it has folded. ids: of the envelope of that event, `newest`. rules: the
    policies that its agent is held to. veil: what its signals are shown through, once there was one."""

    __slots__ = ("context", "ids", "newest", "notices", "rules", "session_id", "veil", "version")

    def __init__(self, session_id: str, past: Iterable[Recorded] = ()) -> None:
        self.session_id = session_id
        self.version = 0
        self.ids = Ids()
        self.newest: Recorded | None = None
        self.rules: tuple[Policy, ...] = ()
        self.context = Context()
        self.notices = Notices()
        self.veil: Veil | None = None
        for recorded in past:
            self.apply(recorded, draw=False)

    def apply(self, recorded: Recorded, *, draw: bool = True) -> Sequence[Live]:
        """Take over an event as it is published, and give the notices drawn from it, unless nobody wants any."""
        if recorded.version <= self.version:
            return ()
        self.version = recorded.version
        self.ids = recorded.head.context
        self.newest = recorded
        if type(recorded.data) is AgentConfigured:
            self.rules = recorded.data.definition.policy
        self.context.apply(recorded)
        if draw:
            return self.notices.apply(recorded)
        self.notices.follow(recorded)
        return ()

    def signal(self, signal: Signal, at: int) -> tuple[Live, ...]:
        """The notices drawn from a signal."""
        return self.notices.on_signal(signal, at)


__all__ = ["LiveSession"]
