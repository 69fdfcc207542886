"""The windows of cooldowns in the log: read when a model is first needed, written when one opens or what was in it
answers."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from .actors.cooldown import WINDOWS_MAX, Cooldowns, CooldownTimes
from .actors.windows import changes, restored
from .events import codec
from .events.errors import ReenactError
from .events.message import Event
from .kernel import Kernel
from .recalls import patiently

_log = logging.getLogger("reenact")


class Windows:
    """Those of a runtime, in a stream of its own scope."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._stream = f"cooldown-{kernel.who.scope}"

    async def read(self, times: CooldownTimes) -> Cooldowns:
        """What earlier processes left: of the newest `WINDOWS_MAX` facts. Where they cannot be read, none are known."""
        try:
            events = await asyncio.to_thread(self._newest)
        except Exception as error:
            _log.error("what cools down could not be read: %s", error)
            return Cooldowns()
        return restored(events, self._kernel.clock.now(), times)

    def _newest(self) -> list[Event]:
        log = self._kernel.log
        head = log.head(self._stream)
        if not head:
            return []
        batches = log.read(self._stream, after=max(0, head - WINDOWS_MAX))
        return [recorded.data for stored in batches for recorded in codec.unpack(stored, digests=False)]

    async def write(self, before: Cooldowns, after: Cooldowns, model: str) -> None:
        """Have it in the log what changed. Where it cannot be, only this process knows."""
        note = changes(before, after, model)
        if note is None:
            return
        try:
            await patiently(partial(self._kernel.ask, self._stream, note))
        except ReenactError as error:
            _log.warning("what cools down could not be stored: %s", error)
