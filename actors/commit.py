"""Group commit: whoever finds the log idle commits everything that is queued, on its own thread. No timer, no hop.

While one commit runs, others queue; the next commit takes them all. Nobody hears of a batch before its commit returned,
and everybody hears of batches in the order of their positions.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from ..events.errors import ReenactError, StoreError, UnknownOutcome
from ..events.failpoint import failpoint
from ..events.log import Log, Result, Transaction

GROUP_MAX = 512
"""Most transactions of one commit."""

Done = Callable[[Result], object]
"""Told the result of a transaction, on the committing thread. What it returns that is not None goes to `publish`."""


class GroupCommit:
    """The one way into a log. `publish` is told what the `Done`s of one commit returned, on the same thread."""

    def __init__(self, log: Log, publish: Callable[[list[object]], None]) -> None:
        self.log = log
        self.failure: StoreError | None = None
        self._publish = publish
        self._queue: deque[tuple[Transaction, Done]] = deque()
        self._busy = threading.Lock()

    def submit(self, transaction: Transaction, done: Done) -> None:
        """Queue a transaction. It is committed by the next `flush`, on whatever thread that is."""
        self._queue.append((transaction, done))

    def flush(self) -> bool:
        """Commit what is queued until nothing is, unless another thread is at it. True when it did something."""
        worked = False
        while self._queue and self._busy.acquire(blocking=False):
            try:
                worked = self._commit() or worked
            finally:
                self._busy.release()
            # What was queued after the last look and before the release found the log busy: look again.
        return worked

    def _commit(self) -> bool:
        queue = self._queue
        group: list[tuple[Transaction, Done]] = []
        while queue and len(group) < GROUP_MAX:
            group.append(queue.popleft())
        if not group:
            return False
        results: list[Result]
        if self.failure is not None:
            results = [self.failure] * len(group)
        else:
            try:
                failpoint("group.commit")
                results = list(self.log.commit([transaction for transaction, _ in group]))
                failpoint("group.committed")
            except UnknownOutcome as error:
                self.failure = error
                results = [error] * len(group)
            except ReenactError as error:
                results = [error] * len(group)
            except Exception as error:  # an error that no store names leaves the outcome just as unknown
                self.failure = UnknownOutcome(f"The commit raised {type(error).__name__}: {error}. Reopen the log.")
                results = [self.failure] * len(group)
        told = [said for (_, done), result in zip(group, results, strict=True) if (said := done(result)) is not None]
        if told:
            self._publish(told)
            failpoint("group.published")
        return True
