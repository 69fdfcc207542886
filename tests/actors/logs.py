"""Logs that refuse."""

from __future__ import annotations

from collections.abc import Sequence

from reenact.events.errors import (
    Conflict,
)
from reenact.events.log import MemoryLog, MemoryStore, Result, Transaction


class Sour(MemoryLog):
    """A log that answers with these errors, one a commit, before it takes anything."""

    def __init__(self, *errors: Exception, store: MemoryStore | None = None) -> None:
        super().__init__(store)
        self.errors = list(errors)
        self.commits = 0

    def commit(self, transactions: Sequence[Transaction]) -> list[Result]:
        self.commits += 1
        if self.errors:
            error = self.errors.pop(0)
            if isinstance(error, Conflict):
                return [error] * len(transactions)
            raise error
        return super().commit(transactions)
