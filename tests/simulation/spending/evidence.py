"""What was used, as the log says it: read of every batch as it is written, and held against what was billed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reenact.actors.mind import knows_ledger
from reenact.actors.purse import EMPTY
from reenact.events.agent import NOT_ASKED, ModelAnswered, ModelFailed, ToolStarted
from reenact.events.budget import NOTHING, Amount, nanos
from reenact.events.message import Recorded
from reenact.events.purse import AllotmentTaken, AllotmentWanted, BudgetReserved

if TYPE_CHECKING:
    from .world import World


class Evidence:
    """used_by: of what was set aside, by principal. used_free: of calls and tools with nothing set aside for them.
    used_apart: of a purse, with nothing allotted for it. lost_unasked: what of that was set aside for calls whose
    process died before it asked, of which no ledger may have heard. unasked: how many calls in `used_free` were stopped
    before the provider was asked. before: what limits that were set later do not undo. late: what nothing was set aside
    for, since a limit stands."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.used_by: dict[str, Amount] = {}
        self.used_free = self.used_apart = self.lost_unasked = NOTHING
        self.unasked = 0
        self.begun_tools = 0
        self.before = self.late = NOTHING

    def used(self) -> tuple[Amount, Amount]:
        """What sessions have used, and what they are using."""
        used = using = NOTHING
        for _, states in self.world.log.sessions:
            purse = states[1].purse
            if purse is not None:
                used += purse.spent + purse.free
                using += NOTHING if purse.held is None else purse.held.amount
        return used + self.used_free, using

    def spent(self) -> Amount:
        """What was billed, with what is set aside for calls under way, and the tools that are at it."""
        _, using = self.used()
        billed = self.world.provider.billed
        return billed + using + Amount(tools=self.begun_tools) - Amount(tools=billed.tools)

    def see(self, stream: str, earlier: tuple[Any, ...], states: tuple[Any, ...], events: list[Recorded]) -> None:
        """A batch was written, and this is what it made of the states of its stream."""
        self._spends(earlier, states, events)
        self._slips(stream, earlier, events)

    def _spends(self, earlier: tuple[Any, ...], states: tuple[Any, ...], events: list[Recorded]) -> None:
        """Who spent what was set aside; and what the log knows of that nothing was set aside for."""
        if events[0].stream.startswith("session-") and states[1].purse is not None:
            before, purse = earlier[1].purse or EMPTY, states[1].purse
            apart = purse.free - before.free
            whose = self.world.messages.runs_for(earlier if earlier[0].running is not None else states)
            self.used_by[whose] = self.used_by.get(whose, NOTHING) + (purse.spent - before.spent) + apart
            self.used_apart += apart
            lost = before.held
            if lost is not None and lost.free and (events[0].stream, lost.call) not in self.world.provider.asked:
                self.lost_unasked += apart.least(lost.amount)
        for recorded in events:
            match recorded.data:
                case ModelAnswered(call=call, usage=usage, cost=cost) | ModelFailed(call=call, usage=usage, cost=cost):
                    purse = earlier[1].purse
                    if purse is None or purse.held is None or purse.held.call != call:
                        tokens = 0 if usage is None else usage.input_tokens + usage.output_tokens
                        paid = 0 if cost is None else nanos(cost.amount)
                        asked = not (isinstance(recorded.data, ModelFailed) and recorded.data.failure == NOT_ASKED)
                        self.used_free += Amount(tokens, paid, 1) if asked else NOTHING
                        self.unasked += asked and (recorded.stream, call) not in self.world.provider.asked
                case ToolStarted(attempt=1):
                    self.begun_tools += 1
                    if states[1].purse is None or not states[1].purse.counts:
                        self.used_free += Amount(tools=1)
                    if self.world.limits.limited and not knows_ledger(states[1]):
                        self.late += Amount(tools=1)

    def _slips(self, stream: str, earlier: tuple[Any, ...], events: list[Recorded]) -> None:
        """What a session that has not heard of a change yet begins with what it had before; the same events may go on
        to ask for more."""
        due = self.world.log.ledger.due.get(stream.removeprefix("session-"))
        if due is None:
            return
        held = None if earlier[1].purse is None else earlier[1].purse.source
        for recorded in events:
            match recorded.data:
                case AllotmentTaken(ask=ask):
                    held = ask
                case AllotmentWanted():
                    held = None
                case BudgetReserved(tokens=tokens, cost=cost) if held == due:
                    self.before += Amount(tokens, cost, 1, 0)
                case ToolStarted(attempt=1) if held == due:
                    self.before += Amount(tools=1)
