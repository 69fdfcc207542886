"""What the dispatch and the treasury take for a kernel: it decides, stores and tells at once, in one process at a time.

The deciders, the dispatch and the treasury are the real ones. Of a process that is killed the log is left, and nothing
else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from reenact.actors import decider
from reenact.actors.book import State
from reenact.actors.cell import noun_of
from reenact.actors.dispatch import Dispatch, Origin
from reenact.actors.system import Reply
from reenact.events.agent import RecoverEffect
from reenact.events.ledger import BudgetRemoved, BudgetSet
from reenact.events.message import Command, Context, Head, Recorded
from reenact.events.purse import AllotmentReleased, ReleaseAllotment
from reenact.flow.kernel import Who
from reenact.money.counting import Counting
from reenact.money.treasury import Treasury

from .bus import Bus
from .log import SCOPE

if TYPE_CHECKING:
    from .world import World


class Kernel:
    """left: sessions that the process before left in the middle of something, and that are not taken up at once."""

    who = Who(SCOPE, "user")

    def __init__(self, world: World) -> None:
        self.world = world
        self.log = world.log
        self.turns = world.turns
        self.kills = 0
        self.up()

    # -- a process --

    def up(self) -> None:
        """A process begins: it knows the log, and nothing else."""
        self.dispatch = Dispatch(self.world.outside, self.tell, clock=self.world.clock)
        self.bus = Bus()
        self.left: set[str] = set()
        self.treasury = self._treasury()
        due = self.log.ledger.due
        self.called_back = {f"session-{session_id}": ask for session_id, ask in due.items()}
        for stream, states in self.log.states.items():
            owed = decider.owed(noun_of(stream), states)
            if not owed:
                continue
            if self.world.free and stream.startswith("session-"):
                self.left.add(stream.removeprefix("session-"))
                self.turns.begin(self._taken_up(stream))
            else:
                self.dispatch.owed(stream, owed, [])

    async def down(self) -> None:
        """It is killed: whatever was not committed never was. The next one begins."""
        self.kills += 1
        self.dispatch._closed = True
        flights = [flight.task for flights in self.dispatch._flights.values() for flight in flights.values()]
        await self.turns.end(task for task in flights if task is not None)
        self.log.epoch += 1
        self.up()

    async def _taken_up(self, stream: str) -> None:
        """What an earlier process left goes on under the limits of now."""
        await self.world.limits.bring(stream)
        await self.turns.turn()
        self.wake(stream)

    def _treasury(self) -> Treasury:
        treasury = Treasury(self, self.world.clock, SCOPE)  # type: ignore[arg-type]
        treasury.counting = Reading(self, self.world.clock, SCOPE)  # type: ignore[arg-type]
        treasury._in_force = State(budgets=self.log.ledger.budgets)
        return treasury

    # -- what is asked of it --

    def commit(self, stream: str, command: Command, principal: str = "ann") -> tuple[tuple[Any, ...], list[Recorded]]:
        """Decide, store, show it to the judge, and tell it."""
        noun, clock = noun_of(stream), self.world.clock
        earlier, version = self.log.states_of(stream), self.log.versions.get(stream, 0)
        decision = decider.decide(
            noun, earlier, command, version=version, at=clock.now(), epoch=self.log.epoch, principal=principal
        )
        if not decision.events:
            return earlier, []
        owed = decider.owed(noun, decision.states)
        owes = tuple(effect.id for effect in owed)
        context = Context(scope=SCOPE, principal=principal)
        head = Head(id=clock.new_id(), at=clock.now(), asked=command.type, context=context, owes=owes)
        events = self.log.append(stream, decision, head)
        self.world.evidence.see(stream, earlier, decision.states, events)
        self.world.judge.see(stream, events)
        for recorded in events:
            self.bus.tell(recorded)
            if isinstance(recorded.data, AllotmentReleased | BudgetSet | BudgetRemoved):
                self.treasury.hear(recorded)
        self.dispatch.owed(stream, owed, events)
        return decision.states, events

    async def ask(self, stream: str, command: Command, **envelope: Any) -> Reply:
        await self.turns.turn()
        states, events = self.commit(stream, command, envelope.get("principal", "ann"))
        await self.turns.turn()
        return Reply(states, events)

    async def peek(self, stream: str, **_: Any) -> tuple[Any, ...]:
        await self.turns.turn()
        return self.log.states_of(stream)

    def wake(self, stream: str) -> None:
        owed = decider.owed(noun_of(stream), self.log.states[stream])
        if owed:
            self.dispatch.owed(stream, owed, [])

    def may_touch(self, stream: str, states: tuple[Any, ...]) -> bool:
        return self.dispatch.is_at(stream) or not decider.owed(noun_of(stream), states)

    def later(self, work: Any) -> None:
        self.turns.begin(work)

    @property
    def telling(self) -> Self:
        """As its own list of who is awake."""
        return self

    async def session(self, stream: str) -> Awake:
        return Awake(self.log.newest.get(stream))

    # -- ends of effects --

    def tell(self, stream: str, command: Command, origin: Origin | None, otherwise: Any) -> None:
        self.turns.begin(self._told(stream, command))

    async def _told(self, stream: str, command: Command) -> None:
        if isinstance(command, RecoverEffect) and stream in self.called_back:
            await self.ask(stream, ReleaseAllotment(ask=self.called_back[stream]))
        await self.ask(stream, command)


class Awake:
    """What the treasury knows of a session that is awake."""

    def __init__(self, newest: Recorded | None) -> None:
        self.newest = newest


class Reading(Counting):
    """Reads when chance says so, and in no thread."""

    async def _aside(self, work: Any) -> Any:
        await self._kernel.turns.turn()  # type: ignore[attr-defined]
        return work()
