"""What is handed out is not what is decided upon: whoever changes what they were given changes nothing that runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reenact import ActionManager, ActionSpec, ExecutionContext, PolicyRef, ToolContext, tool
from reenact.adapters.models import Models
from reenact.events.errors import BadResolution
from reenact.people.handlers import ApprovalRequest
from reenact.runtime import Runtime
from tests.runtimes import run

PAY = 'pay {"order": "42", "opts": {"cents": 1}}'


class Payments:
    """A tool that pays, and what it was called with."""

    def __init__(self, approval: Any = "never") -> None:
        self.ran: list[tuple[str, dict[str, Any]]] = []

        @tool(effect="idempotent", approval=approval)
        def pay(order: str, opts: dict[str, Any]) -> str:
            """Pay."""
            self.ran.append((order, dict(opts)))
            opts["cents"] = 999
            return "paid"

        self.tool = pay

    @property
    def as_asked(self) -> bool:
        return self.ran == [("42", {"cents": 1})]


def open_with(work: Any, payments: Payments, **options: Any) -> None:
    run(work, models=Models(), tools=[payments.tool], default_agent={"model": "scripted:tools"}, **options)


@pytest.mark.parametrize("kind", ["model_answered", "*"])
def test_a_watcher_of_the_bus_changes_no_argument_of_what_runs(kind: str) -> None:
    payments = Payments()

    def hear(event: Any) -> None:
        for part in getattr(event.data, "parts", ()):
            if hasattr(part, "input"):
                part.input["opts"]["cents"] = 99

    async def work(runtime: Runtime) -> None:
        runtime.on_any(hear) if kind == "*" else runtime.on(kind, hear)
        bot = await runtime.image("bot")
        await bot.send(PAY)
        assert payments.as_asked
        told = [part.input for message in await bot.messages() for part in message.content if hasattr(part, "input")]
        assert told == [{"order": "42", "opts": {"cents": 1}}]
        assert (await runtime.replay(bot.session_id)).identical

    open_with(work, payments)


def test_a_handler_does_as_it_likes_with_what_it_is_asked() -> None:
    payments = Payments("ask")

    def handler(request: ApprovalRequest) -> bool:
        request.params["opts"]["cents"] = 99
        request.params.pop("order")
        return True

    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("bot")
        assert (await bot.send(PAY)).status == "succeeded" and payments.as_asked
        assert (await runtime.replay(bot.session_id)).identical

    open_with(work, payments, approval_handler=handler)


def test_one_reader_of_a_question_changes_nothing_for_the_next_nor_what_is_approved() -> None:
    payments = Payments("ask")

    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("bot")
        await bot.send(PAY)
        ids = [action.id for action in await runtime.actions()]

        async def readers() -> list[Any]:
            every = await runtime.all_actions(bot.session_id)
            return [*await runtime.actions(), await runtime.action(ids[0]), *every]

        for action in await readers():
            action.call.arguments["opts"]["cents"] = 99
            action.call.arguments.pop("order")
            action.call.env["STAGE"] = "production"
            action.payload["message"] = "Nothing."
        for action in await readers():
            assert action.call.arguments == {"order": "42", "opts": {"cents": 1}}
            assert action.call.env == {} and action.payload == {}
        digest = (await runtime.action(ids[0])).digest
        await runtime.resolve_action(ids[0], True, digest=digest)
        await bot.send("done?")
        assert payments.as_asked and (await runtime.replay(bot.session_id)).identical

    open_with(work, payments)


def test_a_tool_adds_no_option_to_its_own_question() -> None:
    asked: list[str] = []

    @tool(effect="idempotent")
    async def deploy(context: ToolContext) -> str:
        """Deploy."""
        options = ["staging"]
        question = {"message": "Where?", "options": options}
        action = await context.actions.require_action(ActionSpec(type="choose", payload=question))
        asked.append(action.action_id)
        action.payload["options"].append("production")
        options.append("production")
        action = await context.actions.wait_for_resolution(action.action_id)
        return str(action.resolution["choice"])

    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("bot")
        assert (await bot.send("deploy {}")).status == "waiting"
        with pytest.raises(BadResolution, match="not among the options"):
            await runtime.resolve_action(asked[0], {"choice": "production"})
        record = await ActionManager(runtime).get(asked[0])
        assert record is not None and record.payload["options"] == ["staging"]

    run(work, models=Models(), tools=[deploy], default_agent={"model": "scripted:tools"})


def test_who_answers_cannot_change_the_answer_while_it_is_looked_at() -> None:
    payments = Payments("ask")

    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("bot")
        await bot.send(PAY)
        action = (await runtime.actions())[0]
        arguments: dict[str, Any] = {"order": "43", "opts": {"cents": 2}}
        said = {"approved": True, "arguments": arguments}
        answering = asyncio.create_task(runtime.resolve_action(action.id, said))
        await asyncio.sleep(0)  # it was called, and waits for what it has to look up
        arguments["opts"]["cents"] = 99
        said["approved"] = False
        await answering
        await bot.send("done?")
        assert payments.ran == [("43", {"cents": 2})]

    open_with(work, payments)


def test_what_a_context_says_of_itself_and_of_its_policy_is_changed_by_nobody() -> None:
    context = ExecutionContext(policy_ref=PolicyRef(name="x", overrides={"deny": ["pay"]}), metadata={"a": [1]})
    assert context.policy_ref is not None
    overrides, metadata = context.policy_ref.overrides, context.metadata
    every: list[Any] = [overrides["deny"], overrides, metadata["a"], metadata]
    for held in every:
        with pytest.raises(TypeError):
            held.clear()
    assert ExecutionContext.from_dict(context.to_dict()) == context
