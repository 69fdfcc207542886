"""The treasuries of a runtime: one for each scope whose money is asked for or limited, made when it is."""

from __future__ import annotations

import asyncio

from ..actors.clock import Clock
from ..flow.kernel import Kernel
from .treasury import Treasury


class Treasuries:
    """Of all scopes of a log: they are the runtime's own, whoever asks."""

    __slots__ = ("_clock", "_kernel", "_of")

    def __init__(self, kernel: Kernel, clock: Clock) -> None:
        self._kernel = kernel
        self._clock = clock
        self._of: dict[str, Treasury] = {}

    def of(self, scope: str) -> Treasury:
        """What is known of a scope's money: the limits that were set before, and those that are heard of."""
        treasury = self._of.get(scope)
        if treasury is None:
            treasury = self._of[scope] = Treasury(self._kernel, self._clock, scope)
        return treasury

    async def open(self) -> None:
        """Know what every ledger of the log limits."""
        for stream in await asyncio.to_thread(self._kernel.log.streams, "ledger-"):
            await self.of(stream.removeprefix("ledger-")).open()
