"""Access to the kernel, as one principal of one scope has it. What belongs to another scope is not there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..adapters.tools.acting import acting_as, origin, within
from ..events import codec
from ..events.action import AGENT_PRINCIPALS
from ..events.errors import BadInput, Closed, NotAPerson, Refused
from ..events.message import Command, Recorded
from ..events.secret import Secret
from ..flow.kernel import Kernel, Who
from .pane import Pane

if TYPE_CHECKING:
    from ..actors.system import Reply
    from ..events.policy import Policy

NO_RULES = "Rules are set by people and programs, never by an agent or its tools."
NO_LIMITS = "Limits are set by people and programs, never by an agent or its tools."
NO_DECISIONS = "An agent or a tool cannot decide this: a person must."
BY_HAND = (
    "A command made by hand is the program's own, on the runtime itself; a view and a tool use the methods, such as"
    " send(), cancel(), update_image(), set_budget() and resolve_action()."
)


def check_no_name(secret: str | Secret, who: Who) -> None:
    """Raises BadInput for a secret that whoever gives it is called by."""
    if isinstance(secret, str | Secret) and Secret(secret).reveal().strip() in (who.scope, who.principal):
        raise BadInput("A secret is not the name of a scope or a principal: these stand in every event.")


class Access:
    """peek(stream): the states of a stream's deciders. who: on whose behalf everything is asked."""

    __slots__ = ("kernel", "peek", "scope", "who")

    def __init__(self, kernel: Kernel, who: Who) -> None:
        self.kernel = kernel
        self.who, self.scope = who, who.scope
        self.peek = partial(kernel.peek, scope=who.scope)

    def ask(self, stream: str, command: Command, **more: Any) -> Awaitable[Reply]:
        """See `Kernel.ask`. For the runtime's own methods, which look at who may ask this before they do."""
        self.kernel.check_ready()
        return self.kernel.ask(stream, command, by=self.who, **more)

    @property
    def reads(self) -> Pane:
        """What the log has of this scope. Raises Closed before it is open."""
        return Pane(self.kernel.log, self.scope)

    async def follow(self, after: int, *, whole: bool) -> AsyncIterator[Recorded]:
        """Every stored event above a position, then on as they come, until the kernel closes. whole: of all scopes."""
        while not self.kernel.bus.disposed:
            page = await asyncio.to_thread(self.kernel.log.read_all, after=after)
            for stored in page:
                if whole or stored.batch.head.context.scope == self.scope:
                    for recorded in codec.unpack(stored):
                        yield recorded
                after = stored.position + len(stored.batch.rows) - 1
            if not page:
                try:
                    await self.kernel.bus.past(after)
                except Closed:
                    return

    @property
    def acting_as(self) -> str:
        """The principal that whoever calls now acts as: inside of a tool, its agent."""
        return acting_as() or self.who.principal

    @property
    def within(self) -> tuple[Policy, ...]:
        """The rules that hold for a job that whoever calls now sends. Raises Refused where that is a tool and they are
        not known."""
        rules = within()
        if rules is None:
            raise Refused("It is not known under which rules this tool works: it sends with send(), not by the bus.")
        return rules

    @property
    def origin(self) -> str:
        """The principal for whom a job counts that whoever calls now sends, where that is not they."""
        return origin(self.scope)

    def check_person(self, message: str) -> None:
        """Raises NotAPerson with this message where an agent or one of its tools calls."""
        if self.by_agent:
            raise NotAPerson(message)

    @property
    def by_agent(self) -> bool:
        """Whether an agent or one of its tools calls."""
        return self.acting_as.startswith(AGENT_PRINCIPALS)

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC."""
        return self.kernel.clock.now() // 1000
