"""The provider of models, who bills each call the moment he answers it, whether or not anybody lives to hear of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reenact.events.agent import AnswerModel, CallModel, FailModel
from reenact.events.budget import NOTHING, Amount, Rate, dollars
from reenact.events.content import Cost, Failure, Text, ToolCall, Usage
from reenact.events.message import Command
from reenact.events.model import ModelAnswer
from reenact.events.tool import CallCheck

if TYPE_CHECKING:
    from .world import World

RATE = Rate("scripted:any", 3_000_000, 15_000_000)  # three and fifteen dollars for a billion tokens: small numbers
FATES = {"answers": 5, "uses tools": 4, "is cut": 1, "is counted and cut": 1, "is refused": 1}
"""What becomes of a call, and how often."""


class Provider:
    """billed: the truth, what he asks for in all. billed_free: for calls with nothing set aside for them. billed_to: by
    principal. asked: the calls that came to him."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.billed = self.billed_free = NOTHING
        self.billed_to: dict[str, Amount] = {}
        self.asked: set[tuple[str, str]] = set()
        self._calls_of_bob: list[tuple[int, int]] = []  # when, by the time that really passes, and how many

    async def call(self, stream: str, effect: CallModel) -> Command:
        """He is asked, bills, and says what came of it."""
        world, chance = self.world, self.world.chance
        purse = world.log.states[stream][1].purse
        held = None if purse is None else purse.held
        most = held.amount.tokens - effect.params.max_tokens if held is not None else 0
        read = max(0, most) if world.drawn.greedy else chance.randint(0, max(0, most))
        written = effect.params.max_tokens or 0
        written = written if world.drawn.greedy else chance.randint(0, written)
        paid = RATE.cost(read, written)
        usage, cost = Usage(input_tokens=read, output_tokens=written), Cost(amount=dollars(paid), table="world")
        fate = chance.choices([*FATES], [*FATES.values()])[0]
        amount = Amount(requests=1) if fate == "is refused" else Amount(tokens=read + written, cost=paid, requests=1)
        self.asked.add((stream, effect.id))
        self.billed_free += amount if held is None else NOTHING
        world.evidence.late += amount if world.limits.limited and not effect.paid else NOTHING
        self.bill(stream, amount)
        await world.turns.turn()
        return self._answer(effect, fate, usage, cost)

    def bill(self, stream: str, amount: Amount) -> None:
        """What he asks for, and of whom: of whoever sent the running job."""
        self.billed += amount
        whose = self.world.messages.runs_for(self.world.log.states[stream])
        self.billed_to[whose] = self.billed_to.get(whose, NOTHING) + amount
        if whose == "bob" and amount.requests:
            self._calls_of_bob.append((self.world.passed, amount.requests))
        self.world.judge.nothing_is_overspent()

    def calls_of_bob_since(self, then: int) -> int:
        return sum(count for at, count in self._calls_of_bob if at > then)

    def _answer(self, effect: CallModel, fate: str, usage: Usage, cost: Cost) -> Command:
        chance = self.world.chance
        again = chance.choice([0, None])
        failed: dict[str, Any] = {"call": effect.id, "attempt": effect.attempt, "retry_in_ms": again}
        if fate == "is refused":
            return FailModel(failure=Failure(code="overloaded", message="no"), **failed)
        if fate == "is cut":
            return FailModel(failure=Failure(code="stream_cut", message="cut"), **failed)
        if fate == "is counted and cut":
            failure = Failure(code="cancelled", message="cut")
            return FailModel(failure=failure, partial=(Text(text="x"),), usage=usage, cost=cost, **failed)
        calls = chance.randint(1, 3) if fate == "uses tools" else 0
        parts: tuple[Any, ...] = tuple(ToolCall(id=f"c{n}", name="look", input={}) for n in range(calls))
        answer = ModelAnswer(
            parts=parts or (Text(text="Done."),), stop_reason="tool_use" if calls else "end_turn", usage=usage
        )
        checks = tuple(CallCheck(name="look", effect=chance.choice(["read", "idempotent"])) for _ in range(calls))
        return AnswerModel(call=effect.id, answer=answer, checks=checks, cost=cost)
