"""A call whose arguments a person changed: what ran is what is shown and told, and by whom it was changed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from reenact import Runtime, tool
from reenact.adapters.models import Models
from reenact.adapters.models.anthropic_request import body as anthropic_body
from reenact.adapters.models.openai_chat import chat_body
from reenact.adapters.models.openai_host import Endpoint
from reenact.adapters.models.openai_responses import responses_body
from reenact.adapters.models.scripted import Scripted
from reenact.cli.reading import Reading
from reenact.events.log import MemoryStore
from reenact.events.model import ModelParams, ModelRequest
from reenact.projections.transcript import Transcript
from tests.projections.test_context import judge
from tests.runtimes import Heard, run

REFUND = [
    {"text": "I refund it.", "tool_calls": [{"id": "call_7", "name": "refund", "input": {"order": "42"}}]},
    {"text": "Done."},
]

done: list[str] = []


@tool(effect="unsafe", approval="ask")
def refund(order: str) -> str:
    """Refund an order."""
    done.append(order)
    return f"refunded {order}"


@tool(name="refund", effect="unsafe", approval="ask")
def other(order: str, urgent: bool = False) -> str:
    """Refund an order, now with urgency."""
    raise AssertionError


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    done.clear()


async def changed(runtime: Runtime, order: str = "43") -> Any:
    """A session in which a person let the call run with another order."""
    bot = await runtime.image("support")
    sent = await bot.send("Refund order 42").run()
    result = await sent
    await runtime.resolve_action(result.action or "", True, arguments={"order": order})
    await sent
    return bot


def test_the_conversation_shows_what_ran_what_was_asked_for_and_who_changed_it() -> None:
    async def work(runtime: Runtime) -> None:
        heard = Heard(runtime)
        bot = await changed(runtime)
        assert done == ["43"]
        messages = await bot.messages()
        [call] = [message for message in messages if message.subtype == "tool-call"]
        assert call.content[0].input == {"order": "43"} and call.content[0].id == "call_7"
        assert (call.changed.by, call.changed.asked) == ("user", {"order": "42"})
        [executing] = heard.of("tool_executing")
        assert executing.data.input == {"order": "43"}
        first, again = [event.data for event in heard.of("tool_call_message")]
        assert (first.id, first.content[0].input, first.changed) == (call.id, {"order": "42"}, None)
        assert again == call, "who watches is told the message again"
        assert [message.id for message in messages].count(call.id) == 1

        transcript = Transcript()
        for recorded in await bot.events():
            transcript.apply(recorded)
        lines = "\n".join(transcript.reader_lines())
        assert 'tool       refund(order="43") → refunded 43 [ok]' in lines
        assert 'user changed the arguments; asked for was refund(order="42")' in lines

    run(work, REFUND, repeat=False, tools=[refund])


def test_one_that_was_approved_as_it_stood_shows_no_change() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        sent = await bot.send("Refund order 42").run()
        await runtime.resolve_action((await sent).action or "", True)
        await sent
        [call] = [message for message in await bot.messages() if message.subtype == "tool-call"]
        assert call.content[0].input == {"order": "42"} and call.changed is None

    run(work, REFUND, repeat=False, tools=[refund])


def bodies(items: Any) -> list[dict[str, Any]]:
    """What each vendor would be sent of these items."""
    request = ModelRequest(model="any", system="", items=items, tools=(), params=ModelParams())
    where = Endpoint(host="models.example", base_url="https://models.example/v1", api_key="k")
    sent = [anthropic_body(request), chat_body(request, where), responses_body(request, where)]
    return [json.loads(each) for each in sent]


def test_the_model_is_told_what_ran_and_its_call_keeps_its_id_for_every_vendor() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await changed(runtime)
        session = await runtime._kernel.telling.session(f"session-{bot.session_id}")
        items = list(session.context.render(10_000))
        judge(items)
        call = next(part for item in items for part in getattr(item, "parts", ()) if hasattr(part, "input"))
        [result] = next(item.results for item in items if hasattr(item, "results"))
        assert (call.id, call.input, result.id) == ("call_7", {"order": "42"}, "call_7")
        assert result.output == (
            '[A person changed the arguments of this call before it ran. It ran with: {"order":"43"}]\n\nrefunded 43'
        )
        for body in bodies(items):
            text = json.dumps(body)
            assert text.count("call_7") == 2, "asked once and answered once"
            assert text.count("A person changed the arguments") == 1

    run(work, REFUND, repeat=False, tools=[refund])


def test_of_one_that_was_changed_and_then_not_run_nobody_says_that_it_ran() -> None:
    store = MemoryStore()

    async def before(runtime: Runtime) -> None:
        assert (await (await runtime.image("support")).send("Refund order 42")).status == "waiting"

    async def between(runtime: Runtime) -> None:
        [action] = await runtime.actions()
        await runtime.resolve_action(action.id, True, arguments={"order": "43"})

    async def after(runtime: Runtime) -> None:
        heard = Heard(runtime)
        bot = await runtime.image("support")
        await heard.until("job_succeeded")
        session = await runtime._kernel.telling.session(f"session-{bot.session_id}")
        [result] = next(item.results for item in session.context.render(10_000) if hasattr(item, "results"))
        assert "and then it was not run" in result.output and "It ran with" not in result.output
        assert "another version" in result.output and result.is_error and not done

    run(before, REFUND, repeat=False, store=store, tools=[refund])
    run(between, store=store, tools=[refund], armed=False)
    run(after, REFUND[1:], repeat=False, store=store, tools=[other])


def test_whoever_must_say_what_became_of_it_is_shown_what_ran(tmp_path: Path) -> None:
    @tool(name="refund", effect="unsafe", approval="ask", timeout_s=0.05)
    async def hangs(order: str) -> str:
        """Refund an order."""
        await asyncio.Event().wait()
        return ""

    url = f"sqlite:///{tmp_path / 'agents.db'}"

    async def work() -> str:
        models = Models({"scripted": Scripted(REFUND)})
        async with Runtime(url, models=models, tools=[hangs], default_agent={"model": "scripted:any"}) as runtime:
            return str((await changed(runtime)).session_id)

    session_id = asyncio.run(asyncio.wait_for(work(), 20))
    with Reading(url) as reading:
        [call] = reading.calls(session_id)
    assert (call["input"], call["doubt"]) == ({"order": "43"}, True)
