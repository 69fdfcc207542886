"""What is owed to the world, done: models called, their failures, tools run, and an environment of one's own."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from reenact import Runtime, tool
from reenact.actors.verify import verify
from reenact.adapters.models import Models
from reenact.adapters.models.scripted import Scripted
from reenact.events.content import Failure, Text, Usage
from reenact.events.log import MemoryLog, MemoryStore
from reenact.events.model import ModelAnswer, ModelFailure, ModelRequest
from reenact.events.stream import TextDelta
from tests.runtimes import CALL, Heard, run, weather

# -- models --


def test_what_the_model_sees_is_the_whole_conversation_with_every_call_closed() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support", instructions="Be kind.")
        await bot.send("weather?")
        await bot.send("and now?")
        kinds = [[type(item).__name__ for item in items] for items, _ in seen]
        turn = ["UserItem", "AssistantItem", "ResultItem", "AssistantItem"]
        assert kinds == [turn[:1], turn[:3], turn + turn[:1], turn + turn[:3]]
        assert all(request.system == "Be kind." and request.tools[0].name == "weather" for _, request in seen)

    seen: list[Any] = []
    script = Scripted(CALL, repeat=True)

    class Watched:
        def stream(self, request: ModelRequest) -> Any:
            seen.append((list(request.items), request))
            return script.stream(request)

    run(work, models=Models({"scripted": Watched()}), tools=[weather])


def test_every_attempt_at_a_model_is_in_the_log() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        result = await bot.send("hi")
        assert (result.status, result.text) == ("succeeded", "Hello.")
        attempts = [each.data for each in await bot.events() if each.type in ("model_called", "model_failed")]
        assert [(each.type, each.attempt) for each in attempts] == [
            ("model_called", 1),
            ("model_failed", 1),
            ("model_called", 2),
            ("model_failed", 2),
            ("model_called", 3),
        ]
        assert attempts[1].failure.code == "overloaded" and attempts[1].retry_in_ms is not None

    error = {"code": "overloaded", "message": "busy", "retryable": True, "times": 2}
    run(work, [{"text": "Hello.", "error": error}])


def test_a_model_that_stays_down_fails_the_job_after_its_attempts() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        result = await bot.send("hi")
        assert result.status == "failed" and result.failure is not None and result.failure.code == "overloaded"
        assert [each.type for each in await bot.events()].count("model_called") == 3

    run(work, [{"text": "Hello.", "error": {"code": "overloaded", "message": "busy", "retryable": True}}])


def test_a_cut_answer_is_partial_and_never_complete() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        result = await bot.send("hi")
        assert result.status == "failed" and result.failure is not None and result.failure.code == "stream_cut"
        assert result.text == "half an "
        assert "model_answered" not in [each.type for each in await bot.events()]

    class Cut:
        async def stream(self, request: ModelRequest) -> Any:
            from reenact.events.stream import TextBlockStart

            yield TextBlockStart()
            yield TextDelta(text="half an ")

    run(work, models=Models({"scripted": Cut()}))


@pytest.mark.parametrize("part", [{"big": 2**70}, {"text": "\ud800"}])
def test_an_answer_that_cannot_be_stored_fails_the_job_by_name(part: dict[str, Any]) -> None:
    from reenact.events.content import ToolCall

    class Odd:
        async def stream(self, request: ModelRequest) -> Any:
            odd = ToolCall(id="c", name="x", input=part) if "big" in part else Text(text=part["text"])
            yield ModelAnswer(parts=(odd,), stop_reason="end_turn", usage=Usage())

    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        result = await bot.send("go").result(5)
        assert result.failure is not None and result.failure.code == "bad_response"

    run(work, models=Models({"scripted": Odd()}))


def test_an_adapter_with_a_bug_fails_the_job_by_name_and_the_session_goes_on() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        result = await bot.send("hi")
        assert result.failure is not None and "ZeroDivisionError" in result.failure.message
        broken.clear()
        assert (await bot.send("hi")).status == "succeeded"

    broken = [True]

    class Sometimes:
        async def stream(self, request: ModelRequest) -> Any:
            if broken:
                raise ZeroDivisionError("division by zero")
            yield ModelAnswer(parts=(Text(text="ok"),), stop_reason="end_turn", usage=Usage())

    run(work, models=Models({"scripted": Sometimes()}))


def test_watchers_see_connections_come_go_and_come_back() -> None:
    class Shaky:
        calls = 0

        async def stream(self, request: ModelRequest) -> Any:
            self.calls += 1
            yield TextDelta(text="so ")
            if self.calls == 1:
                raise ModelFailure(Failure(code="stream_cut", message="cut", retryable=True))
            yield ModelAnswer(parts=(Text(text="so what"),), stop_reason="end_turn", usage=Usage())

    async def work(runtime: Runtime) -> None:
        heard = Heard(runtime)
        bot = await runtime.image("support")
        assert (await bot.send("hi")).status == "succeeded"
        seen = heard.of("connected", "error_received", "disconnected", "reconnecting")
        assert [event.type for event in seen] == [
            "connected",
            "error_received",
            "disconnected",
            "reconnecting",
            "connected",
        ]
        assert (seen[1].data.error_code, seen[3].data.attempt) == ("stream_cut", 2)
        assert {event.category for event in (seen[0], seen[2], seen[3])} == {"connection"}

    run(work, models=Models({"scripted": Shaky()}))


def test_an_agent_may_be_given_an_environment_of_its_own() -> None:
    async def work(runtime: Runtime) -> None:
        heard = Heard(runtime)
        bot = await runtime.image("support", instructions="Be kind.")
        assert (await bot.send("hi")).text == "from elsewhere"
        assert [event.data.text for event in heard.of("text_delta")] == ["FROM "]
        [spec] = specs
        assert (spec.image_id, spec.session_id, spec.system_prompt) == (bot.id, bot.session_id, "Be kind.")
        await bot.send("again")
        assert len(specs) == 1, "one environment an agent"
        await bot.stop()
        await asyncio.sleep(0)
        assert disposed == [spec.agent_id]

    specs: list[Any] = []
    disposed: list[str] = []

    class Elsewhere:
        name = "elsewhere"

        def __init__(self, spec: Any) -> None:
            self.spec = spec
            specs.append(spec)
            self.effector = self.receptor = self

        async def act(self, request: ModelRequest) -> Any:
            yield TextDelta(text="from ")
            yield ModelAnswer(parts=(Text(text="from elsewhere"),), stop_reason="end_turn", usage=Usage())

        def perceive(self, signal: Any) -> Any:
            return [TextDelta(text=signal.text.upper())]

        async def dispose(self) -> None:
            disposed.append(self.spec.agent_id)

    run(work, environment_factory=Elsewhere)


# -- tools --


def test_a_tool_gets_a_folder_of_its_image_and_tells_how_it_goes(tmp_path: Any) -> None:
    from reenact import ToolContext

    @tool
    def note(text: str, context: ToolContext) -> str:
        """Write a note."""
        assert context.workspace is not None
        context.workspace.mkdir(parents=True, exist_ok=True)
        (context.workspace / "note.txt").write_text(text)
        context.progress("half way")
        return context.idempotency_key

    async def work(runtime: Runtime) -> None:
        heard = Heard(runtime)
        bot = await runtime.image("support")
        await bot.send("note it")
        assert (tmp_path / "workspaces" / bot.id / "note.txt").read_text() == "hi"
        [settled] = [each.data for each in await bot.events() if each.type == "tool_settled"]
        assert settled.output == f"{bot.session_id}:t1"
        assert [(event.data.tool_id, event.data.text) for event in heard.of("progress")] == [("t1", "half way")]

    run(
        work,
        [{"tool_calls": [{"name": "note", "input": {"text": "hi"}}]}, {"text": "ok"}],
        tools=[note],
        base_path=tmp_path,
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"name": "nope", "input": {}}, "no tool named 'nope'"),
        ({"name": "weather", "input": {}}, "city"),
        ({"name": "weather", "input": {"city": 7}}, "city"),
        ({"name": "weather", "input": {"city": "x", "zip": 1}}, "zip"),
        ({"name": "weather", "written": "{not json"}, "JSON"),
        ({"name": "weather", "written": '{"city": NaN}'}, "NaN"),
        ({"name": "weather", "input": {"city": "a\x00b"}}, "U+0000"),
    ],
)
def test_a_call_that_cannot_be_run_is_told_to_the_model_and_never_run(call: dict[str, Any], words: str) -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        result = await bot.send("weather?")
        assert result.status == "succeeded"
        types = [each.type for each in await bot.events()]
        assert "tool_started" not in types
        [settled] = [each.data for each in await bot.events() if each.type == "tool_settled"]
        assert settled.outcome == "error" and words in settled.output

    run(work, [{"tool_calls": [call]}, {"text": "sorry"}], tools=[weather])


def test_a_tool_that_the_image_was_not_given_is_not_run() -> None:
    ran: list[str] = []

    @tool(effect="read")
    def danger() -> str:
        """Not for everybody."""
        ran.append("danger")
        return "boom"

    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support", tools=["weather"])
        await bot.send("go")
        [settled] = [each.data for each in await bot.events() if each.type == "tool_settled"]
        assert settled.outcome == "error" and "danger" in settled.output

    run(work, [{"tool_calls": [{"name": "danger", "input": {}}]}, {"text": "ok"}], tools=[weather, danger])
    assert ran == []


def test_ten_tools_run_beside_each_other() -> None:
    started: list[int] = []
    together = asyncio.Event()

    @tool(effect="read")
    async def meet(number: int) -> str:
        """Wait until ten are here."""
        started.append(number)
        if len(started) == 10:
            together.set()
        await together.wait()
        return "met"

    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        assert (await bot.send("go")).status == "succeeded"

    calls = [{"name": "meet", "input": {"number": number}} for number in range(10)]
    run(work, [{"tool_calls": calls}, {"text": "ok"}], tools=[meet])


def test_an_interrupt_stops_a_running_tool_and_its_cleanup_runs() -> None:
    cleaned: list[str] = []

    @tool(effect="read")
    async def forever() -> str:
        """Never ends."""
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append("yes")
        return ""

    async def work(runtime: Runtime) -> None:
        heard = Heard(runtime)
        bot = await runtime.image("support")
        run = await bot.send("go").run()
        await heard.until("tool_started")
        await asyncio.sleep(0)
        await bot.interrupt()
        assert (await run).status == "cancelled"
        [settled] = [each.data for each in await bot.events() if each.type == "tool_settled"]
        assert settled.outcome == "error" and settled.error_type == "Interrupted"

    run(work, [{"tool_calls": [{"name": "forever", "input": {}}]}, {"text": "ok"}], tools=[forever])
    assert cleaned == ["yes"]


def test_a_call_that_is_stopped_before_its_first_step_is_skipped_and_the_log_is_sound() -> None:
    """The answer and the interrupt are stored before the loop hears of either."""
    ran: list[str] = []

    @tool(effect="unsafe")
    def pay() -> str:
        """Pay."""
        ran.append("paid")
        return "paid"

    class Both(MemoryLog):
        asked, stopped = threading.Event(), threading.Event()

        def commit(self, transactions: Any) -> Any:
            types = {row.type for each in transactions for batch in each.batches for row in batch.rows}
            if "model_answered" in types:
                loop.call_soon_threadsafe(interrupt)
                assert self.asked.wait(10)
            stored = super().commit(transactions)
            if "job_stopping" in types:
                self.stopped.set()
            return stored

    def interrupt() -> None:
        interrupting.append(asyncio.ensure_future(bot.interrupt()))  # which asks in its first step
        loop.call_soon(wait)

    def wait() -> None:
        log.asked.set()
        assert log.stopped.wait(10)

    async def work() -> None:
        nonlocal bot, loop
        loop = asyncio.get_running_loop()
        model = Models({"scripted": Scripted([{"tool_calls": [{"name": "pay", "input": {}}]}])})
        agent = {"model": "scripted:any"}
        async with Runtime(log, tools=[pay], models=model, default_agent=agent, threads=1) as runtime:
            bot = await runtime.image("support")
            assert (await bot.send("go")).status == "cancelled" and interrupting[0].done()
            told = [each.data for each in await bot.events() if each.type.startswith(("tool_st", "tool_se", "job_st"))]
            assert [each.type for each in told] == ["job_started", "tool_started", "job_stopping", "tool_settled"]
            assert told[-1].outcome == "skipped" and not ran

    log, interrupting = Both(MemoryStore()), list[Any]()
    bot: Any = None
    loop: Any = None
    asyncio.run(asyncio.wait_for(work(), 20))
    assert verify(log).sound


def test_a_tool_that_is_gone_after_a_restart_is_told_to_the_model() -> None:
    store = MemoryStore()

    @tool(effect="read")
    async def forever() -> str:
        """Never ends."""
        await asyncio.Event().wait()
        return ""

    async def before(runtime: Runtime) -> str:
        heard = Heard(runtime)
        bot = await runtime.image("support")
        await bot.send("go").run()
        await heard.until("tool_started")
        return bot.session_id

    async def after(runtime: Runtime) -> None:
        heard = Heard(runtime)
        await heard.until("job_succeeded")
        events = await runtime.events(session_id)
        [settled] = [each.data for each in events if each.type == "tool_settled"]
        assert (settled.outcome, settled.error_type) == ("error", "CallChanged")

    script = [{"tool_calls": [{"name": "forever", "input": {}}]}, {"text": "ok"}]
    session_id = run(before, script, tools=[forever], store=store)
    run(after, script, store=store)
