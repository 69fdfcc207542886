"""The windows of cooldowns in the log: read when a scope first needs a model, written when one opens or what was in it
answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Collection
from functools import partial

from ..actors.cooldown import WINDOWS_MAX, Cooldowns, CooldownTimes, bounded, succeeded
from ..actors.windows import changes, opened_by, place_of, restored
from ..events import codec
from ..events.cooldown import CooldownOpened, NoteCooldowns
from ..events.errors import ReenactError
from ..events.message import Event
from ..flow.kernel import Kernel, Who
from ..money.recalls import patiently

_log = logging.getLogger("reenact")


class Windows:
    """Those of a runtime. Each scope has a stream of its own: what its own calls led to, and no word of others."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._told: dict[str, Cooldowns] = {}
        """What the stream of a scope says, for those whose stream says that something cools."""

    async def read(self, scope: str, times: CooldownTimes, well: Collection[tuple[str | None, str]]) -> Cooldowns:
        """What earlier processes left to a scope: of the newest `WINDOWS_MAX` facts, without those of a key and a model
        that is known to answer with it. Where they cannot be read, none are known."""
        try:
            events = await asyncio.to_thread(self._newest, f"cooldown-{scope}")
        except Exception as error:
            _log.error("what cools down could not be read: %s", error)
            return Cooldowns()
        now = self._kernel.clock.now()
        self._tells(scope, restored(events, now, times, scope))
        cools = (
            event for event in events if not (isinstance(event, CooldownOpened) and (event.key, event.model) in well)
        )
        return restored(cools, now, times, scope)

    def _newest(self, stream: str) -> list[Event]:
        log = self._kernel.log
        head = log.head(stream)
        if not head:
            return []
        batches = log.read(stream, after=max(0, head - WINDOWS_MAX))
        return [recorded.data for stored in batches for recorded in codec.unpack(stored, digests=False)]

    async def failed(self, scope: str, before: Cooldowns, after: Cooldowns, model: str) -> None:
        """Have it in the log what a call of this scope opened. Where it cannot be, only this process knows."""
        told = self._told.get(scope, Cooldowns())
        opened = opened_by(changes(before, after, model), after, told)
        if opened:
            windows = {place_of(fact): after.windows[place_of(fact)] for fact in opened}
            self._tells(scope, Cooldowns(bounded({**told.windows, **windows}, windows)))
            await self._ask(scope, NoteCooldowns(opened=opened))

    def answered(self, scope: str, key: str | None, model: str) -> Awaitable[None] | None:
        """A model answered a scope: gives the noting of that, None where its stream does not say that it cools."""
        told = self._told.get(scope, Cooldowns())
        after = succeeded(told, key, model, scope=scope)
        note = changes(told, after, model)
        if note is None:
            return None
        self._tells(scope, after)
        return self._ask(scope, note)

    def tells(self, scope: str) -> bool:
        """Whether the stream of a scope says that something cools."""
        return scope in self._told

    def _tells(self, scope: str, told: Cooldowns) -> None:
        if told.windows:
            self._told[scope] = told
        else:
            self._told.pop(scope, None)

    async def _ask(self, scope: str, note: NoteCooldowns) -> None:
        who = Who(scope, self._kernel.who.principal)
        try:
            await patiently(partial(self._kernel.ask, f"cooldown-{scope}", note, by=who))
        except ReenactError as error:
            _log.warning("what cools down could not be stored: %s", error)
