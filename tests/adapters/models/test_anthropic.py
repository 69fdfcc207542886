"""The Anthropic adapter against a server on this machine, through the real SDK: what it tells, and how it breaks."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import pytest

from reenact.adapters.models.anthropic import Anthropic
from reenact.events.content import Failure, Native, Text, Thinking, ToolCall, Usage, UserItem, text_of
from reenact.events.model import Credentials, ModelAnswer, ModelFailure, ModelRequest
from reenact.events.stream import TextDelta
from reenact.events.tool import ToolSpec
from tests.adapters.models.recordings import Outcome, ask, plain_request
from tests.adapters.models.served import Answer, Served, fixture, serve, streamed, whole


def played(
    *answers: Answer, asked: int | None = None, idle_s: float = 30.0, **request: Any
) -> tuple[list[Outcome], Served]:
    """Ask once an answer, in order, with one adapter; the outcomes, and what the server saw."""

    async def run() -> tuple[list[Outcome], Served]:
        model = Anthropic(idle_s=idle_s)
        async with serve(*answers) as served:
            outcomes = [await ask(model, plain_request(served.url, **request)) for _ in range(asked or len(answers))]
            await model.aclose()
        return outcomes, served

    return asyncio.run(run())


def answered(*answers: Answer, **request: Any) -> ModelAnswer:
    (outcome, *_), _ = played(*answers, **request)
    assert outcome.answer is not None, outcome.failure
    return outcome.answer


def failed(*answers: Answer, **request: Any) -> ModelFailure:
    (outcome, *_), _ = played(*answers, **request)
    assert outcome.failure is not None, outcome.answer
    return outcome.failure


def anthropic(name: str) -> bytes:
    return fixture(f"anthropic/{name}.sse")


def events(name: str, count: int) -> bytes:
    """The first `count` events of a fixture."""
    return b"".join(event + b"\n\n" for event in anthropic(name).split(b"\n\n")[:count])


def error(kind: str, message: str, **rest: Any) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_body", **rest}


# -- whole answers --


@pytest.mark.parametrize("size", [None, 1, 3, 64, 100_000])
def test_a_text_arrives_the_same_in_pieces_of_any_size(size: int | None) -> None:
    # Pieces of one byte cut every character of more than one, and every line end.
    answer = answered(
        streamed(anthropic("text"), size=size, headers={"content-type": "text/event-stream", "request-id": "req_1"})
    )
    assert answer == ModelAnswer(
        parts=(Text(text="Grüß Gott 👋 日本"),),
        stop_reason="end_turn",
        usage=Usage(
            input_tokens=117,
            output_tokens=9,
            cache_read_tokens=100,
            cache_write_tokens=5,
            extra={"cache_write_1h_tokens": 3},
        ),
        model="claude-test-1",
        response_id="msg_1",
        request_id="req_1",
    )


def test_line_ends_comments_and_a_missing_last_blank_line_make_no_difference() -> None:
    plain = answered(streamed(anthropic("tools")))
    body = anthropic("tools")
    assert answered(streamed(body.replace(b"\n", b"\r\n"), size=7)) == plain
    assert answered(streamed(b": hello\n\n" + body.replace(b"\n\n", b"\n\n: ping\n\n"), size=50)) == plain
    assert answered(streamed(body.rstrip(b"\n"), size=50)) == plain


def test_parallel_calls_come_whole_and_in_order() -> None:
    answer = answered(streamed(anthropic("tools")))
    assert answer.stop_reason == "tool_use"
    assert answer.parts == (
        Text(text="I look at both."),
        ToolCall(id="toolu_a", name="weather", input={"city": "Berlin"}),
        ToolCall(id="toolu_b", name="clock", input={}),
    )


def test_thinking_keeps_its_signature_and_redacted_thinking_its_data() -> None:
    answer = answered(streamed(anthropic("thinking")))
    assert answer.parts == (
        Thinking(thinking="Six times seven.", provider="anthropic", signature="c2lnbmVk"),
        Thinking(thinking="", provider="anthropic", extra={"type": "redacted_thinking", "data": "aGlkZGVu"}),
        Text(text="42"),
    )
    assert answer.usage == Usage(input_tokens=20, output_tokens=30, reasoning_tokens=25)


def test_what_only_the_provider_understands_is_folded_and_kept_verbatim() -> None:
    answer = answered(streamed(anthropic("hosted")))
    search, found, text, future = answer.parts
    assert search == Native(
        provider="anthropic",
        block={"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "news"}},
        text='web_search {"query": "news"}',
    )
    assert isinstance(found, Native) and found.block["content"][0]["encrypted_content"] == "xyz"
    cited = {"type": "web_search_result_location", "url": "https://example.org", "cited_text": "rain"}
    assert text == Text(text="It rained", extra={"provider": "anthropic", "citations": [cited]})
    assert isinstance(future, Native)
    assert future.block == {"type": "from_the_future", "note": "ab", "items": [1, 2], "fresh": {"x": 1}}
    assert answer.stop_reason == "pause_turn"
    assert answer.usage is not None
    assert answer.usage.extra == {"web_search_requests": 1, "compaction_input_tokens": 7, "compaction_output_tokens": 3}


MESSAGE: dict[str, Any] = {
    "id": "msg_2",
    "type": "message",
    "role": "assistant",
    "model": "claude-test-1",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "Look:", "citations": None},
        {
            "type": "tool_use",
            "id": "toolu_c",
            "name": "weather",
            "input": {"city": "Ulm"},
            "caller": {"type": "direct"},
        },
        {"type": "mcp_tool_result", "tool_use_id": "x", "content": []},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": None, "service_tier": "standard"},
}


def test_an_answer_in_one_piece_of_json_is_told_like_a_stream() -> None:
    answer = answered(whole(MESSAGE))
    assert answer.parts == (
        Thinking(thinking="hm", provider="anthropic", signature="s"),
        Text(text="Look:"),
        ToolCall(id="toolu_c", name="weather", input={"city": "Ulm"}),
        Native(provider="anthropic", block=MESSAGE["content"][3]),
    )
    assert (answer.stop_reason, answer.usage) == ("tool_use", Usage(input_tokens=3, output_tokens=4))


def test_nulls_missing_fields_and_unknown_stop_reasons_are_no_trouble() -> None:
    bare = {"content": None, "stop_reason": "from_the_future", "usage": None}
    assert answered(whole(bare)) == ModelAnswer(parts=(), stop_reason="from_the_future")
    assert answered(whole({"content": [{"type": "text", "text": None}], "stop_reason": None})).stop_reason == "end_turn"
    called = {"content": [{"type": "tool_use", "id": "1", "name": "n", "input": None}]}
    answer = answered(whole(called))
    assert (answer.parts, answer.stop_reason) == ((ToolCall(id="1", name="n", input={}),), "tool_use")
    full = {"content": [], "stop_reason": "model_context_window_exceeded"}
    assert answered(whole(full)).stop_reason == "context_exceeded"


def test_events_that_are_repeated_lost_or_unknown_do_not_double_or_break_the_text() -> None:
    body = anthropic("text").split(b"\n\n")[:-1]
    start, block, ping, *rest = body
    unknown = b'event: news\ndata: {"type":"news","index":0}'
    repeated = [start, start, unknown, block, block, ping, b"data: 7", *rest[:3], rest[3], rest[3], *rest[4:]]
    assert answered(streamed(b"\n\n".join(repeated) + b"\n\n")).parts == (Text(text="Grüß Gott 👋 日本"),)
    # Text says all there is to say of its block; what closes it may be lost too.
    lost = [start, *rest[:3], *rest[4:]]
    assert answered(streamed(b"\n\n".join(lost) + b"\n\n")).parts == (Text(text="Grüß Gott 👋 日本"),)


def test_a_call_whose_beginning_is_repeated_is_one_call() -> None:
    body = anthropic("tools").split(b"\n\n")
    assert b"toolu_a" in body[4]
    body.insert(4, body[4])
    assert answered(streamed(b"\n\n".join(body))) == answered(streamed(anthropic("tools")))


def test_a_call_whose_beginning_is_lost_fails_instead_of_being_guessed() -> None:
    body = anthropic("tools").split(b"\n\n")
    del body[4]
    failure = failed(streamed(b"\n\n".join(body))).failure
    assert (failure.code, failure.retryable) == ("stream_error", True)


def test_counts_that_repeat_are_not_added_and_counts_that_make_no_sense_are_nothing() -> None:
    start = {"input_tokens": 10, "output_tokens": 1, "cache_read_input_tokens": -5, "cache_creation_input_tokens": True}
    delta = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}}
    last = {
        "type": "message_delta",
        "delta": {"stop_reason": None},
        "usage": {"input_tokens": None, "output_tokens": 7},
    }
    said = [{"type": "message_start", "message": {"usage": start}}, delta, delta, last, {"type": "message_stop"}]
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in said)
    answer = answered(streamed(body))
    assert (answer.usage, answer.stop_reason) == (Usage(input_tokens=10, output_tokens=7), "end_turn")


def test_half_characters_and_u0000_never_get_through() -> None:
    block = b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
    pieces = (rb"a\ud83d", rb"\ude00\u0000", rb"b\ud800")
    deltas = (
        b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%s"}}\n\n' % piece
        for piece in pieces
    )
    native = rb'data: {"type":"content_block_start","index":1,"content_block":{"type":"x","note":"\ud800"}}' + b"\n\n"
    body = block + b"".join(deltas) + native + b'data: {"type":"message_stop"}\n\n'
    (outcome,), _ = played(streamed(body))
    assert outcome.answer is not None
    assert outcome.answer.parts == (Text(text="a😀�b�"), Native(provider="anthropic", block={"type": "x", "note": "�"}))
    for signal in outcome.signals:
        if isinstance(signal, TextDelta):
            signal.text.encode()


def test_input_that_is_no_json_reaches_the_answer_as_invalid() -> None:
    body = anthropic("tools").replace(b'lin\\"}', b"lin")
    _, weather, clock = answered(streamed(body)).parts
    assert isinstance(weather, ToolCall) and weather.input == {} and weather.invalid is not None
    assert weather.invalid.startswith('{"city": "Ber')
    assert isinstance(clock, ToolCall) and clock.invalid is None


# -- broken answers --


@pytest.mark.parametrize("then", ["end", "cut"])
def test_a_stream_that_ends_anywhere_before_its_end_is_partial(then: str) -> None:
    # Shown to fail: without the look at the end mark in `Reader.answer`, every clean end is taken for an answer.
    count = len(anthropic("tools").split(b"\n\n")) - 1
    outcomes, _ = played(*(streamed(events("tools", n), then=then) for n in range(count)))
    for n, outcome in enumerate(outcomes):
        assert outcome.failure is not None, n
        found = outcome.failure.failure
        assert (found.code, found.retryable) == ("stream_cut", True), n
        assert text_of(outcome.failure.partial) in ("", "I look at both.")
        calls = [part for part in outcome.failure.partial if isinstance(part, ToolCall)]
        assert (
            calls
            == [
                ToolCall(id="toolu_a", name="weather", input={"city": "Berlin"}),
                ToolCall(id="toolu_b", name="clock", input={}),
            ][: len(calls)]
        )
    assert outcomes[-1].failure is not None
    assert len(outcomes[-1].failure.partial) == 3
    assert outcomes[-1].failure.usage == Usage(input_tokens=50, output_tokens=40)
    assert outcomes[-1].failure.final
    assert outcomes[1].failure is not None
    assert outcomes[1].failure.usage == Usage(input_tokens=50, output_tokens=2)
    assert not any(outcome.failure.final for outcome in outcomes[:-1] if outcome.failure is not None)


def test_a_cut_inside_a_call_drops_it_and_keeps_the_text() -> None:
    failure = failed(streamed(events("tools", 7), then="cut"))
    assert failure.partial == (Text(text="I look at both."),)


def test_an_error_inside_the_stream_is_that_error_with_what_had_come() -> None:
    for kind, code, retryable in (
        ("overloaded_error", "overloaded", True),
        ("rate_limit_error", "rate_limit", True),
        ("api_error", "server_error", True),
        ("invalid_request_error", "invalid_request", False),
        ("from_the_future", "stream_error", True),
    ):
        broken = b"event: error\ndata: " + json.dumps(error(kind, "Oh no")).encode() + b"\n\n"
        failure = failed(streamed(events("tools", 4) + broken))
        assert failure.failure == Failure(code=code, message="Oh no", retryable=retryable, status=200)
        assert failure.partial == (Text(text="I look at both."),)
        assert failure.request_id == "req_body"


def test_silence_is_a_time_out_with_what_had_come() -> None:
    # Shown to fail: with the SDK's own time-out of ten minutes this test runs into its limit.
    failure = failed(streamed(events("text", 4), then="silence"), idle_s=0.05)
    assert (failure.failure.code, failure.failure.retryable) == ("timeout", True)
    assert failure.partial == (Text(text="Grüß "),)
    assert failed(Answer(pieces=[], then="silence"), idle_s=0.05).failure.code == "timeout"


def test_a_stream_that_never_falls_silent_ends_at_its_deadline() -> None:
    import anthropic  # noqa: F401  loading it counts, and takes longer than this deadline

    async def run() -> ModelFailure:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + events("text", 4))
            while not writer.is_closing():
                writer.write(b": still here\n\n")
                await writer.drain()
                await asyncio.sleep(0.01)

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        outcome = await ask(Anthropic(idle_s=5), plain_request(f"http://127.0.0.1:{port}", timeout_s=0.5))
        server.close()
        assert outcome.failure is not None
        return outcome.failure

    failure = asyncio.run(run())
    assert failure.failure.code == "timeout" and "0.5 s" in failure.failure.message
    assert failure.partial == (Text(text="Grüß "),)


def test_an_event_that_is_no_json_is_an_error_of_the_stream() -> None:
    failure = failed(streamed(events("text", 4) + b"data: {oops\n\n"))
    assert failure.failure.code == "stream_error" and "{oops" in failure.failure.message
    assert failure.partial == (Text(text="Grüß "),)


PAGE = Answer(pieces=[b"<html><title>Log in</title></html>"], headers={"content-type": "text/html; charset=utf-8"})


def test_a_web_page_instead_of_an_answer_says_so_and_is_not_tried_again() -> None:
    found = failed(PAGE).failure
    assert (found.code, found.retryable, found.status) == ("bad_response", False, 200)
    assert "text/html" in found.message and "Log in" in found.message and "base URL" in found.message
    assert failed(whole({"ok": True})).failure.code == "bad_response"
    assert (
        failed(Answer(pieces=[b"upstream says no"], headers={"content-type": "text/plain"})).failure.code
        == "bad_response"
    )
    assert (
        failed(Answer(pieces=[b'{"content": ['], headers={"content-type": "application/json"})).failure.code
        == "stream_cut"
    )
    assert failed(whole(error("overloaded_error", "Busy"))).failure.code == "overloaded"


@pytest.mark.parametrize(
    ("status", "kind", "message", "code", "retryable"),
    [
        (400, "invalid_request_error", "max_tokens: required", "invalid_request", False),
        (400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum", "context_exceeded", False),
        (400, "invalid_request_error", "Your credit balance is too low", "billing", False),
        (400, "invalid_request_error", "Output blocked by content filtering policy", "content_filter", False),
        (401, "authentication_error", "invalid x-api-key", "auth", False),
        (402, "billing_error", "Pay first", "billing", False),
        (403, "permission_error", "Not yours", "permission", False),
        (404, "not_found_error", "model: claude-nope", "model_not_found", False),
        (408, None, "Late", "timeout", True),
        (413, "request_too_large", "Too large", "too_large", False),
        (429, "rate_limit_error", "Slow down", "rate_limit", True),
        (500, "api_error", "Internal server error", "server_error", True),
        (503, None, "Down", "overloaded", True),
        (504, "timeout_error", "Late", "timeout", True),
        (529, "overloaded_error", "Overloaded", "overloaded", True),
        (418, "from_the_future", "?", "invalid_request", False),
        (599, "from_the_future", "?", "server_error", True),
    ],
)
def test_every_status_is_a_failure_of_its_own(
    status: int, kind: str | None, message: str, code: str, retryable: bool
) -> None:
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_body"}
    failure = failed(whole(body, status=status))
    assert failure.failure == Failure(code=code, message=message, retryable=retryable, status=status)
    assert (failure.partial, failure.request_id) == ((), "req_body")


def test_an_error_without_a_body_of_ours_still_says_what_it_is() -> None:
    html = Answer(
        pieces=[b"<html><head><title>502 Bad Gateway</title></head></html>"], status=502, headers=PAGE.headers
    )
    found = failed(html).failure
    assert (found.code, found.retryable, found.status) == ("server_error", True, 502)
    assert "502 Bad Gateway" in found.message
    lost = Answer(pieces=[b"not here"], status=404, headers={"content-type": "text/plain"})
    assert failed(lost).failure.code == "bad_response"


def test_the_sdk_makes_one_attempt_and_says_how_long_to_wait() -> None:
    busy = whole(error("rate_limit_error", "Slow down"), status=429, headers={"retry-after": "7"})
    outcomes, served = played(busy, asked=1)
    assert outcomes[0].failure is not None
    assert outcomes[0].failure.failure.retry_after_s == 7.0
    assert len(served.asked) == 1
    assert (
        "x-stainless-retry-count" not in served.asked[0].headers
        or served.asked[0].headers["x-stainless-retry-count"] == "0"
    )


def test_the_server_may_say_whether_to_try_again() -> None:
    no = whole(error("api_error", "Broken"), status=500, headers={"x-should-retry": "false", "retry-after": "3"})
    yes = whole(error("from_the_future", "Broken"), status=400, headers={"x-should-retry": "true"})
    assert (failed(no).failure.retryable, failed(no).failure.retry_after_s) == (False, None)
    assert failed(yes).failure.retryable is True


# -- the connection --


def test_without_a_key_nothing_is_sent() -> None:
    for key in (None, "", "  "):
        outcomes, served = played(api_key=key, asked=1)
        assert outcomes[0].failure is not None
        found = outcomes[0].failure.failure
        assert (found.code, found.retryable) == ("auth", False)
        assert "ANTHROPIC_API_KEY" in found.message
        assert served.connections == 0


def test_keys_from_the_environment_are_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a key and a place in the environment, when a request brings its own, those are used.
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-of-somebody-else")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:1")
    _, served = played(streamed(anthropic("text")), api_key=" sk-mine\n")
    assert served.asked[0].headers["authorization"] == "Bearer sk-mine"
    assert served.asked[0].path == "/v1/messages"


def test_a_query_in_the_address_is_that_of_every_request() -> None:
    async def run() -> list[str]:
        model = Anthropic()
        async with serve(*[streamed(anthropic("text"))] * 2) as served:
            for behind in ("?api_key=K%2F1&v=2", "/?api_key=another"):
                outcome = await ask(model, plain_request(served.url + behind))
                assert outcome.answer is not None, outcome.failure
            await model.aclose()
        return [asked.path for asked in served.asked]

    assert asyncio.run(run()) == ["/v1/messages?api_key=K%2F1&v=2", "/v1/messages?api_key=another"]


def test_a_key_that_cannot_be_one_is_refused_and_no_message_shows_a_key() -> None:
    assert failed(api_key="sk-\x00-secret-key", asked=1).failure.code == "auth"
    told = whole(error("authentication_error", "invalid key sk-secret-secret given"), status=401)
    failure = failed(told, api_key="sk-secret-secret")
    assert "sk-secret" not in str(failure) and "***" in failure.failure.message


def test_nobody_there_is_a_failed_connection() -> None:
    async def run() -> Outcome:
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        return await ask(Anthropic(), plain_request(f"http://127.0.0.1:{port}"))

    outcome = asyncio.run(run())
    assert outcome.failure is not None
    assert (outcome.failure.failure.code, outcome.failure.failure.retryable) == ("connection", True)


def test_an_address_that_is_none_is_refused() -> None:
    outcome = asyncio.run(ask(Anthropic(), plain_request("nowhere")))
    assert outcome.failure is not None
    assert (outcome.failure.failure.code, outcome.failure.failure.retryable) == ("invalid_request", False)


def test_calls_share_a_connection() -> None:
    # The stream is read to its very end, or the connection could not be used again.
    _, served = played(*(streamed(anthropic("text")) for _ in range(5)), whole(MESSAGE))
    assert (len(served.asked), served.connections) == (6, 1)


def test_cancelling_the_task_closes_the_connection() -> None:
    async def run() -> None:
        async with serve(streamed(events("text", 4), then="silence")) as served:
            model, heard = Anthropic(), asyncio.Event()

            async def listen() -> None:
                async for signal in model.stream(plain_request(served.url)):
                    if isinstance(signal, TextDelta):
                        heard.set()

            task = asyncio.create_task(listen())
            await heard.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.wait_for(served.left.wait(), 5)
            await model.aclose()

    asyncio.run(run())


def test_leaving_the_stream_early_closes_the_connection() -> None:
    async def run() -> None:
        async with serve(streamed(events("text", 4), then="silence")) as served:
            model = Anthropic()
            stream = model.stream(plain_request(served.url))
            async for signal in stream:
                if isinstance(signal, TextDelta):
                    break
            await stream.aclose()  # type: ignore[attr-defined]
            await asyncio.wait_for(served.left.wait(), 5)
            await model.aclose()

    asyncio.run(run())


def test_one_adapter_serves_one_loop_after_another() -> None:
    model = Anthropic()

    async def run() -> ModelAnswer | None:
        async with serve(streamed(anthropic("text"))) as served:
            return (await ask(model, plain_request(served.url))).answer

    assert asyncio.run(run()) == asyncio.run(run()) != None  # noqa: E711


def test_a_tool_keeps_the_name_we_know_it_by() -> None:
    # Given a tool whose name the provider would refuse, it is offered under another and called by its own.
    async def run() -> tuple[Outcome, Served]:
        body = anthropic("tools").replace(b'"name": "weather"', b'"name": "our_weather"')
        async with serve(streamed(body)) as served:
            tool = ToolSpec(name="our.weather", description="", parameters={})
            request = ModelRequest(
                model="claude-test-1",
                system="",
                items=[UserItem(version=1, parts=(Text(text="?"),))],
                tools=[tool],
                credentials=Credentials(api_key="test-key", base_url=served.url),
            )
            return await ask(Anthropic(), request), served

    outcome, served = asyncio.run(run())
    assert served.asked[0].body["tools"][0]["name"] == "our_weather"
    assert outcome.answer is not None
    assert [part.name for part in outcome.answer.parts if isinstance(part, ToolCall)] == ["our.weather", "clock"]


def test_reasoning_that_the_provider_no_longer_takes_is_left_out_of_the_next_attempt() -> None:
    from reenact.events.content import AssistantItem

    async def run() -> tuple[list[Outcome], Served]:
        refusal = (
            "messages.1.content.0: Invalid `signature` in `thinking` block. "
            "The block is bound to a different conversation."
        )
        refused = whole(error("invalid_request_error", refusal), status=400)
        async with serve(refused, streamed(anthropic("text")), refused) as served:
            thinking = Thinking(thinking="hm", provider="anthropic", signature="old")
            request = ModelRequest(
                model="claude-test-1",
                system="",
                items=[
                    UserItem(version=1, parts=(Text(text="a"),)),
                    AssistantItem(version=2, parts=(thinking, Text(text="b"))),
                    UserItem(version=3, parts=(Text(text="c"),)),
                ],
                credentials=Credentials(api_key="test-key", base_url=served.url),
                cache={},
            )
            model = Anthropic()
            return [await ask(model, request) for _ in range(3)], served

    (first, second, third), served = asyncio.run(run())
    assert first.failure is not None and second.answer is not None and third.failure is not None
    assert (first.failure.failure.code, first.failure.failure.retryable) == ("invalid_request", True)
    assert [block["type"] for block in served.asked[0].body["messages"][1]["content"]] == ["thinking", "text"]
    assert [block["type"] for block in served.asked[1].body["messages"][1]["content"]] == ["text"]
    # Once there is nothing left to leave out, trying again is of no use.
    assert third.failure.failure.retryable is False


def test_the_sdk_is_not_loaded_before_the_first_call() -> None:
    code = (
        "import sys, reenact.adapters.models as m; m.Models().get('anthropic'); m.Retries();"
        "print([name for name in ('anthropic', 'openai', 'httpx2', 'stamina') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
