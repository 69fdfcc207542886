"""In which order the limits of a ledger were asked for, by whomever: of two for the same, the last asked for stands.

It knows nothing of what the limits are, and no time: a clock may stand still.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

Owner = tuple[str, str | None, str | None]
"""Whose a limit is: a scope's, or that of one principal or session of it."""


class Order:
    """What one process asked for. The limits that it found are older than all of it."""

    def __init__(self) -> None:
        self._last = 0
        self._newest: dict[Owner, int] = {}
        self._one = asyncio.Lock()

    def asked(self) -> int:
        """A number for a limit that is set or lifted now, higher than all before."""
        self._last += 1
        return self._last

    async def take(self, owner: Owner, asked: int, put: Callable[[], Awaitable[T]]) -> T | None:
        """Put what was asked for to the ledger, one at a time. None, and nothing is put, where what was asked for after
        it is done: it was longer on its way."""
        async with self._one:
            if self.is_late(owner, asked):
                return None
            answer = await put()
            self.done(owner, asked)
            return answer

    def done(self, owner: Owner, asked: int) -> None:
        """What was asked for is in force, or lifted."""
        self._newest[owner] = max(asked, self._newest.get(owner, 0))

    def is_late(self, owner: Owner, asked: int) -> bool:
        """Whether what was asked for after it is done already."""
        return self._newest.get(owner, 0) > asked
