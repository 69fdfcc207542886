"""Access to the kernel, as one principal of one scope has it. What belongs to another scope is not there."""

from __future__ import annotations

from functools import partial

from .adapters.tools.acting import acting_as
from .events.action import AGENT_PRINCIPALS
from .events.errors import NotAPerson
from .kernel import Kernel, Who
from .pane import Pane


class Access:
    """ask(stream, command): see `Kernel.ask`. peek(stream): the states of a stream's deciders. who: whose both are."""

    __slots__ = ("ask", "kernel", "peek", "scope", "who")

    def __init__(self, kernel: Kernel, who: Who) -> None:
        self.kernel = kernel
        self.who, self.scope = who, who.scope
        self.ask = partial(kernel.ask, by=who)
        self.peek = partial(kernel.peek, scope=who.scope)

    @property
    def reads(self) -> Pane:
        """What the log has of this scope. Raises Closed before it is open."""
        return Pane(self.kernel.log, self.scope)

    @property
    def acting_as(self) -> str:
        """The principal that whoever calls now acts as: inside of a tool, its agent."""
        return acting_as() or self.who.principal

    def check_person(self, message: str) -> None:
        """Raises NotAPerson with this message where an agent or one of its tools calls."""
        if self.acting_as.startswith(AGENT_PRINCIPALS):
            raise NotAPerson(message)

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC."""
        return self.kernel.clock.now() // 1000
