"""The runtime as a program holds it: images by name, sending, retries, keys, restarts, an environment of one's own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reenact import Runtime, tool
from reenact.adapters.models import Models
from reenact.adapters.models.scripted import Scripted
from reenact.events.content import Failure, Text, Usage
from reenact.events.errors import BadInput, Closed, Conflict, DiskFull, KeyReused, NotFound, UnknownOutcome
from reenact.events.log import MemoryLog, MemoryStore
from reenact.events.model import Credentials, ModelAnswer, ModelFailure, ModelParams, ModelRequest
from reenact.events.stream import TextDelta
from reenact.image import Image
from tests.runtimes import HELLO, Gate, Heard, run, runtime

CALL = [{"tool_calls": [{"name": "weather", "input": {"city": "Paris"}}]}, {"text": "It is 21 degrees."}]


@tool(effect="read")
def weather(city: str) -> str:
    """The weather of a city."""
    return f"{city}: 21 degrees"


# -- images --


def test_an_image_is_opened_by_its_name_and_made_where_there_is_none() -> None:
    async def work(runtime: Runtime) -> None:
        first = await runtime.image("support", container="acme", instructions="Be kind.")
        again = await runtime.image("support", container="acme")
        other = await runtime.image("support", container="other")
        assert first.id == again.id != other.id
        state = await runtime.image_state(first.id)
        assert (state.config.name, state.config.system_prompt, state.version) == ("support", "Be kind.", 1)
        changed = await runtime.image("support", container="acme", temperature=0.5)
        assert changed.id == first.id
        assert (await runtime.image_state(first.id)).config.params.temperature == 0.5

    run(work)


def test_a_name_taken_by_many_at_once_is_one_image() -> None:
    async def work(runtime: Runtime) -> None:
        images = await asyncio.gather(*(runtime.image("support") for _ in range(20)))
        assert len({image.id for image in images}) == 1

    run(work)


def test_the_name_of_a_deleted_image_can_be_used_again() -> None:
    async def work(runtime: Runtime) -> None:
        first = await runtime.image("support")
        await runtime.delete_image(first.id)
        second = await runtime.image("support")
        assert second.id != first.id and (await runtime.image("support")).id == second.id

    run(work)


def test_images_and_their_conversations_are_there_after_a_restart() -> None:
    store = MemoryStore()

    async def before(runtime: Runtime) -> str:
        bot = await runtime.image("support")
        assert (await bot.send("hi")).text == "Hello there."
        return bot.session_id

    async def after(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        assert bot.session_id == session_id
        assert [message.role for message in await bot.messages()] == ["user", "assistant"]
        assert (await bot.send("again")).status == "succeeded"
        assert len(await bot.messages()) == 4
        assert (await runtime.replay(session_id)).identical

    session_id = run(before, store=store)
    run(after, store=store)


def test_an_image_may_have_many_sessions_and_the_newest_is_its_current_one() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        await bot.send("first")
        second = await runtime.new_session(bot.id)
        fresh = await runtime.open_image(bot.id)
        assert fresh.session_id == second != bot.session_id
        await fresh.send("second")
        assert len(await bot.messages()) == len(await fresh.messages()) == 2

    run(work)


# -- sending --


def test_a_run_can_be_iterated_and_awaited_by_many_and_late() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        run = await bot.send("weather?").run()
        one, two = await asyncio.gather(_types(run), _types(run))
        assert one == two and one[0] == "job_queued" and one[-1] == "job_succeeded"
        assert "text_delta" in one
        late = await _types(run)
        assert late == [kind for kind in one if kind in late] and late[-1] == "job_succeeded"
        assert (await run).text == (await run.result()).text == "It is 21 degrees."

    run(work, CALL, tools=[weather])


async def _types(run: Any) -> list[str]:
    return [event.type async for event in run]


def test_a_result_tells_what_the_job_used() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        result = await bot.send("weather?")
        assert (result.status, result.steps, result.stop_reason) == ("succeeded", 2, "end_turn")
        assert result.usage.output_tokens > 0

    run(work, CALL, tools=[weather])


def test_a_wait_that_times_out_does_not_stop_the_run() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        run = await bot.send("hi").run()
        with pytest.raises(TimeoutError):
            await run.result(0.01)
        gate.opened.set()
        assert (await run.result(5)).status == "succeeded"

    gate = Gate()
    run(work, models=Models({"scripted": gate}))


def test_a_job_whose_time_is_up_is_stopped_and_says_so() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        result = await bot.send("hi", timeout_s=0.05)
        assert (result.status, result.text) == ("timed_out", "partial ")

    run(work, models=Models({"scripted": Gate()}))


def test_a_message_may_choose_another_model_and_settings_for_itself() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        await bot.send("hi", model="other:b", params=ModelParams(temperature=0.25))
        await bot.send("hi")
        assert [(each.model, each.params.temperature) for each in asked] == [("b", 0.25), ("any", None)]

    asked: list[ModelRequest] = []

    class Other:
        async def stream(self, request: ModelRequest) -> Any:
            asked.append(request)
            yield ModelAnswer(parts=(Text(text="ok"),), stop_reason="end_turn", usage=Usage())

    run(work, models=Models({"scripted": Other(), "other": Other()}))


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


# -- keys --


def test_a_message_with_a_key_is_one_job_however_often_it_is_sent() -> None:
    store = MemoryStore()

    async def work(runtime: Runtime) -> tuple[str, int]:
        bot = await runtime.image("support")
        runs = [await bot.send("refund 42", key="order-42").run() for _ in range(5)]
        results = await asyncio.gather(*runs)
        assert {result.text for result in results} == {"Hello there."}
        assert len({result.job_id for result in results}) == 1
        with pytest.raises(KeyReused):
            await bot.send("refund 43", key="order-42")
        return results[0].job_id, len(await bot.messages())

    assert run(work, store=store) == run(work, store=store), "the key is remembered in the log"


def test_two_who_send_with_one_key_at_once_share_the_answer() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        first = await bot.send("hi", key="k").run()
        second = await bot.send("hi", key="k").run()
        watching = asyncio.ensure_future(_types(second))
        await second.accepted()
        gate.opened.set()
        assert (await first).job_id == (await second).job_id
        assert (await watching)[-1] == "job_succeeded"

    gate = Gate()
    run(work, models=Models({"scripted": gate}))


# -- failures --


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


def test_a_missing_key_fails_the_job_and_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support", model="anthropic:claude-sonnet-5-5")
        result = await bot.send("hi")
        assert result.failure is not None and result.failure.code == "auth"
        assert "ANTHROPIC_API_KEY" in result.failure.message

    run(work)


# -- credentials and environment --


def test_credentials_are_asked_for_at_every_call_and_never_stored() -> None:
    store = MemoryStore()

    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        await bot.send("hi")
        await bot.send("hi")
        assert [(each.reveal(), each.base_url) for each in given] == [("sk-canary", "http://x"), ("sk-canary", None)]

    given: list[Credentials] = []

    class Model:
        async def stream(self, request: ModelRequest) -> Any:
            given.append(request.credentials)
            assert "sk-canary" not in repr(request)
            yield ModelAnswer(parts=(Text(text="ok"),), stop_reason="end_turn", usage=Usage())

    def provide(provider: str, spec: Any) -> Any:
        assert provider == "scripted" and spec.container_id == "default"
        return Credentials(api_key="sk-canary") if given else {"apiKey": "sk-canary", "baseUrl": "http://x"}

    run(work, store=store, models=Models({"scripted": Model()}), credentials=provide)
    assert not [row for each in store.all for row in each.batch.rows if b"sk-canary" in row.data]


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
        assert settled.error_type == "UnknownTool"

    script = [{"tool_calls": [{"name": "forever", "input": {}}]}, {"text": "ok"}]
    session_id = run(before, script, tools=[forever], store=store)
    run(after, script, store=store)


# -- closing --


def test_a_job_that_runs_when_the_runtime_closes_goes_on_with_the_next_one() -> None:
    store = MemoryStore()

    async def before(runtime: Runtime) -> Any:
        heard = Heard(runtime)
        bot = await runtime.image("support")
        job = await bot.send("hi").run()
        await heard.until("text_delta")
        return job

    async def after(runtime: Runtime) -> None:
        heard = Heard(runtime)
        await heard.until("job_succeeded")
        bot = await runtime.image("support")
        events = await bot.events()
        assert [each.data.attempt for each in events if each.type == "model_called"] == [1, 2]
        assert events[-1].epoch == 2 and (await runtime.replay(bot.session_id)).identical

    gate = Gate()
    job = run(before, store=store, models=Models({"scripted": gate}))
    with pytest.raises(Closed, match="goes on when the log is opened again"):
        asyncio.run(job.result())
    run(after, store=store)


def test_nothing_works_on_a_runtime_that_is_not_open() -> None:
    closed = runtime()
    with pytest.raises(Closed, match="not open"):
        asyncio.run(closed.image("support"))

    async def twice() -> None:
        opened = await runtime().open()
        await opened.open()
        await opened.close()
        await opened.close()
        with pytest.raises(Closed):
            await opened.image("support")

    asyncio.run(twice())


def test_unknown_sessions_are_not_found() -> None:
    async def work(runtime: Runtime) -> None:
        for ask in (runtime.messages, runtime.events, runtime.replay):
            with pytest.raises(NotFound, match="sess_no"):
                await ask("sess_no")
        with pytest.raises(NotFound):
            await Image(runtime, "img_no", "sess_no", "default").send("hi")

    run(work)


def test_an_agent_that_is_gone_leaves_no_subscription_behind() -> None:
    async def work(runtime: Runtime) -> None:
        before = runtime.bus.subscriptions
        for _ in range(5):
            bot = await runtime.image(None)
            await bot.send("hi")
            await bot.stop()
        assert runtime.bus.subscriptions == before

    run(work)


def test_a_thousand_messages_at_once_are_all_answered_in_order() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        results = await asyncio.gather(*(bot.send(f"message {number}") for number in range(1000)))
        assert {result.status for result in results} == {"succeeded"}
        said = [message.content[0].text for message in await bot.messages() if message.role == "user"]
        assert said == [f"message {number}" for number in range(1000)]

    run(work)


def test_following_the_log_gives_every_event_once_and_goes_on_live() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        await bot.send("one")
        positions: list[int] = []

        async def follow() -> None:
            ended = 0
            async for recorded in runtime.follow():
                positions.append(recorded.position)
                ended += recorded.type == "job_succeeded"
                if ended == 2:
                    return

        following = asyncio.ensure_future(follow())
        await bot.send("two")
        await asyncio.wait_for(following, 5)
        assert positions == list(range(1, runtime.log.position + 1))

    run(work)


def test_a_session_of_another_image_cannot_be_created_under_the_same_id() -> None:
    async def work(runtime: Runtime) -> None:
        from reenact.events.session import CreateSession

        one, two = await runtime.image("a"), await runtime.image("b")
        with pytest.raises(Conflict):
            await runtime.ask(
                f"session-{one.session_id}",
                CreateSession(session_id=one.session_id, image_id=two.id, container_id="default", created_at=1),
            )

    run(work)


def test_a_bad_model_name_is_refused_before_anything_is_stored() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        before = runtime.log.position
        for model in ("gpt", "nobody:x", "openai:"):
            with pytest.raises(BadInput):
                await bot.send("hi", model=model)
        assert runtime.log.position == before

    run(work)


# -- awkward moments --


def test_interrupts_straight_after_a_send_never_hang() -> None:
    """Fails where a task that is cancelled before its first step tells nothing."""

    async def work(runtime: Runtime) -> None:
        bots = [await runtime.image(None) for _ in range(50)]

        async def send_and_stop(bot: Image) -> str:
            run = await bot.send("hi").run()
            await bot.interrupt()
            return (await run.result(5)).status

        ended = await asyncio.gather(*(send_and_stop(bot) for bot in bots))
        assert set(ended) <= {"cancelled", "succeeded"}
        for bot in bots:
            assert (await bot.send("hi")).status == "succeeded"

    run(work)


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


class Choosy(MemoryLog):
    """A log that has no room for the first batch of a kind."""

    def __init__(self, kind: str, error: type[Exception]) -> None:
        super().__init__()
        self.kind = kind
        self.error = error
        self.refused = 0

    def commit(self, transactions: Any) -> Any:
        if not self.refused and any(each.head.asked == self.kind for one in transactions for each in one.batches):
            self.refused += 1
            raise self.error()
        return super().commit(transactions)


@pytest.mark.parametrize("kind", ["answer_model", "settle_tool"])
def test_the_end_of_an_effect_waits_for_room_on_the_disk(kind: str) -> None:
    ran: list[str] = []

    @tool
    def charge() -> str:
        """Unsafe: it must not run twice, and that it ran must not be forgotten."""
        ran.append("charge")
        return "charged"

    async def work() -> None:
        log = Choosy(kind, DiskFull)
        models = Models({"scripted": Scripted([{"tool_calls": [{"name": "charge"}]}, {"text": "ok"}])})
        options = {"models": models, "tools": [charge], "default_agent": {"model": "scripted:any"}}
        async with Runtime(log, **options) as opened:
            heard = Heard(opened)
            bot = await opened.image("support")
            assert (await bot.send("go").result(10)).status == "succeeded"
            assert log.refused == 1 and len(heard.of("system_error")) == 1
            assert (await opened.replay(bot.session_id)).identical

    asyncio.run(work())
    assert ran == ["charge"]


def test_a_log_that_stops_fails_whoever_waits() -> None:
    async def work() -> None:
        models = Models({"scripted": Scripted(HELLO)})
        log = Choosy("answer_model", UnknownOutcome)
        async with Runtime(log, models=models, default_agent={"model": "scripted:any"}) as opened:
            bot = await opened.image("support")
            with pytest.raises(UnknownOutcome):
                await bot.send("go").result(10)
            with pytest.raises(UnknownOutcome):
                await bot.send("go").result(10)

    asyncio.run(work())


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


def test_what_the_model_is_called_with_is_what_the_log_names() -> None:
    """Fails where the image of the moment is used: the log would name a version that the model never saw."""
    saw: list[str] = []
    script = Scripted(CALL, repeat=True)

    class Watched:
        def stream(self, request: ModelRequest) -> Any:
            saw.append(request.system)
            return script.stream(request)

    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support", instructions="v1")

        async def update(event: Any) -> None:
            await runtime.update_image(bot.id, {"systemPrompt": "v2"})

        runtime.once("tool_started", update)
        await bot.send("go")
        await bot.send("go")
        versions = [each.data.image_version for each in await bot.events() if each.type == "model_called"]
        assert saw == [f"v{version}" for version in versions] and versions[:2] == [1, 1] and versions[-1] == 2

    run(work, models=Models({"scripted": Watched()}), tools=[weather])


def test_two_changes_of_a_definition_at_once_both_count() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        changes = [{"name": "N"}, {"description": "D"}, {"temperature": 0.5}]
        await asyncio.gather(*(runtime.update_image(bot.id, change) for change in changes))
        config = (await runtime.image_state(bot.id)).config
        assert (config.name, config.description, config.params.temperature) == ("N", "D", 0.5)

    run(work)


def test_agents_of_all_sessions_are_seen_and_only_the_one_meant_is_stopped() -> None:
    async def work(runtime: Runtime) -> None:
        heard = Heard(runtime)
        one = await runtime.image("support")
        first = await one.send("hi").run()
        await runtime.new_session(one.id)
        two = await runtime.open_image(one.id)
        second = await two.send("hi").run()
        await heard.until("text_delta", 2)
        agents = await runtime.agents("default")
        assert {each.session_id for each in agents} == {one.session_id, two.session_id}
        of_one = next(each for each in agents if each.session_id == one.session_id)
        gone = await runtime.request("agent_destroy_request", {"agentId": of_one.agent_id})
        assert gone.data.success and (await first.result(5)).status == "cancelled"
        assert [each.session_id for each in await runtime.agents("default")] == [two.session_id]
        await runtime.delete_image(one.id)
        assert (await second.result(5)).status == "cancelled"
        assert await runtime.agents("default") == []

    run(work, models=Models({"scripted": Gate()}))


def test_notices_are_whole_after_a_restart() -> None:
    store = MemoryStore()

    async def before(runtime: Runtime) -> str:
        heard = Heard(runtime)
        bot = await runtime.image("support")
        await bot.send("first").run()
        await heard.until("text_delta")
        await bot.send("second").run()
        await bot.stop()
        await heard.until("job_cancelled")
        return bot.id

    async def after(runtime: Runtime) -> None:
        heard = Heard(runtime)
        await runtime.request("image_run_request", {"imageId": image_id})
        said = await heard.until("user_message")
        assert said.data.content[0].text == "second"
        await heard.until("conversation_end")
        messages = (await runtime.request("image_messages_request", {"imageId": image_id})).data.messages
        assert said.data.id in [message.id for message in messages]

    image_id = run(before, store=store, models=Models({"scripted": Gate()}))
    run(after, store=store)


def test_one_key_for_two_images_is_refused() -> None:
    async def work(runtime: Runtime) -> None:
        one, two = await runtime.image("a"), await runtime.image("b")
        assert (await one.send("hi", key="k")).status == "succeeded"
        with pytest.raises(KeyReused):
            await two.send("hi", key="k").result(5)

    run(work)


def test_iterating_says_when_the_runtime_was_closed_before_the_end() -> None:
    async def work() -> None:
        opened = await runtime(models=Models({"scripted": Gate()})).open()
        heard = Heard(opened)
        bot = await opened.image("support")
        job = await bot.send("hi").run()
        watching = asyncio.ensure_future(_types(job))
        await heard.until("text_delta")
        await opened.close()
        with pytest.raises(Closed):
            await watching
        with pytest.raises(Closed, match="make another"):
            await opened.open()

    asyncio.run(work())


@pytest.mark.parametrize(
    "wrong",
    [
        {"priority": 2**70},
        {"timeout_s": float("inf")},
        {"timeout_s": float("nan")},
        {"timeout_s": -1},
        {"params": ModelParams(temperature=float("nan"))},
        {"key": "\ud800"},
        {"key": 5},
        {"model": "scripted:\ud800"},
    ],
)
def test_what_cannot_be_meant_is_refused_by_name_before_anything_is_stored(wrong: dict[str, Any]) -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        before = runtime.log.position
        with pytest.raises(BadInput):
            await bot.send("hi", **wrong)
        assert runtime.log.position == before

    run(work)


def test_a_thousand_queued_messages_cost_no_more_each_than_a_hundred() -> None:
    """Fails where every event goes to every run of its session."""

    async def work(runtime: Runtime) -> None:
        from reenact.run import Run

        bot = await runtime.image("support")
        seen = [0]
        see = Run.see

        def count(self: Run, event: Any) -> None:
            seen[0] += 1
            see(self, event)

        Run.see = count  # type: ignore[method-assign]
        try:
            await asyncio.gather(*(bot.send("hi") for _ in range(300)))
        finally:
            Run.see = see  # type: ignore[method-assign]
        assert seen[0] <= 300 * 30

    run(work)


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
