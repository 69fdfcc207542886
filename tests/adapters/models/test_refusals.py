"""What servers answer in place of an answer, as it was seen of them, and whether another model is asked for it.

`fixtures/refusals.jsonl` has a refusal a line: `of` whom, `status` and `body`, the `code` it has with us, whether it is
worth asking the same `again`, and whether the `next` model is asked. `seen`: the public thread that shows the body or
its words; empty where it is a form that the server documents, or one made for the rule. Every body comes over a
connection and through the SDK.
Shown to fail: without `_NO_MODEL` every row of a model that is told in a sentence alone; without the look at `param`
words of ours that are quoted; without `_wrapped` the rows of gateways.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from reenact import Failover, Runtime
from reenact.adapters.models.anthropic import Anthropic
from reenact.adapters.models.openai import OpenAIChat
from reenact.adapters.models.openai_failures import refusal
from reenact.events.agent import ModelSelected
from reenact.events.content import Failure
from reenact.events.model import Credentials
from tests.adapters.models.recordings import ask, plain_request
from tests.adapters.models.served import Answer, fixture, serve, whole


def error(message: Any, kind: Any = None, code: Any = None, **more: Any) -> dict[str, Any]:
    """The usual form."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code, **more}}


def refused(status: int, body: Any, *, protocol: str = "chat") -> Failure:
    """What the adapter makes of it."""

    async def run() -> Failure:
        model: Any = OpenAIChat() if protocol == "chat" else Anthropic()
        async with serve(whole(body, status=status)) as served:
            outcome = await ask(model, plain_request(served.url + ("/v1" if protocol == "chat" else "")))
            await model.aclose()
        assert outcome.failure is not None
        return outcome.failure.failure

    return asyncio.run(run())


ROWS = [json.loads(line) for line in fixture("refusals.jsonl").splitlines()]
GONE = "The model `qwen-qwq-32b` has been decommissioned and is no longer supported."
INVALID = "invalid_request_error"
A_MINUTE = "on tokens per min (TPM): Limit 30000, Requested 36278. The input or output tokens must be reduced."
MODEL_NOT_EXIST = error("Model Not Exist", INVALID, INVALID)
TOO_LONG = error("This model's maximum context length is 8192 tokens.", INVALID, "context_length_exceeded")


@pytest.mark.parametrize("row", [pytest.param(row, id=row["of"]) for row in ROWS])
def test_a_refusal_is_understood_as_it_was_meant(row: dict[str, Any]) -> None:
    found = refused(row["status"], row["body"], protocol=row.get("protocol", "chat"))
    assert (found.code, found.retryable, found.status) == (row["code"], row["again"], row["status"])
    assert Failover().advances(found.code) is row["next"]


def test_the_table_has_rows_of_every_kind() -> None:
    told = {(row["code"], row["next"]) for row in ROWS}
    assert {("model_not_found", True), ("rate_limit", True), ("billing", True), ("auth", True)} <= told
    assert {("context_exceeded", False), ("too_large", False), ("invalid_request", False)} <= told
    assert not {code for code, _ in told if {(code, True), (code, False)} <= told}


def test_a_web_page_of_a_gateway_that_waited_too_long_is_a_time_out() -> None:
    async def run(status: int) -> Failure:
        page = Answer(pieces=[b"<html><title>524: A timeout occurred</title></html>"], status=status, headers={})
        model = OpenAIChat()
        async with serve(page) as served:
            outcome = await ask(model, plain_request(served.url + "/v1"))
            await model.aclose()
        assert outcome.failure is not None
        return outcome.failure.failure

    assert [asyncio.run(run(status)).code for status in (504, 522, 524)] == ["timeout"] * 3


def test_the_sentence_is_the_one_that_says_most() -> None:
    wrapped = {"error": {"message": "Provider returned error", "metadata": {"raw": "m is busy"}, "code": 429}}
    assert refused(429, wrapped).message == "m is busy"
    xai = {"code": "Some requested entity was not found", "error": "The model grok-beta does not exist or"}
    assert refused(404, xai).message == "The model grok-beta does not exist or"


def test_errors_within_errors_are_looked_into_only_so_far() -> None:
    codes, body = [], error("m", INVALID, "model_decommissioned")
    for _ in range(5):
        codes.append(refusal(body, status=400).code)
        body = error(json.dumps(body))
    assert codes == ["model_not_found"] * 4 + ["invalid_request"]
    deep = '{"error": ' * 100_000 + '"model not found"' + "}" * 100_000
    assert refusal(error(deep), status=400).code == "invalid_request"


def test_only_the_beginning_of_a_message_is_searched() -> None:
    said = "Invalid role in: " + "x" * 2_000 + " the model m does not exist"
    assert refusal({"error": {"message": said}}, status=400).code == "invalid_request"


# -- and who is asked then --


def asked_then(status: int, body: Any) -> tuple[str, str, list[tuple[str, str | None]], int]:
    """How a turn ended, with what text, who was selected because of what, and how often the server was asked."""

    async def run() -> tuple[str, str, list[tuple[str, str | None]], int]:
        async with serve(whole(body, status=status)) as served:
            key = Credentials(api_key="sk-test-abcdefgh", base_url=served.url + "/v1")
            async with Runtime("memory://", credentials=lambda provider, _: key) as runtime:
                bot = await runtime.image("bot", model="openai-chat:m", fallbacks=["scripted:echo"])
                done = await bot.send("hello")
                chosen = [event.data for event in await bot.events() if isinstance(event.data, ModelSelected)]
                return (
                    done.status,
                    done.text,
                    [(each.model, each.because) for each in chosen if each.because],
                    len(served.asked),
                )

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("status", "body", "because"),
    [
        (400, MODEL_NOT_EXIST, "model_not_found"),
        (400, error(GONE, INVALID, "model_decommissioned"), "model_not_found"),
        (429, error(f"Request too large for gpt-4o {A_MINUTE}", "tokens", "rate_limit_exceeded"), "rate_limit"),
        (413, error(f"Request too large for model `m` {A_MINUTE}", "tokens", "rate_limit_exceeded"), "rate_limit"),
    ],
    ids=["DeepSeek", "Groq", "OpenAI, too much a minute", "Groq, too much a minute"],
)
def test_another_model_answers_at_once(status: int, body: Any, because: str) -> None:
    assert asked_then(status, body) == ("succeeded", "hello", [("scripted:echo", because)], 1)


def test_what_is_too_long_is_asked_of_nobody_else() -> None:
    assert asked_then(400, TOO_LONG) == ("failed", "", [], 1)
