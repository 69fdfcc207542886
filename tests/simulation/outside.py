"""What the runtimes act upon: tools whose effects are counted by key, and a model that says what comes to its mind."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from reenact import tool
from reenact.adapters.tools.context import ToolContext
from reenact.events.content import Failure, OutputPart, Text, ToolCall, Usage
from reenact.events.message import Signal
from reenact.events.model import ModelAnswer, ModelFailure, ModelRequest
from reenact.events.stream import MessageRef, MessageStart, TextBlockStart, TextDelta

from .judges import flaw

if TYPE_CHECKING:
    from .node import Node
    from .world import World

TIMEOUT_S = 20.0


class Outside:
    """executions: how often an effect took place, by its key. late: keys that a process acted upon after its time."""

    now: ClassVar[Outside]

    def __init__(self, world: World) -> None:
        self.world = world
        self.executions: Counter[str] = Counter()
        self.late: set[str] = set()

    @staticmethod
    @contextlib.contextmanager
    def installed(outside: Outside) -> Iterator[None]:
        Outside.now = outside
        try:
            yield
        finally:
            del Outside.now

    # -- gates: where something outside takes its time --

    async def gate(self) -> None:
        """Wait until the world says that it is time."""
        node = self.world.current
        assert node is not None
        gate = node.loop.create_future()
        node.gates.append(gate)
        try:
            await gate
        finally:
            if gate in node.gates:
                node.gates.remove(gate)

    def open_one(self, node: Node) -> None:
        gate = node.gates.pop(self.world.chance.randrange(len(node.gates)))
        if not gate.done():
            gate.set_result(None)

    # -- tools --

    async def run(self, context: ToolContext, effect: str, n: int) -> str:
        """One run of a tool: it may refuse, take effect, fail late, or never come back."""
        world, options = self.world, self.world.options
        started = (context.session_id, context.idempotency_key.rpartition(":")[2], context.attempt)
        if started not in world.starts:
            world.fail(f"{started} runs, and that it started is not on the disk")
        fate = world.chance.random()
        await self.gate()
        if fate < options.refuses:
            raise RuntimeError("refused")
        self.takes_place(context.idempotency_key, effect)
        await self.gate()
        if fate < options.refuses + options.fails_late:
            raise RuntimeError("failed late")
        if fate < options.refuses + options.fails_late + options.hangs:
            await asyncio.Event().wait()
        return f"{effect} {n}"

    def takes_place(self, key: str, effect: str) -> None:
        node = self.world.current
        if node is None or node.dead:
            return
        self.executions[key] += 1
        if node is not self.world.owner:
            self.late.add(key)
        self.world.counts[f"{effect} took place"] += 1
        self.world.note("effect", node.name, key)

    async def proof(self, context: ToolContext) -> bool | str:
        await self.gate()
        doubt = self.world.chance.random()
        if doubt < 0.4:
            return ""  # proves nothing
        if doubt < 0.5:
            raise RuntimeError("nobody can say")
        return self.executions[context.idempotency_key] > 0


@tool(effect="read", timeout_s=TIMEOUT_S)
async def look(n: int, context: ToolContext) -> str:
    """Look something up."""
    return await Outside.now.run(context, "read", n)


@tool(effect="idempotent", timeout_s=TIMEOUT_S)
async def book(n: int, context: ToolContext) -> str:
    """Book something, once a key."""
    return await Outside.now.run(context, "idempotent", n)


@tool(effect="probeable", timeout_s=TIMEOUT_S, probe=...)
async def ship(n: int, context: ToolContext) -> str:
    """Ship something; one can ask whether it was."""
    return await Outside.now.run(context, "probeable", n)


@ship.probe
async def shipped(n: int, context: ToolContext) -> bool | str:
    """Was it shipped?"""
    return await Outside.now.proof(context)


@tool(effect="unsafe", timeout_s=TIMEOUT_S)
async def pay(n: int, context: ToolContext) -> str:
    """Pay."""
    return await Outside.now.run(context, "unsafe", n)


@tool(effect="unsafe", approval="ask", timeout_s=TIMEOUT_S)
async def wire(n: int, context: ToolContext) -> str:
    """Wire money, if a person says so."""
    return await Outside.now.run(context, "wired", n)


TOOLS = [look, book, ship, pay, wire]
GATED = ["wire", "wire", "wire"]
"""What a model also asks for in worlds in which people are asked first."""

NAMES = ["look", "book", "ship", "pay", "pay", "ship"]
STOPS = ["end_turn"] * 25 + ["max_tokens", "pause_turn", "refusal", "context_exceeded", "something_new"]


class SimModel:
    """Says something, asks for tools, fails, or never answers. It reads what it is shown and says if it is wrong."""

    async def stream(self, request: ModelRequest) -> AsyncIterator[Signal | ModelAnswer]:
        outside = Outside.now
        world, options, chance = outside.world, outside.world.options, outside.world.chance
        problem = flaw(request.items)
        if problem is not None:
            world.fail(f"{request.session_id} {request.call}: the model was shown {problem}")
        world.note("model", request.session_id, request.call, len(request.items))
        fate = chance.random()
        await outside.gate()
        yield MessageStart(message=MessageRef(id="msg", model="sim"))
        if fate < options.model_hangs:
            await asyncio.wait_for(asyncio.Event().wait(), 60)
        if chance.random() < 0.5:
            yield TextBlockStart()
            yield TextDelta(text="so ")
            await outside.gate()
        if fate < options.model_hangs + options.model_fails:
            code, retryable = chance.choice([("overloaded", True), ("overloaded", True), ("auth", False)])
            raise ModelFailure(Failure(code=code, message="no", retryable=retryable))
        parts = answer(world)
        asks = any(isinstance(part, ToolCall) for part in parts)
        stop = chance.choice(STOPS) if options.actions else "end_turn"
        yield ModelAnswer(
            parts=parts,
            stop_reason="tool_use" if asks and stop == "end_turn" else stop,
            usage=Usage(input_tokens=len(request.items), output_tokens=1),
            model="sim",
        )


def answer(world: World) -> tuple[OutputPart, ...]:
    chance = world.chance
    parts: list[OutputPart] = [Text(text=chance.choice(["", "Well.", "Hm."]))]
    while len(parts) < 4 and chance.random() < world.options.calls:
        name = chance.choice(NAMES + GATED if world.asks else NAMES) if chance.random() < 0.97 else "nothing"
        given: dict[str, Any] = {"n": chance.randrange(9)} if chance.random() < 0.97 else {"n": "bad"}
        if name == "wire":
            given = {"n": given["n"] if given["n"] == "bad" else 1}
        parts.append(ToolCall(id=chance.choice(["", "call", f"call_{len(parts)}"]), name=name, input=given))
    return tuple(parts)
