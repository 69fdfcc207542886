"""The sessions of one scope: begun, read, played again, held to the policies of now, and gone on with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ..actors.replay import Replay, replay
from ..actors.selection import chain_of
from ..actors.session import State as SessionState
from ..actors.terms import rate_of
from ..events import codec
from ..events.budget import Terms
from ..events.errors import BadInput, Conflict, NotFound
from ..events.image import AttachSession
from ..events.message import Recorded
from ..events.notice import Message
from ..events.policy import Policy
from ..events.session import CreateSession, SessionCreated
from ..given import checked_text
from ..identity.access import Access
from ..rules.held import given_of
from ..sender import Sender
from .definitions import Definitions
from .images import Images
from .kept import Kept
from .unreadable import passed_over


def _called_by(states: tuple[Any, ...]) -> tuple[str, ...]:
    """The models that an agent may call before its image is asked again: its own, and those that its jobs name."""
    lane: SessionState = states[0]
    definition = states[1].definition
    if definition is None:
        return ()
    jobs = (*(() if lane.running is None else (lane.running,)), *lane.queue)
    chains = (chain_of(definition, overrides) for overrides in (None, *(job.overrides for job in jobs)))
    return tuple(dict.fromkeys(model for chain in chains for model in chain))


class Sessions:
    """definitions: what their agents think with, also those of a deleted image."""

    def __init__(
        self, access: Access, kept: Kept, images: Images, definitions: Definitions, *, new_id: Callable[[str], str]
    ) -> None:
        self._access = access
        self._kept = kept
        self._images = images
        self._definitions = definitions
        self._new_id = new_id

    async def begin(self, image_id: str, *, alias: str | None = None) -> str:
        """A new one of an image, which becomes its current one. Returns its id.

        alias: a name that no other in the scope may have. Taken already: by one of this image, that is returned; by one
        of another image, Conflict is raised.
        """
        state = await self._images.state(image_id)
        if alias is not None:
            checked_text(alias, "alias")
        session_id = self._new_id("sess")
        create = CreateSession(
            session_id=session_id,
            image_id=image_id,
            container_id=state.container_id,
            created_at=self._access.now_ms(),
            alias=alias,
        )
        key = None if alias is None else f"session:{alias}"
        reply = await self._access.ask(f"session-{session_id}", create, key=key)
        if reply.duplicate is not None:
            stream = reply.duplicate.stream
            session_id = stream.removeprefix("session-")
            if (await self._access.peek(stream))[0].image_id != image_id:
                raise Conflict(f"Session {alias!r} ({session_id}) belongs to another image.")
        await self._access.ask(f"image-{image_id}", AttachSession(session_id=session_id))
        return session_id

    async def state(self, session_id: str) -> SessionState:
        """The lane of one. Raises NotFound."""
        state: SessionState = (await self._access.peek(f"session-{session_id}"))[0]
        if state.session_id is None:
            raise NotFound(f"Session not found: {session_id}")
        return state

    # -- read --

    async def events(self, session_id: str, *, after: int = 0) -> list[Recorded]:
        """The stored events of one above a version. Raises NotFound."""
        if isinstance(after, bool) or not isinstance(after, int) or after < 0:
            raise BadInput(f"after must be a version, a whole number from 0, not {ascii(after)[:60]}.")
        stored = await asyncio.to_thread(self._access.reads.read, f"session-{session_id}", after=min(after, 2**62))
        if not stored and not after:
            raise NotFound(f"Session not found: {session_id}")
        return [recorded for batch in stored for recorded in codec.unpack(batch)]

    async def messages(self, session_id: str) -> list[Message]:
        """What was said in one, oldest first. Raises NotFound."""
        from ..projections.transcript import Transcript

        transcript = Transcript()
        for recorded in await self.events(session_id):
            transcript.apply(recorded)
        return list(transcript.messages)

    async def replay(self, session_id: str) -> Replay:
        """Decide one again from the log, in another thread and without reaching outside, and compare."""
        stream = f"session-{session_id}"
        stored = await asyncio.to_thread(self._access.reads.read, stream)
        if not stored:
            raise NotFound(f"Session not found: {session_id}")
        return await asyncio.to_thread(replay, stream, stored)

    # -- gone on with --

    async def bring_rules(self, session_id: str, sender: Sender) -> None:
        """Hold the agent of one to the policies and limits of now, also in the middle of its turn. One that sleeps is
        left: it is woken under them. sender: knows them. Raises what kept this from being stored.
        """
        stream = f"session-{session_id}"
        first = await asyncio.to_thread(self._access.reads.read, stream, limit=1)
        created = next((each for batch in first for each in codec.unpack(batch)), None)
        if created is None or not isinstance(created.data, SessionCreated):
            return
        image_id, models = created.data.image_id, _called_by(await self._access.peek(stream))
        state = await self._definitions.image(image_id, self._access.scope)
        await self._kept.policies.load(state.container_id)
        await sender.ready(state, session_id, models)
        # Read last, and asked at once: whoever changes them meanwhile brings what they change behind this.
        state = await self._definitions.image(image_id, self._access.scope)
        await self._access.ask(stream, sender.rules(state, session_id, models))

    async def hold(self, session_id: str) -> tuple[Policy, ...]:
        """Have one keep the layers that it was last run under, in the place of the runtime's own. Returns them."""
        policies = self._kept.policies
        if not policies.is_held(session_id):
            policies.hold(session_id, await asyncio.to_thread(given_of, self._access.reads, session_id))
        return policies.own_of(session_id)

    async def at_work(self) -> list[str]:
        """Those that are at work here."""
        return await self._at_work(lambda terms: True)

    async def unlimited(self) -> list[str]:
        """Those that are at work here and know of no ledger."""
        return await self._at_work(lambda terms: terms is None or terms.ledger is None)

    async def unpriced(self, model: str) -> list[str]:
        """Those that are at work here, know of a ledger, and do not know what this model charges."""
        return await self._at_work(
            lambda terms: terms is not None and terms.ledger is not None and rate_of(terms, model, 0) is None
        )

    async def _at_work(self, which: Callable[[Terms | None], bool]) -> list[str]:
        found = []
        for stream in await asyncio.to_thread(self._access.reads.streams, "session-", owing=True):
            if not self._access.kernel.dispatch.is_at(stream):
                continue  # it hears of it when it is taken up
            with passed_over(stream):
                definition = (await self._access.peek(stream))[1].definition
                if definition is not None and which(definition.terms):
                    found.append(stream.removeprefix("session-"))
        return found

    async def resume(
        self,
        session_id: str,
        wake: Callable[[str, str], Awaitable[object]],
        bring_rules: Callable[[str], Awaitable[object]],
    ) -> None:
        """Take up what one owes. wake(image_id, session_id): wakes its agent. bring_rules(session_id): see there.
        Raises NotFound.
        """
        state = await self.state(session_id)
        if state.queue and not state.awake:
            await wake(state.image_id or "", session_id)
        else:
            await bring_rules(session_id)
        self._access.kernel.wake(f"session-{session_id}")
