"""A conversation that goes from one vendor to another and back, in the middle of a turn, with calls of tools between.

The adapters are the real ones, over connections on this machine.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from reenact import CooldownTimes, Failover, Runtime, tool
from reenact.adapters.models import Retries, RetryPolicy
from reenact.adapters.models.anthropic_request import body
from reenact.adapters.models.openai_chat import chat_body
from reenact.adapters.models.openai_host import Endpoint
from reenact.adapters.models.openai_responses import responses_body
from reenact.events.agent import ModelCalled, ModelSelected
from reenact.events.content import AssistantItem, Native, Text, Thinking, UserItem
from reenact.events.log import MemoryLog
from reenact.events.model import Credentials, ModelRequest
from tests.adapters.models.recordings import fresh_session
from tests.adapters.models.responses import function, message, reasoning, stream_of
from tests.adapters.models.served import Answer, serve, streamed, whole

CLAUDE, GPT = "anthropic:claude-sonnet-5-5", "openai:gpt-5.5"
ALWAYS = Failover(retries=0, cooldowns=CooldownTimes(transient_s=(0,), auth_s=0, probe_every_s=0))


@tool(effect="read")
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def sse(events: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(b"event: %s\ndata: %s\n\n" % (each["type"].encode(), json.dumps(each).encode()) for each in events)


def claude(*blocks: tuple[dict[str, Any], dict[str, Any]], stop: str) -> Answer:
    """blocks: each as it begins, and what is added to it."""
    start = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": []}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": start | {"usage": {"input_tokens": 9, "output_tokens": 1}}}
    ]
    for index, (block, delta) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events.append({"type": "content_block_delta", "index": index, "delta": delta})
        if block["type"] == "thinking":
            signed = {"type": "signature_delta", "signature": "signed-by-claude"}
            events.append({"type": "content_block_delta", "index": index, "delta": signed})
        events.append({"type": "content_block_stop", "index": index})
    events.append({"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": 5}})
    return streamed(sse([*events, {"type": "message_stop"}]))


def thinks(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"type": "thinking", "thinking": "", "signature": ""}, {"type": "thinking_delta", "thinking": text}


def calls(id: str, **given: int) -> tuple[dict[str, Any], dict[str, Any]]:
    block = {"type": "tool_use", "id": id, "name": "add", "input": {}}
    return block, {"type": "input_json_delta", "partial_json": json.dumps(given)}


def says(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"type": "text", "text": ""}, {"type": "text_delta", "text": text}


def gpt(*output: dict[str, Any]) -> Answer:
    return streamed(sse(stream_of(*output)))


def refused(status: int, kind: str) -> Answer:
    return whole({"type": "error", "error": {"type": kind, "message": f"{kind}, and no more"}}, status=status)


def models(events: Any) -> list[str]:
    return [event.data.model for event in events if isinstance(event.data, ModelCalled)]


def test_a_turn_goes_from_one_vendor_to_another_and_back_with_calls_between() -> None:
    async def main() -> None:
        answers = [
            claude(thinks("Let me add."), calls("toolu_1", a=1, b=2), stop="tool_use"),
            refused(529, "overloaded_error"),
            gpt(reasoning("hm", sealed="sealed-by-openai"), function("add", '{"a": 3, "b": 4}', id="call_9")),
            refused(401, "authentication_error"),
            claude(says("Seven, and three."), stop="end_turn"),
        ]
        async with (
            serve(*answers) as served,
            Runtime(
                MemoryLog(),
                tools=[add],
                credentials=lambda provider, spec: Credentials(api_key=f"key-of-{provider}", base_url=served.url),
                retries=Retries(RetryPolicy(attempts=2, wait_initial_s=0, wait_max_s=0, jitter_s=0)),
                failover=ALWAYS,
            ) as of,
        ):
            bot = await of.image("x", model=CLAUDE, fallbacks=[GPT], instructions="Add.")
            result = await bot.send("Add them.")
            assert (result.status, result.text) == ("succeeded", "Seven, and three.")
            events = await bot.events()
            assert models(events) == [CLAUDE, CLAUDE, GPT, GPT, CLAUDE]
            assert [
                (event.data.model, event.data.reason, event.data.because)
                for event in events
                if isinstance(event.data, ModelSelected)
            ] == [
                (CLAUDE, "primary", None),
                (GPT, "fallback", "overloaded"),
                (CLAUDE, "primary", "auth"),
            ]
            assert (await of.replay(bot.session_id)).identical
        _, _, to_gpt, _, back = served.asked
        assert to_gpt.path.endswith("/responses") and back.path == "/v1/messages"

        # What only its own vendor can read goes to nobody else; every call has its result, and nothing else is lost.
        text = json.dumps(to_gpt.body)
        assert "signed-by-claude" not in text and "thinking" not in text and "and no more" not in text
        assert [(item.get("type"), item.get("call_id")) for item in to_gpt.body["input"]][1:] == [
            ("function_call", "toolu_1"),
            ("function_call_output", "toolu_1"),
        ]
        text = json.dumps(back.body)
        assert "sealed-by-openai" not in text and "signed-by-claude" in text and "and no more" not in text
        user, first, sum_of_first, second, sum_of_second = back.body["messages"]
        assert [block["type"] for block in first["content"]] == ["thinking", "tool_use"]
        assert [block["type"] for block in second["content"]] == ["tool_use"]
        assert (sum_of_first["content"][0]["tool_use_id"], sum_of_second["content"][0]["tool_use_id"]) == (
            "toolu_1",
            second["content"][0]["id"],
        )
        assert user["content"][0]["text"] == "Add them."

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_block_that_only_its_vendor_understands_goes_to_no_other() -> None:
    """Its own gets it back whole; the others get what can be read of the answer."""
    parts: list[Any] = [Text(text="I looked.")]
    for vendor in ("anthropic", "openai", "openai-chat"):
        parts.append(Thinking(thinking=f"thought of {vendor}", provider=vendor, signature=f"signed by {vendor}"))
        parts.append(
            Native(provider=vendor, block={"type": "web_search_call", "id": "ws_1", "of": f"made by {vendor}"})
        )
    parts.append(Text(text="It rains."))
    request = ModelRequest(
        model="m",
        system="",
        items=[UserItem(version=1, parts=(Text(text="?"),)), AssistantItem(version=2, parts=tuple(parts))],
    )
    where = Endpoint(base_url="https://models.example/v1", host="models.example", api_key="k")
    for vendor, sent in (
        ("anthropic", body(request)),
        ("openai", responses_body(request, where)),
        ("openai-chat", chat_body(request, where)),
    ):
        text = sent.decode()
        assert "I looked." in text and "It rains." in text
        for other in {"anthropic", "openai", "openai-chat"} - {vendor}:
            for mark in ("thought of", "signed by", "made by"):
                assert f'{mark} {other}"' not in text, (vendor, other)
        if vendor != "openai-chat":
            assert f"made by {vendor}" in text


def test_half_an_answer_of_one_vendor_is_no_part_of_the_next_ones() -> None:
    async def main() -> None:
        begun = claude(thinks("Hm."), says("Half of an answer"), stop="end_turn")
        cut = streamed(b"".join(begun.pieces[:-2]), then="cut")
        async with (
            serve(cut, gpt(message("A whole one."))) as served,
            Runtime(
                MemoryLog(),
                credentials=lambda provider, spec: Credentials(api_key="key", base_url=served.url),
                retries=Retries(RetryPolicy(attempts=1)),
                failover=ALWAYS,
            ) as of,
        ):
            bot = await of.image("x", model=CLAUDE, fallbacks=[GPT])
            assert (await bot.send("Hi")).text == "A whole one."
            assert "Half" not in repr(await bot.messages())
        assert "Half" not in json.dumps(served.asked[1].body)

    asyncio.run(asyncio.wait_for(main(), 30))


def test_recorded_traffic_of_two_vendors_makes_one_turn(replay: Any) -> None:
    """The first answer of one recording, the first of another vendor's, then the second of the first."""
    claudes, gpts = "anthropic.pydantic-ai.anthropic-tool-with-thinking", "responses.llm.responses-tool-use-streaming"
    session, other = fresh_session(), fresh_session()
    places = {
        "anthropic": [
            replay.url(claudes, session=session),
            replay.url(claudes, session=fresh_session(), faults="status=529"),
            replay.url(claudes, session=session),
        ],
        "openai": [
            replay.url(gpts, session=other) + "/v1",
            replay.url(gpts, session=fresh_session(), faults="status=401") + "/v1",
        ],
    }
    ended = {"anthropic": 0, "openai": 0}

    def credentials(provider: str, spec: Any) -> Credentials:
        """The place of a provider's next request: as many of its requests have ended as are counted."""
        at = min(ended[provider], len(places[provider]) - 1)
        return Credentials(api_key="test-key", base_url=places[provider][at])

    @tool(effect="read")
    def get_user_country() -> str:
        """Where the user is."""
        return "Mexico"

    @tool(effect="read")
    def multiply(a: int, b: int) -> int:
        """Multiply two numbers."""
        return a * b

    async def main() -> None:
        async with Runtime(
            MemoryLog(),
            tools=[get_user_country, multiply],
            credentials=credentials,
            retries=Retries(RetryPolicy(attempts=1)),
            failover=ALWAYS,
        ) as of:
            under_way: list[str] = []
            of.on("model_called", lambda event: under_way.append(event.data.model.partition(":")[0]))

            def count(event: Any) -> None:
                ended[under_way[-1]] += 1

            of.on(("model_answered", "model_failed"), count)
            bot = await of.image("x", model=CLAUDE, fallbacks=[GPT])
            result = await bot.send("What is the largest city in my country?")
            events = await bot.events()
            assert result.status == "succeeded", result.failure
            assert models(events) == [CLAUDE, CLAUDE, GPT, GPT, CLAUDE]
            assert result.text
            assert (await of.replay(bot.session_id)).identical

    asyncio.run(asyncio.wait_for(main(), 60))
