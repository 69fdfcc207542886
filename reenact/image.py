"""An image as a program holds it: send to it, interrupt it, read what was said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .events.message import BusEvent
from .events.model import ModelParams
from .run import Result, Run

if TYPE_CHECKING:
    from .events.message import Recorded
    from .events.notice import Message
    from .people.handlers import ApprovalHandler
    from .rules.policies import OfJob
    from .runtime import Runtime
    from .sender import MessageOptions


class Image:
    """A handle. id, session_id, container_id: opaque ids; `session_id` is the session that `send` goes to."""

    def __init__(self, runtime: Runtime, image_id: str, session_id: str, container_id: str) -> None:
        self._runtime = runtime
        self.id = image_id
        self.session_id = session_id
        self.container_id = container_id

    def send(
        self,
        content: object,
        *,
        model: str | None = None,
        fallbacks: Sequence[str] | None = None,
        params: ModelParams | None = None,
        budget: object = None,
        priority: int = 0,
        timeout_s: float | None = None,
        key: str | None = None,
        approval_handler: ApprovalHandler | None = None,
        policy: OfJob | None = None,
        credentials: Mapping[str, Any] | None = None,
    ) -> Sending:
        """Send a message: `async for event in bot.send(...)` gives the events, `await bot.send(...)` the `Result`.

        content: a text, or a list of parts. model, params: for this job only, recorded with it. A model that is named
        here is the only one that is asked, unless fallbacks are named too: then those, in this order, and none else.
        budget: what this job may use, besides the image's: a `BudgetSpec`, a dict of its fields, or dollars.
        priority: higher first among what is queued. timeout_s: the job times out so long after it was accepted. key: an
        idempotency key: the same message with it again, now or after a restart, is the same job; another message with
        it is refused. policy: narrows what this job may do, recorded with it. credentials: by provider, for this job
        only: a key, or an object with api_key and base_url. They are kept in memory while it runs; a job that goes on
        after a restart asks the runtime's credentials again.

        A job that waits for a person ends the run for now, as `waiting`, when all that it had begun has ended; one that
        waits its turn behind such a job does so as `queued`. Await it again for how it goes on.

        approval_handler(request): says of each call of this job that needs approval whether it may run. Only True is
        yes; what it raises is no, and so is its silence when the runtime's `handler_timeout_s` is over. Called in a
        thread of its own, one at a time, where it is not async.
        """
        options: MessageOptions = {
            "model": model,
            "fallbacks": fallbacks,
            "params": params,
            "budget": budget,
            "priority": priority,
            "timeout_s": timeout_s,
            "key": key,
            "approval_handler": approval_handler,
            "policy": policy,
            "credentials": credentials,
        }
        return Sending(self._runtime.sending(self.id, content, session_id=self.session_id, **options))

    async def interrupt(self, reason: str = "user_interrupt") -> None:
        """Stop the running turn; what was said by then is kept."""
        await self._runtime.interrupt(self.id, session_id=self.session_id, reason=reason)

    async def stop(self) -> None:
        """Put the agent to sleep. The conversation stays, and the next message wakes another."""
        await self._runtime.stop_image(self.id)

    async def messages(self) -> list[Message]:
        """What was said, oldest first."""
        return await self._runtime.messages(self.session_id)

    async def events(self) -> list[Recorded]:
        """The session's stored events, oldest first."""
        return await self._runtime.events(self.session_id)

    def __repr__(self) -> str:
        return f"Image({self.id!r}, session_id={self.session_id!r}, container_id={self.container_id!r})"


class Sending:
    """A message on its way: iterate it, await it, or `await sending.run()` for the `Run` behind it."""

    def __init__(self, sent: asyncio.Future[Run]) -> None:
        self._run = sent
        if sent.done():
            _known(sent)
        else:
            sent.add_done_callback(_known)

    async def run(self) -> Run:
        """The run. Raises what was wrong with the message."""
        if self._run.done():
            return self._run.result()
        return await asyncio.shield(self._run)

    def __await__(self) -> Generator[Any, None, Result]:
        return self.result().__await__()

    async def result(self, timeout_s: float | None = None) -> Result:
        """How it ended: see `Run.result`."""
        return await (await self.run()).result(timeout_s)

    async def __aiter__(self) -> AsyncIterator[BusEvent]:
        async for event in await self.run():
            yield event


def _known(sent: asyncio.Future[Run]) -> None:
    """Who awaits it gets what it raised; who does not care is not bothered with it."""
    if not sent.cancelled():
        sent.exception()
