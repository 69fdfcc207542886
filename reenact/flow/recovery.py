"""Recovery: what an earlier owner of the log left is taken up, each session under the policies of now."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count

from ..events.errors import Busy, Closed, Conflict, DiskFull, Fenced, ReenactError, StoreFailed, UnknownOutcome
from .ends import retell_s
from .kernel import Kernel

RECOVERING_MAX = 16
"""Sessions that are taken up at a time after a restart: what is asked anew meanwhile waits for no more than these."""


class Recovery:
    """bring(session_id, scope): holds the agent of a session to the policies of now. scope: of a session whose stream
    is empty.
    """

    def __init__(self, kernel: Kernel, bring: Callable[[str, str], Awaitable[None]], scope: str) -> None:
        self._kernel = kernel
        self._bring = bring
        self._scope = scope
        self._room = asyncio.Semaphore(RECOVERING_MAX)

    def take_up(self, stream: str) -> None:
        """Go on with what a session owes, as soon as its agent is held to the policies of now."""
        self._kernel.later(self._taken_up(stream))

    async def _taken_up(self, stream: str) -> None:
        """Nothing is done under policies of yesterday: where there is no room for those of now, it waits for it. Where
        they cannot be read, or the session cannot, it stays as it is.
        """
        for tries in count():
            try:
                async with self._room:
                    first = await asyncio.to_thread(self._kernel.log.read, stream, limit=1)
                    scope = first[0].batch.head.context.scope if first else self._scope
                    await self._bring(stream.removeprefix("session-"), scope)
                break
            except (DiskFull, Busy, Conflict):
                await asyncio.sleep(retell_s(tries))
            except (Closed, Fenced, StoreFailed, UnknownOutcome):
                return  # it takes nothing more; the next owner does this again
            except ReenactError as error:
                logging.getLogger("reenact").error("%s is not taken up: %s", stream, error)
                self._kernel.leave(stream)
                return
        with suppress(Closed):
            self._kernel.wake(stream)
