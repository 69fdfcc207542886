"""What is owed to the world, done: ledgers are asked by the treasury, models are the provider's, tools take a turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reenact.actors.dispatch import Work
from reenact.events.agent import CallModel, CancelEffect, FailModel, LaunchTool, RunTool, SettleTool, StartTool
from reenact.events.budget import NOTHING, Amount
from reenact.events.content import Failure
from reenact.events.ledger import CountUsage, RecallAllotments
from reenact.events.message import Command
from reenact.events.purse import RequestAllotment
from reenact.money.counting import not_counted
from reenact.money.line import not_asked
from reenact.money.recalls import NOT_BACK

if TYPE_CHECKING:
    from .world import World


class Outside:
    """children: the sub-sessions that the first tool of a session begins."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.children: dict[str, list[str]] = {}

    async def perform(self, stream: str, effect: Work) -> Command:
        treasury = self.world.kernel.treasury
        if isinstance(effect, RequestAllotment):
            return await treasury.line.fetch(stream, effect)
        if isinstance(effect, CountUsage):
            return await treasury.counting.count(effect)
        if isinstance(effect, RecallAllotments):
            return await treasury.recalls.recall(effect)
        if isinstance(effect, CallModel):
            return await self._call(stream, effect)
        if isinstance(effect, LaunchTool):
            await self.world.turns.turn()
            return StartTool(tool=effect.tool, attempt=effect.attempt, at=self.world.clock.now(), effect="read")
        assert type(effect) is RunTool, effect
        return await self._run(stream, effect)

    async def _call(self, stream: str, effect: CallModel) -> Command:
        """As a runtime calls: what is called back is given back first, and who is held to no limit yet hears of it."""
        world = self.world
        await world.turns.turn()
        await world.kernel.treasury.recalls.heeded(stream)
        if world.kernel.treasury.limited and not effect.paid:
            await world.kernel.treasury.counting.late(stream.removeprefix("session-"))
            world.turns.begin(world.limits.bring(stream))
        return await world.provider.call(stream, effect)

    async def _run(self, stream: str, effect: RunTool) -> Command:
        world = self.world
        await world.turns.turn()
        world.provider.bill(stream, Amount(tools=1) if effect.attempt == 1 else NOTHING)
        for child in self.children.pop(stream, []):
            world.turns.begin(world.messages.send(child))
        await world.turns.turn()
        return SettleTool(tool=effect.id, outcome="ok", output="x" * world.chance.randint(0, 200))

    def gone(self, effect: CancelEffect, *, begun: bool) -> Command:
        if effect.tool:
            return SettleTool(tool=effect.target, outcome="error", output="stopped")
        failure = Failure(code="cancelled", message="stopped")
        return FailModel(call=effect.target, attempt=effect.attempt, failure=failure)

    def failed(self, effect: Any, error: BaseException) -> Command:
        if isinstance(effect, RequestAllotment):
            return not_asked(effect, "internal")
        if isinstance(effect, RecallAllotments):
            return NOT_BACK
        if isinstance(effect, CountUsage):
            return not_counted(effect)
        if isinstance(effect, CallModel):
            failure = Failure(code="cancelled", message=str(error))
            return FailModel(call=effect.id, attempt=effect.attempt, failure=failure)
        if isinstance(effect, LaunchTool):
            at = self.world.clock.now()
            return StartTool(tool=effect.tool, attempt=effect.attempt, at=at, problem="it could not be looked at")
        assert type(effect) is RunTool, effect
        return SettleTool(tool=effect.id, outcome="error", output="failed")
