"""The bill of one model call: what it cost, worked out when it ends and recorded with its end."""

from __future__ import annotations

import asyncio

from ..actors.clock import Clock
from ..adapters import prices
from ..events.content import Cost, Usage


class Bill:
    """model: `provider:name` as it was wanted. base_url: where it went, when that is known. asked: it was asked. begun:
    something came back.

    The price table loads in a thread while the answer comes in, so that neither the loop nor the turn waits for it.
    """

    __slots__ = ("_asked", "_clock", "_provider", "asked", "base_url", "begun")

    def __init__(self, model: str, clock: Clock) -> None:
        self._provider, _, self._asked = model.partition(":")
        self._clock = clock
        self.base_url: str | None = None
        self.asked = self.begun = False

    def begin(self) -> None:
        """The answer has begun: there will be something to price."""
        self.begun = True
        if self._provider != "scripted":
            # Not before: by now the provider's SDK is imported, so no two threads import the same modules.
            prices.load_soon()

    async def settle(self, usage: Usage | None, model: str = "") -> Cost:
        """The cost of what was counted, at the prices of now. model: what answered, as the provider named it.

        Does not end early when it is cancelled: what the call cost is told also of a call that was stopped.
        """
        while not prices.loaded() and self._provider != "scripted":
            try:
                await asyncio.to_thread(prices.load)
            except asyncio.CancelledError:
                continue
        return prices.price(
            usage, model or self._asked, self._provider, self._clock.now(), base_url=self.base_url, asked=self._asked
        )
