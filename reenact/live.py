"""A session as the runtime follows it while it is awake: what its model sees, and the notices its watchers get.

Both are folds over the session's events, kept up as events are published, and read from the log where they came before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .events import codec
from .events.log import Stored
from .events.message import Context as Ids
from .events.message import Live, Recorded, Signal
from .projections.context import Context
from .projections.notices import Notices

Read = Callable[[], Sequence[Stored]]


class LiveSession:
    """`version` is that of the newest event it has folded; `whole` is False until what came before it was read."""

    __slots__ = ("_later", "context", "ids", "notices", "session_id", "version", "whole")

    def __init__(self, session_id: str, *, whole: bool) -> None:
        self.session_id = session_id
        self.whole = whole
        self.version = 0
        self.ids = Ids()
        self._later: list[Recorded] = []
        self._start()

    def _start(self) -> None:
        self.context = Context()
        self.notices = Notices()
        self.version = 0

    def apply(self, recorded: Recorded) -> tuple[Live, ...]:
        """Take over an event as it is published, and give the notices drawn from it."""
        self.ids = recorded.head.context
        if not self.whole:
            self._later.append(recorded)
            return self.notices.apply(recorded)
        self.version = recorded.version
        self.context.apply(recorded)
        return self.notices.apply(recorded)

    def signal(self, signal: Signal, at: int) -> tuple[Live, ...]:
        """The notices drawn from a signal."""
        return self.notices.on_signal(signal, at)

    def load(self, stored: Sequence[Stored]) -> None:
        """Fold the session as it was read from the log, then what was published while it was being read."""
        self._start()
        for batch in stored:
            for recorded in codec.unpack(batch):
                self._fold(recorded)
        for recorded in self._later:
            if recorded.version > self.version:
                self._fold(recorded)
        self._later.clear()
        self.whole = True

    def _fold(self, recorded: Recorded) -> None:
        self.ids = recorded.head.context
        self.version = recorded.version
        self.context.apply(recorded)
        self.notices.apply(recorded)
