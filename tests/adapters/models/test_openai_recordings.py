"""Recorded traffic of OpenAI and of servers like it, through the real SDK: told as it was said, or a failure.

Shown to fail: reading the end of the stream as the end of the answer turns every test of a cut red; reading chunks as
they are cut on the wire turns `test_the_same_byte_by_byte` red; taking the call's arguments by position and not by
index turns the recordings with parallel calls red.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec import structs

from reenact.adapters.models.openai import OpenAIChat, OpenAIResponses
from reenact.events.content import Usage
from tests.adapters.models import recordings
from tests.adapters.models.recordings import Outcome, ask, expected, fresh_session, plain_request, told, usage_of

ADAPTERS: dict[str, Callable[[], Any]] = {"openai-chat": OpenAIChat, "openai-responses": OpenAIResponses}
RECORDED = [(provider, name) for provider in ADAPTERS for name in recordings.recordings(provider)]
EXPECTED = expected()

pytestmark = pytest.mark.skipif(bool(recordings.missing()), reason=recordings.missing() or "")

STOPS = {
    "stop": "end_turn",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "length": "max_tokens",
    "content_filter": "refusal",
    "completed": "end_turn",
    "incomplete": "max_tokens",
    "queued": "pause_turn",
    "in_progress": "pause_turn",
    None: "end_turn",  # the answer to a compaction names none
}
CODES = {
    "invalid_api_key": "auth",
    "model_not_found": "model_not_found",
    "DeploymentNotFound": "model_not_found",
    "insufficient_quota": "billing",
    "context_length_exceeded": "context_exceeded",
    "too_many_prompt_tokens": "context_exceeded",
    "rate_limit_exceeded": "rate_limit",
    "RateLimitReached": "rate_limit",
    "tool_use_failed": "bad_response",
    "server_error": "server_error",
}
STATUSES = {400: "invalid_request", 401: "auth", 403: "permission", 404: "model_not_found", 429: "rate_limit"}


def complaints(says: dict[str, Any], exchange: dict[str, Any], outcome: Outcome) -> list[str]:
    """Where an outcome differs from what the oracle says of the exchange."""
    out = []
    answer, failed = told(outcome), outcome.failure.failure if outcome.failure else None
    body = exchange["response_body"]
    calls = wanted_calls(says, body)
    if "error" in says:
        if failed is None:
            return ["there was no failure"]
        if wanted_message(says, body) != failed.message[:900]:
            out.append(f"the failure says {failed.message!r}")
        if failed.code not in wanted_codes(says):
            out.append(f"the failure is {failed.code}")
        if failed.status != (None if says["status"] == 200 else says["status"]):
            out.append(f"the failure has status {failed.status}")
    elif "text" not in says:
        # A body that is no answer at all.
        return [] if failed is not None and failed.code == "bad_response" else ["it was taken for an answer"]
    elif failed is not None:
        return [f"it failed: {failed}"]
    elif answer["stop"] != wanted_stop(says, body, bool(calls)):
        out.append(f"it stopped as {answer['stop']}")
    if answer["text"] != says.get("text", answer["text"]):
        out.append(f"it said {answer['text']!r}")
    if "tool_calls" in says and answer["tool_calls"] != calls:
        out.append(f"it called {answer['tool_calls']}")
    if counted(outcome) != wanted_usage(says, body):
        out.append(f"it counted {usage_of(outcome)}")
    return out


def counted(outcome: Outcome) -> Usage | None:
    """The usage, without the other units that the oracle does not list."""
    usage = usage_of(outcome)
    return usage and structs.replace(usage, extra=None)


def wanted_stop(says: dict[str, Any], body: str, calls: bool) -> str:
    if re.search(r'"refusal": ?"[^"]', body) or re.search(r'"reason": ?"content_filter"', body):
        return "refusal"
    stop = STOPS[says.get("stop")]
    # A forced call ends in plain `stop`; the Responses protocol always does.
    return "tool_use" if calls and stop == "end_turn" else stop


def wanted_calls(says: dict[str, Any], body: str) -> list[dict[str, Any]]:
    calls = [{"name": call["name"], "arguments": arguments(call["arguments"])} for call in says.get("tool_calls") or ()]
    if says.get("stop") == "function_call":
        # The oracle knows calls under their present name only; before they had it, there was one at most.
        message = json.loads(body)["choices"][0]["message"] if not says["stream"] else {}
        old = message.get("function_call")
        calls += [{"name": old["name"], "arguments": arguments(old["arguments"])}] if old else []
    return calls


def arguments(text: str) -> Any:
    return text if text == "INVALID-JSON" else json.loads(text or "{}")


def wanted_message(says: dict[str, Any], body: str) -> str:
    """What the oracle says, or the words of the provider itself where a gateway passes them on beside its own."""
    passed_on = re.search(r'"error": ?\{.*"raw": ?"((?:[^"\\]|\\.)*)"', body)
    said = json.loads(f'"{passed_on[1]}"') if passed_on else says["error"]["message"]
    return " ".join(said.split())[:900]


def wanted_codes(says: dict[str, Any]) -> set[str]:
    error, status = says["error"], says["status"]
    if re.search(r"context length|too long|context window|too many tokens", error["message"]):
        return {"context_exceeded"}
    for word in (error.get("code"), error.get("type")):
        if word in CODES:
            return {CODES[word]}
    if status == 200:
        status = error["code"] if isinstance(error.get("code"), int) else 0
    return {STATUSES.get(status, "server_error" if status >= 500 else "stream_error")}


def wanted_usage(says: dict[str, Any], body: str) -> Usage | None:
    usage = says.get("usage")
    if usage is None:
        return None
    read = usage.get("prompt_tokens", usage.get("input_tokens")) or 0
    wrote = usage.get("completion_tokens", usage.get("output_tokens")) or 0
    totals = re.findall(r'"total_tokens": ?(\d+)', body)
    written = re.findall(r'"cache_write_tokens": ?(\d+)', body)
    if totals and int(totals[-1]) > read + wrote:
        # Who counts reasoning apart from what was written says so in the total only.
        wrote = int(totals[-1]) - read
    return Usage(
        input_tokens=read,
        output_tokens=wrote,
        cache_read_tokens=usage.get("cached_tokens") or 0,
        cache_write_tokens=int(written[-1]) if written else 0,
        reasoning_tokens=usage.get("reasoning_tokens") or 0,
    )


async def play(replay: Any, model: Any, name: str, *, faults: str | None = None) -> list[Any]:
    """Every exchange of a recording in order: `(expectation, exchange, outcome)`."""
    session, out = fresh_session(), []
    for says, exchange in zip(EXPECTED[name], replay.recordings[name]["exchanges"], strict=True):
        url = replay.url(name, session=session, faults=faults)
        out.append((says, exchange, await ask(model, plain_request(url))))
    return out


def play_all(replay: Any, faults: Callable[[dict[str, Any]], str | None], *, timeout_s: float = 60.0) -> list[Any]:
    """The first exchange of each recording that streams, each with its own fault: `(name, exchange, outcome)`."""

    async def one(model: Any, name: str, exchange: dict[str, Any], fault: str) -> Any:
        url = replay.url(name, session=fresh_session(), faults=fault)
        return name, exchange, await ask(model, plain_request(url, timeout_s=timeout_s))

    async def every() -> list[Any]:
        out = []
        for provider, adapter in ADAPTERS.items():
            model = adapter()
            asking = [
                one(model, name, exchange, fault)
                for of, name in RECORDED
                if of == provider and EXPECTED[name][0]["stream"]
                if (fault := faults(exchange := replay.recordings[name]["exchanges"][0])) is not None
            ]
            out += await asyncio.gather(*asking)
            await model.aclose()
        return out

    played = asyncio.run(every())
    assert len(played) > 15, "hardly anything was played"
    return played


@pytest.fixture(scope="module")
def models() -> Iterator[tuple[asyncio.Runner, dict[str, Any]]]:
    """One loop and one adapter of each kind for the many calls that need no others."""
    adapters = {provider: adapter() for provider, adapter in ADAPTERS.items()}

    async def close() -> None:
        for adapter in adapters.values():
            await adapter.aclose()

    with asyncio.Runner() as runner:
        yield runner, adapters
        runner.run(close())


@pytest.mark.parametrize(("provider", "name"), RECORDED, ids=[name for _, name in RECORDED])
def test_a_recording_gives_what_was_recorded(replay: Any, models: Any, provider: str, name: str) -> None:
    runner, adapters = models
    for says, exchange, outcome in runner.run(play(replay, adapters[provider], name)):
        assert complaints(says, exchange, outcome) == []


@pytest.mark.parametrize("fault", ["chunk=1", "crlf=1,comments=1,chunk=67", "gzip=1"])
def test_the_same_however_the_bytes_come(replay: Any, models: Any, fault: str) -> None:
    runner, adapters = models

    async def every() -> dict[str, list[str]]:
        out = {}
        for provider, name in RECORDED:
            size = sum(len(each["response_body"] or "") for each in replay.recordings[name]["exchanges"])
            # Byte by byte only the smaller ones, for speed; the others in somewhat larger pieces.
            pieces = "chunk=131" if fault == "chunk=1" and size > 2_500 else fault
            for says, exchange, outcome in await play(replay, adapters[provider], name, faults=pieces):
                found = complaints(says, exchange, outcome)
                if found:
                    out[name] = found
        return out

    assert runner.run(every()) == {}


def data_events(exchange: dict[str, Any]) -> list[str]:
    """The events of a stream as the replay server counts them."""
    return [each for each in re.split(r"\r?\n\r?\n", exchange["response_body"]) if each.strip()]


def spoken(exchange: dict[str, Any]) -> str:
    """All text deltas of a stream, joined."""
    out = []
    for line in "\n".join(data_events(exchange)).splitlines():
        data = json.loads(line[5:]) if line.startswith("data:") and "[DONE]" not in line else {}
        if data.get("type") == "response.output_text.delta":
            out.append(data["delta"])
        first = [choice for choice in data.get("choices") or () if not choice.get("index")]
        out += [(choice.get("delta") or {}).get("content") or "" for choice in first]
    return "".join(out)


def before_the_end(exchange: dict[str, Any]) -> int:
    """The number of events before the one in which the model says that it has finished."""
    mark = re.compile(r'"finish_reason": ?"|"response\.(?:completed|failed|incomplete)"|^event: error|"error": ?\{')
    return next(at for at, each in enumerate(data_events(exchange)) if mark.search(each))


@pytest.mark.parametrize("how", ["cut_events", "cut_clean_events"])
@pytest.mark.parametrize("where", ["first", "half", "last"])
def test_a_stream_cut_before_its_end_is_a_partial_answer(replay: Any, how: str, where: str) -> None:
    def fault(exchange: dict[str, Any]) -> str | None:
        end = before_the_end(exchange)
        at = {"first": 1, "half": (end + 1) // 2, "last": end}[where]
        return f"{how}={at}" if at else None

    for name, exchange, outcome in play_all(replay, fault):
        assert outcome.answer is None, name
        assert outcome.failure.failure.code == "stream_cut", (name, outcome.failure)
        assert outcome.failure.failure.retryable, name
        assert spoken(exchange).startswith(told(outcome)["text"]), name


@pytest.mark.parametrize("how", ["cut_clean", "cut", "reset"])
def test_a_cut_in_the_middle_of_an_event_is_one_too(replay: Any, how: str) -> None:
    def fault(exchange: dict[str, Any]) -> str | None:
        events = data_events(exchange)
        before = sum(len(each.encode()) + 2 for each in events[: before_the_end(exchange)])
        return f"{how}={before + 20}"

    for name, _, outcome in play_all(replay, fault):
        assert outcome.answer is None, name
        assert outcome.failure.failure.code in ("stream_cut", "connection"), (name, outcome.failure)


def test_without_the_end_mark_of_the_protocol(replay: Any) -> None:
    for name, exchange, outcome in play_all(replay, lambda _: "nodone=1"):
        says = EXPECTED[name][0]
        if "error" in says:
            assert outcome.failure is not None, name
        elif "[DONE]" in data_events(exchange)[-1]:
            # Only that was left out: the model had said that it finished.
            assert complaints(says, exchange, outcome) == [], name
        else:
            assert outcome.failure is not None, name
            assert outcome.failure.failure.code == "stream_cut", name


@pytest.mark.parametrize(
    ("word", "code", "again"),
    [
        ("", "server_error", True),
        (":rate_limit_exceeded", "rate_limit", True),
        (":insufficient_quota", "billing", False),
    ],
)
def test_an_error_in_the_middle_is_a_failure_with_what_came_before(
    replay: Any, word: str, code: str, again: bool
) -> None:
    def fault(exchange: dict[str, Any]) -> str | None:
        return f"error_event={before_the_end(exchange) // 2}{word}"

    for name, _, outcome in play_all(replay, fault):
        assert outcome.failure is not None, name
        assert (outcome.failure.failure.code, outcome.failure.failure.retryable) == (code, again), name


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "auth"),
        (403, "permission"),
        (404, "model_not_found"),
        (408, "timeout"),
        (413, "too_large"),
        (429, "rate_limit"),
        (500, "server_error"),
        (503, "overloaded"),
        (504, "timeout"),
        (529, "overloaded"),
    ],
)
def test_an_error_status_is_told_once_and_the_next_call_works(replay: Any, status: int, code: str) -> None:
    async def twice(provider: str, name: str) -> None:
        model, session = ADAPTERS[provider](), fresh_session()
        request = plain_request(replay.url(name, session=session, faults=f"fail_first=1:{status}:2"))
        outcome = await ask(model, request)
        assert outcome.failure is not None
        failed = outcome.failure.failure
        assert (failed.code, failed.status, failed.retry_after_s) == (code, status, 2.0)
        says, exchange = EXPECTED[name][0], replay.recordings[name]["exchanges"][0]
        assert complaints(says, exchange, await ask(model, request)) == []
        # The SDK did not try again by itself.
        assert sum(1 for entry in replay.log if entry["session"] == session) == 2
        await model.aclose()

    for provider in ADAPTERS:
        names = [name for of, name in RECORDED if of == provider and EXPECTED[name][0]["stream"]]
        asyncio.run(twice(provider, names[0]))


def test_silence_in_the_middle_is_a_time_out(replay: Any) -> None:
    for name, _, outcome in play_all(replay, lambda _: "stall=200:3", timeout_s=0.5):
        assert outcome.failure is not None, name
        assert outcome.failure.failure.code == "timeout", (name, outcome.failure)


def test_an_event_twice_or_lost_changes_no_answer_of_the_responses_protocol(replay: Any) -> None:
    # Its final list repeats everything; a chat stream has no second account of itself.
    for fault in ("dup=5", "drop=5"):
        for name, _, outcome in play_all(replay, lambda _, fault=fault: fault):
            says = EXPECTED[name][0]
            if outcome.answer is not None and not name.startswith(("chat.", "issue.openai-chat")):
                assert told(outcome)["text"] == says["text"], (fault, name)
                assert told(outcome)["tool_calls"] == wanted_calls(says, ""), (fault, name)
