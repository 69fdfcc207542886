"""The OpenAI adapters against a server on this machine, through the real SDK: what is asked, and how it breaks.

Shown to fail: leaving the SDK its own retries turns `test_a_refusal_is_asked_once` red; a time limit taken for a broken
connection `test_an_answer_that_never_ends_is_stopped`; a pool of connections per call `test_calls_share_a_connection`.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import httpx2
import openai
import pytest

from reenact.adapters.models.openai import OpenAIChat, OpenAIResponses, google
from reenact.adapters.models.openai_body import rendered
from reenact.adapters.models.openai_failures import judge, refusal
from reenact.events.content import AssistantItem, Failure, Item, Text, Thinking, Usage, UserItem, text_of
from reenact.events.model import Credentials, ModelAnswer, ModelFailure, ModelRequest
from reenact.events.stream import TextDelta
from tests.adapters.models.recordings import Outcome, ask, plain_request
from tests.adapters.models.served import SSE, Answer, Served, serve, streamed, whole

ADAPTERS = {"chat": OpenAIChat, "responses": OpenAIResponses}
PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses"}

both = pytest.mark.parametrize("protocol", list(ADAPTERS))


def sse(*data: Any) -> bytes:
    lines = (each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for each in data)
    return b"".join(f"data: {line}\n\n".encode() for line in lines)


def hello(protocol: str, text: str = "Grüß Gott 👋 日本") -> bytes:
    """A stream that says this text."""
    if protocol == "chat":
        chunks = [{"id": "c1", "model": "m", "choices": [{"index": 0, "delta": {"content": each}}]} for each in text]
        usage = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}}
        return sse(*chunks, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, usage, "[DONE]")
    place = {"output_index": 0, "content_index": 0, "item_id": "msg_1"}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
    response = {"id": "r1", "model": "m", "status": "completed", "output": [item]}
    return sse(
        {"type": "response.created", "response": response | {"status": "in_progress", "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": item | {"content": []}},
        *({"type": "response.output_text.delta", "delta": each, **place} for each in text),
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": response | {"usage": {"input_tokens": 7, "output_tokens": 3}}},
    )


def hello_whole(protocol: str) -> dict[str, Any]:
    if protocol == "chat":
        return {"id": "c1", "model": "m", "choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}
    item = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "Hello"}],
    }
    return {"id": "r1", "model": "m", "status": "completed", "error": None, "output": [item]}


def played(
    protocol: str, *answers: Answer, idle_s: float = 30.0, asked: int | None = None, **request: Any
) -> tuple[list[Outcome], Served]:
    """Ask once an answer, in order, with one adapter; the outcomes, and what the server saw."""

    async def run() -> tuple[list[Outcome], Served]:
        model = ADAPTERS[protocol](idle_s=idle_s)
        async with serve(*answers) as served:
            one = plain_request(served.url + "/v1", **request)
            outcomes = [await ask(model, one) for _ in range(len(answers) if asked is None else asked)]
            await model.aclose()
        return outcomes, served

    return asyncio.run(run())


def answered(protocol: str, *answers: Answer, **request: Any) -> ModelAnswer:
    (outcome, *_), _ = played(protocol, *answers, **request)
    assert outcome.answer is not None, outcome.failure
    return outcome.answer


def failed(protocol: str, *answers: Answer, **request: Any) -> ModelFailure:
    (outcome, *_), _ = played(protocol, *answers, **request)
    assert outcome.failure is not None, outcome.answer
    return outcome.failure


# -- answers --


@both
@pytest.mark.parametrize("size", [None, 1, 3, 64, 100_000])
def test_a_text_arrives_the_same_in_pieces_of_any_size(protocol: str, size: int | None) -> None:
    # Pieces of one byte cut every character of more than one, and every line end.
    answer = answered(protocol, streamed(hello(protocol), size=size, headers={**SSE, "x-request-id": "req_1"}))
    assert text_of(answer.parts) == "Grüß Gott 👋 日本"
    assert (answer.stop_reason, answer.request_id) == ("end_turn", "req_1")
    assert answer.usage == Usage(input_tokens=7, output_tokens=3)


@both
def test_a_server_that_does_not_stream_answers_as_well(protocol: str) -> None:
    assert text_of(answered(protocol, whole(hello_whole(protocol))).parts) == "Hello"


@both
@pytest.mark.parametrize("kind", ["text/event-stream", "text/plain", "application/json", ""])
def test_what_the_body_is_shows_in_the_body(protocol: str, kind: str) -> None:
    # Some call a stream JSON, some JSON a stream.
    headers = {"content-type": kind} if kind else {}
    streaming = streamed(hello(protocol, "Hello"), headers=headers)
    plain = Answer(pieces=[b"  \n", json.dumps(hello_whole(protocol)).encode()], headers=headers)
    assert text_of(answered(protocol, streaming).parts) == text_of(answered(protocol, plain).parts) == "Hello"


@both
def test_the_last_blank_line_may_be_missing(protocol: str) -> None:
    assert text_of(answered(protocol, Answer(pieces=[hello(protocol, "Hello").rstrip()])).parts) == "Hello"


@both
def test_nobody_waits_for_the_connection_to_close_once_all_is_said(protocol: str) -> None:
    silent = Answer(pieces=[hello(protocol, "Hello")], then="silence")

    async def first_answer() -> str:
        model = ADAPTERS[protocol]()
        async with serve(silent) as served:
            async for said in model.stream(plain_request(served.url + "/v1")):
                if isinstance(said, ModelAnswer):
                    return text_of(said.parts)
        return ""

    assert asyncio.run(asyncio.wait_for(first_answer(), 5)) == "Hello"


@both
def test_calls_share_a_connection(protocol: str) -> None:
    outcomes, served = played(protocol, *[streamed(hello(protocol, "Hello"))] * 3)
    assert [text_of(outcome.answer.parts) for outcome in outcomes if outcome.answer] == ["Hello"] * 3
    assert served.connections == 1


@both
def test_an_adapter_outlives_its_event_loop(protocol: str) -> None:
    model = ADAPTERS[protocol]()

    async def once() -> str:
        async with serve(streamed(hello(protocol, "Hello"))) as served:
            outcome = await ask(model, plain_request(served.url + "/v1"))
        assert outcome.answer is not None
        return text_of(outcome.answer.parts)

    assert [asyncio.run(once()), asyncio.run(once())] == ["Hello", "Hello"]


@both
def test_what_is_asked(protocol: str) -> None:
    _, served = played(protocol, streamed(hello(protocol)), api_key="sk-test-key-1234", text="Hi")
    (asked,) = served.asked
    assert asked.path == PATHS[protocol]
    assert asked.headers["authorization"] == "Bearer sk-test-key-1234"
    assert asked.headers["content-type"] == "application/json"
    assert asked.body["stream"] is True
    assert asked.body["messages" if protocol == "chat" else "input"] == [{"role": "user", "content": "Hi"}]


@both
def test_a_query_in_the_address_is_that_of_every_request(protocol: str) -> None:
    async def run() -> list[str]:
        model = ADAPTERS[protocol]()
        async with serve(*[streamed(hello(protocol))] * 3) as served:
            for behind in ("/v1?api_key=K%2F1&v=2", "/v1/?api_key=another", "/v1"):
                outcome = await ask(model, plain_request(served.url + behind))
                assert outcome.answer is not None, outcome.failure
            await model.aclose()
        return [asked.path for asked in served.asked]

    path = PATHS[protocol]
    assert asyncio.run(run()) == [f"{path}?api_key=K%2F1&v=2", f"{path}?api_key=another", path]


@both
def test_whose_account_it_is_concerns_openai_only(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The SDK reads these by itself and would send them anywhere.
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    _, served = played(protocol, streamed(hello(protocol)))
    assert not {"openai-organization", "openai-project"} & set(served.asked[0].headers)


@both
def test_a_context_is_rendered_once(protocol: str) -> None:
    """A second call with more items sends the old ones as they were and the new ones after them."""

    async def run() -> Served:
        model, cache = ADAPTERS[protocol](), {}
        items: list[Any] = [UserItem(version=1, parts=(Text(text="one"),))]
        async with serve(*[streamed(hello(protocol, "Hello"))] * 2) as served:
            for text in ("two", "three"):
                request = ModelRequest(
                    model="m",
                    system="Be brief.",
                    items=items,
                    credentials=Credentials(base_url=served.url + "/v1"),
                    cache=cache,
                )
                outcome = await ask(model, request)
                assert outcome.answer is not None
                items.append(AssistantItem(version=len(items) + 1, parts=outcome.answer.parts))
                items.append(UserItem(version=len(items) + 1, parts=(Text(text=text),)))
            await model.aclose()
        return served

    first, second = (asked.body["messages" if protocol == "chat" else "input"] for asked in asyncio.run(run()).asked)
    assert second == [*first, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "two"}]


# -- keys and places --


@pytest.mark.parametrize(
    ("model", "name"),
    [(OpenAIChat(), "OPENAI_API_KEY"), (OpenAIResponses(), "OPENAI_API_KEY"), (google(), "GOOGLE_API_KEY")],
    ids=["chat", "responses", "google"],
)
@pytest.mark.parametrize("key", [None, "", " "])
def test_without_a_key_nothing_is_asked(model: Any, name: str, key: str | None) -> None:
    request = ModelRequest(model="m", system="", items=[], credentials=Credentials(api_key=key))
    failure = asyncio.run(ask(model, request)).failure
    assert failure is not None
    assert (failure.failure.code, failure.failure.retryable) == ("auth", False)
    assert name in failure.failure.message


@both
@pytest.mark.parametrize("key", ["sk-\nx", "schlüssel"])
def test_a_key_with_characters_that_no_key_has(protocol: str, key: str) -> None:
    (outcome,), served = played(protocol, streamed(hello(protocol)), api_key=key)
    assert outcome.failure is not None
    assert (outcome.failure.failure.code, served.asked) == ("auth", [])


@both
def test_a_server_of_ones_own_needs_no_key(protocol: str) -> None:
    (outcome,), served = played(protocol, streamed(hello(protocol, "Hello")), api_key=None)
    assert outcome.answer is not None
    assert served.asked[0].headers["authorization"] == "Bearer none"


# -- refusals --


@both
def test_a_refusal_is_asked_once(protocol: str) -> None:
    busy = whole({"error": {"message": "later", "type": "server_error"}}, status=503, headers={"retry-after": "0"})
    (outcome,), served = played(protocol, busy, streamed(hello(protocol)), asked=1)
    assert outcome.failure is not None
    assert outcome.failure.failure == Failure(
        code="overloaded", message="later", retryable=True, retry_after_s=0.0, status=503
    )
    assert len(served.asked) == 1
    assert served.asked[0].headers["x-stainless-retry-count"] == "0"


@pytest.mark.parametrize(
    ("status", "error", "code", "again"),
    [
        (400, {"code": "context_length_exceeded", "message": "m"}, "context_exceeded", False),
        (400, {"message": "This model's maximum context length is 8192 tokens."}, "context_exceeded", False),
        (400, {"message": "The input token count (5) exceeds the maximum number of tokens"}, "context_exceeded", False),
        (400, {"code": 400, "type": "too_many_prompt_tokens", "message": "too long"}, "context_exceeded", False),
        (400, {"code": "invalid_value", "message": "m"}, "invalid_request", False),
        (400, {"code": "content_filter", "message": "m"}, "content_filter", False),
        (400, {"code": "tool_use_failed", "message": "m", "type": "invalid_request_error"}, "bad_response", True),
        (400, {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}, "auth", False),
        (400, {"code": "model_not_found", "message": "m"}, "model_not_found", False),
        (401, {"type": "api_error", "message": "Unauthorized"}, "auth", False),
        (402, {"message": "Insufficient Balance"}, "billing", False),
        (403, {"message": "m"}, "permission", False),
        (404, {"code": "DeploymentNotFound", "message": "m"}, "model_not_found", False),
        (413, {"message": "m"}, "too_large", False),
        (429, {"code": "insufficient_quota", "type": "insufficient_quota", "message": "m"}, "billing", False),
        (429, {"code": "rate_limit_exceeded", "type": "tokens", "message": "m"}, "rate_limit", True),
        (429, {"type": "tokens", "message": "Request too large for gpt-4o"}, "rate_limit", False),
        (429, {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "m"}, "rate_limit", True),
        (500, {"type": "server_error", "message": "m"}, "server_error", True),
        (529, {"type": "overloaded_error", "message": "m"}, "overloaded", True),
    ],
)
def test_what_an_error_body_means(status: int, error: dict[str, Any], code: str, again: bool) -> None:
    found = refusal({"error": error}, status=status, headers={})
    assert (found.code, found.retryable, found.status) == (code, again, status)
    # Google wraps it in a list, and the SDK takes the wrapping off.
    assert refusal([{"error": error}], status=status) == refusal(error, status=status) == found


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"message": "m"}, "stream_error"),
        ({"code": 429, "message": "m"}, "rate_limit"),
        ({"code": 502, "message": "m"}, "server_error"),
        ({"code": "server_error", "message": "m"}, "server_error"),
        ({"type": "invalid_request_error", "message": "m"}, "invalid_request"),
        ("m", "stream_error"),
        (None, "stream_error"),
    ],
)
def test_what_an_error_in_the_middle_means(error: Any, code: str) -> None:
    assert refusal({"error": error}).code == code


@both
@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [({"retry-after": "2.5"}, 2.5), ({"retry-after-ms": "1500"}, 1.5), ({"retry-after": "soon"}, None), ({}, None)],
)
def test_how_long_we_are_asked_to_wait(protocol: str, headers: dict[str, str], wait_s: float | None) -> None:
    body = {"error": {"message": "m", "code": "rate_limit_exceeded"}}
    assert failed(protocol, whole(body, status=429, headers=headers)).failure.retry_after_s == wait_s


@both
def test_the_key_is_in_no_message(protocol: str) -> None:
    body = {"error": {"message": "Incorrect API key provided: sk-secret-1234", "code": "invalid_api_key"}}
    failure = failed(protocol, whole(body, status=401, headers={"x-request-id": "req_9"}), api_key="sk-secret-1234")
    assert failure.failure.message == "Incorrect API key provided: ***"
    assert failure.request_id == "req_9"


@both
@pytest.mark.parametrize(("status", "code"), [(200, "bad_response"), (404, "model_not_found"), (502, "server_error")])
def test_a_web_page_is_no_answer(protocol: str, status: int, code: str) -> None:
    page = Answer(
        pieces=[b"<!doctype html><html><title>Sign in</title></html>"],
        status=status,
        headers={"content-type": "text/html"},
    )
    failure = failed(protocol, page).failure
    assert failure.code == code
    assert "Sign in" in failure.message


@both
@pytest.mark.parametrize(
    ("pieces", "code"),
    [
        ([b'{"choices": ['], "stream_cut"),
        ([b'{"choices": ]}'], "bad_response"),
        ([b"data: {nonsense\n\n"], "bad_response"),
        ([b'data: {"a": "\xff\xfe"}\n\n'], "bad_response"),
        ([b"data: " + b"[" * 100_000 + b"\n\n"], "bad_response"),
        ([b"Not Found"], "bad_response"),
        ([b"\n ", b"\n"], "stream_cut"),
        ([], "stream_cut"),
    ],
    ids=["half JSON", "bad JSON", "bad event", "no UTF-8", "too deep", "plain text", "white space", "nothing"],
)
def test_nonsense_is_no_answer(protocol: str, pieces: list[bytes], code: str) -> None:
    assert failed(protocol, Answer(pieces=pieces)).failure.code == code


def test_a_server_that_cannot_count_is_asked_without_it_from_then_on() -> None:
    refused = whole({"detail": [{"loc": ["body", "stream_options"], "msg": "extra fields"}]}, status=422)
    outcomes, served = played("chat", refused, *[streamed(hello("chat", "Hello"))] * 2)
    assert outcomes[0].failure is not None
    assert (outcomes[0].failure.failure.code, outcomes[0].failure.failure.retryable) == ("invalid_request", True)
    assert [outcome.answer is not None for outcome in outcomes[1:]] == [True, True]
    assert ["stream_options" in asked.body for asked in served.asked] == [True, False, False]


def test_reasoning_that_the_provider_cannot_open_is_left_out_from_then_on() -> None:
    """With another organisation's key the conversation goes on, without what was thought so far."""

    async def run() -> tuple[list[Outcome], Served]:
        model, cache = OpenAIResponses(), {}
        sealed = {"host": "127.0.0.1", "id": "rs_1", "encrypted_content": "sealed"}
        said = (Thinking(thinking="", provider="openai", extra=sealed), Text(text="4"))
        items = [AssistantItem(version=1, parts=said), UserItem(version=2, parts=(Text(text="And?"),))]
        refused = whole({"error": {"code": "invalid_encrypted_content", "message": "not yours"}}, status=400)
        async with serve(refused, streamed(hello("responses", "Hello")), refused) as served:
            request = ModelRequest(
                model="gpt-5", system="", items=items, credentials=Credentials(base_url=served.url + "/v1"), cache=cache
            )
            outcomes = [await ask(model, request) for _ in range(3)]
            await model.aclose()
        return outcomes, served

    outcomes, served = asyncio.run(run())
    assert [[each.get("type") for each in asked.body["input"]] for asked in served.asked] == [
        ["reasoning", None, None],
        [None, None],
        [None, None],
    ]
    assert outcomes[0].failure is not None
    assert outcomes[0].failure.failure.retryable
    assert outcomes[1].answer is not None
    assert outcomes[2].failure is not None
    # There is nothing more to leave out, so asking again would not help.
    assert not outcomes[2].failure.failure.retryable


# -- broken connections --


@both
@pytest.mark.parametrize("events", [0, 1, 5])
def test_a_connection_that_breaks_gives_a_partial_answer(protocol: str, events: int) -> None:
    pieces = [event + b"\n\n" for event in hello(protocol, "Hello").split(b"\n\n")][:events]
    failure = failed(protocol, Answer(pieces=pieces, then="cut"))
    assert (failure.failure.code, failure.failure.retryable) == ("stream_cut", True)
    assert "Hello".startswith(text_of(failure.partial))
    # The first event of the responses protocol says nothing yet.
    assert bool(failure.partial) is (events > ("chat", "responses").index(protocol))


@both
def test_silence_is_a_time_out_with_what_came_before(protocol: str) -> None:
    pieces = [event + b"\n\n" for event in hello(protocol, "Hello").split(b"\n\n")][:4]
    failure = failed(protocol, Answer(pieces=pieces, then="silence"), idle_s=0.1)
    assert failure.failure.code == "timeout"
    assert text_of(failure.partial)


@both
def test_an_answer_that_never_ends_is_stopped(protocol: str) -> None:
    # Something comes again and again, so that only the limit for all of it helps.
    endless = Answer(pieces=[b": still here\n\n"] * 3_000_000)
    assert failed(protocol, endless, timeout_s=0.3).failure.code == "timeout"


@both
def test_nobody_at_home(protocol: str) -> None:
    async def run() -> Outcome:
        async with serve() as served:
            url = served.url
        return await ask(ADAPTERS[protocol](), plain_request(url))

    outcome = asyncio.run(run())
    assert outcome.failure is not None
    assert (outcome.failure.failure.code, outcome.failure.failure.retryable) == ("connection", True)


@both
def test_a_place_that_is_none(protocol: str) -> None:
    outcome = asyncio.run(ask(ADAPTERS[protocol](), plain_request("ftp://127.0.0.1:1/v1")))
    assert outcome.failure is not None
    assert outcome.failure.failure.code in ("invalid_request", "connection")


@both
def test_a_cancelled_call_hangs_up(protocol: str) -> None:
    pieces = [event + b"\n\n" for event in hello(protocol, "Hello").split(b"\n\n")][:4]

    async def run() -> None:
        async with serve(Answer(pieces=pieces, then="silence")) as served:
            heard = asyncio.Event()

            async def listen() -> None:
                async for said in ADAPTERS[protocol]().stream(plain_request(served.url + "/v1")):
                    if isinstance(said, TextDelta):
                        heard.set()

            task = asyncio.create_task(listen())
            await heard.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.wait_for(served.left.wait(), 5)

    asyncio.run(run())


@both
def test_a_call_that_nobody_listens_to_any_more_hangs_up(protocol: str) -> None:
    pieces = [event + b"\n\n" for event in hello(protocol, "Hello").split(b"\n\n")][:4]

    async def run() -> None:
        async with serve(Answer(pieces=pieces, then="silence")) as served:
            listening = ADAPTERS[protocol]().stream(plain_request(served.url + "/v1"))
            heard = 0
            while heard < {"chat": 4, "responses": 2}[protocol]:
                heard += isinstance(await anext(listening), TextDelta)
            await listening.aclose()
            await asyncio.wait_for(served.left.wait(), 5)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("error", "started", "code"),
    [
        (httpx2.ReadTimeout("t"), True, "timeout"),
        (httpx2.ReadError("r"), True, "stream_cut"),
        (httpx2.RemoteProtocolError("p"), True, "stream_cut"),
        (httpx2.ConnectError("c"), False, "connection"),
        (openai.APITimeoutError(request=httpx2.Request("POST", "http://x")), False, "timeout"),
        (openai.APIConnectionError(request=httpx2.Request("POST", "http://x")), True, "stream_cut"),
        (
            openai.APIError("m", httpx2.Request("POST", "http://x"), body={"code": "rate_limit_exceeded"}),
            True,
            "rate_limit",
        ),
        (openai.APIError("m", httpx2.Request("POST", "http://x"), body=None), True, "stream_error"),
        (TimeoutError(), True, "timeout"),
    ],
)
def test_errors_of_the_sdk_and_of_the_transport_below_it(error: Exception, started: bool, code: str) -> None:
    found = judge(error, started=started)
    assert found is not None
    assert found.code == code


def test_a_mistake_of_ours_is_no_failure_of_the_provider() -> None:
    assert judge(KeyError("oops"), started=True) is None


def test_the_sdk_is_loaded_with_the_first_call() -> None:
    code = (
        "import sys; from reenact.adapters.models.openai import OpenAIChat, OpenAIResponses, google;"
        "OpenAIChat(), OpenAIResponses(), google();"
        "sys.exit(sorted({'openai', 'httpx2', 'pydantic', 'anthropic'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_long_context_costs_its_new_items_only() -> None:
    seen: list[int] = []

    class Counting:
        def item(self, item: Item) -> list[dict[str, Any]]:
            seen.append(item.version)
            return [{"at": item.version}]

    items: list[Item] = [UserItem(version=n, parts=()) for n in range(1, 101)]
    cache: dict[str, Any] = {}
    rendered(cache, "here", Counting, items)
    seen.clear()
    items.append(UserItem(version=101, parts=()))
    assert rendered(cache, "here", Counting, items).endswith(b',{"at":100},{"at":101}')
    assert seen == [101]
    # Without a place to keep it, it works as well.
    assert rendered(None, "here", Counting, items) == rendered(cache, "here", Counting, items)
