"""Approval handlers: code of the program that is asked before a person is, and says yes, or no in any other way."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Any

import pytest

from reenact import ModelPolicy, Policy, Runtime
from reenact.adapters.models import Models
from reenact.adapters.models.scripted import Scripted
from reenact.events.errors import BadInput, DiskFull
from reenact.events.log import MemoryStore
from reenact.projections.audit import AuditFilter, AuditLog
from tests.askers import REFUND, done, refund, waiting
from tests.runtimes import Heard, run

free: list[asyncio.Event] = []


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    done.clear()


def test_a_handler_that_says_yes_lets_the_call_run_and_the_run_does_not_end_before() -> None:
    asked: list[Any] = []

    async def yes(request: Any) -> bool:
        asked.append(request)
        return True

    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        result = await bot.send("Refund order 42", approval_handler=yes)
        assert (result.status, result.text, done) == ("succeeded", "Done.", ["42"])
        [request] = asked
        assert (request.tool_id, request.params, request.reason) == ("refund", {"order": "42"}, "tool")
        assert "refund" in request.text and request.expires_at > request.timestamp
        assert (await runtime.action(request.id)).by == "handler:yes"
        audit = AuditLog()
        for recorded in await bot.events():
            audit.apply(recorded)
        [approved] = audit.query(AuditFilter(types=("tool.approved",)))
        assert approved.context["approver"] == "handler:yes", "it tells code from a person"

    run(work, REFUND, repeat=False, tools=[refund])


def raises(request: Any) -> bool:
    raise ValueError("secret detail")


async def hangs(request: Any) -> bool:
    await asyncio.Event().wait()
    return True


async def hangs_on(request: Any) -> bool:
    while True:
        with suppress(asyncio.CancelledError):
            await free[0].wait()
            return True


def hangs_in_a_thread(request: Any) -> bool:
    return threading.Event().wait(30)


def cancels(request: Any) -> bool:
    raise asyncio.CancelledError


async def cancels_its_task(request: Any) -> bool:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)
    return True


def leaves(request: Any) -> bool:
    raise SystemExit(3)


class Later:
    def __await__(self) -> Any:
        raise GeneratorExit
        yield


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (lambda request: False, ""),
        (lambda request: None, "gave no answer, but NoneType"),
        (lambda request: "no", "gave no answer, but str"),
        (lambda request: 1, "gave no answer, but int"),
        (raises, "failed: ValueError"),
        (cancels, "failed: CancelledError"),
        (cancels_its_task, "failed: CancelledError"),
        (leaves, "failed: SystemExit"),
        (lambda request: Later(), "failed: GeneratorExit"),
        (hangs, "did not answer in 0.1 seconds"),
        (hangs_on, "did not answer in 0.1 seconds"),
        (hangs_in_a_thread, "did not answer in 0.1 seconds"),
    ],
    ids=lambda case: getattr(case, "__name__", case) if callable(case) else "",
)
def test_whatever_else_a_handler_says_is_no_and_is_recorded_as_its_word(
    handler: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In a time of its own, which is not the question's: a person who is asked has a day."""

    async def work(runtime: Runtime) -> None:
        free[:] = [asyncio.Event()]
        bot = await runtime.image("support")
        result = await bot.send("Refund order 42", approval_handler=handler)
        assert (result.status, done) == ("succeeded", [])
        [settled] = [event.data for event in await bot.events() if event.type == "tool_settled"]
        assert settled.outcome == "denied" and words in settled.output and "secret detail" not in settled.output
        assert "approval handler of the program did not allow" in settled.output and "person" not in settled.output
        action = await runtime.action(f"{bot.session_id}:a1")
        assert action.status == "resolved" and action.by.startswith("handler")
        assert action.resolution is not None and action.resolution["approved"] is False
        assert (await runtime.replay(bot.session_id)).identical
        free[0].set()

    run(work, REFUND, repeat=False, tools=[refund], handler_timeout_s=0.1)
    assert bool(words) == ("the approval handler" in caplog.text), "what went wrong is logged"


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), True, "10", None])
def test_a_time_for_handlers_that_is_none_is_refused(seconds: Any) -> None:
    with pytest.raises(BadInput, match="handler_timeout_s"):
        Runtime(handler_timeout_s=seconds)


def test_the_end_of_the_question_comes_before_that_of_the_handler() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support", approval_timeout_s=0.2)
        assert (await bot.send("Refund order 42", approval_handler=hangs)).status == "succeeded"
        assert (await runtime.action(f"{bot.session_id}:a1")).status == "expired" and not done

    run(work, REFUND, repeat=False, tools=[refund])


def test_a_handler_that_blocks_holds_up_nobody_and_is_asked_one_question_at_a_time() -> None:
    inside, most, began, free = [0], [0], threading.Event(), threading.Event()

    def blocks(request: Any) -> bool:
        began.set()
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        freed = free.wait(10)
        inside[0] -= 1
        return freed

    async def work(runtime: Runtime) -> None:
        bot, other = await runtime.image("support"), await runtime.image("other", model="scripted:other")
        sent = await bot.send("go", approval_handler=blocks).run()
        assert await asyncio.to_thread(began.wait, 10)
        assert (await other.send("hi")).text == "Hello."
        free.set()
        assert ((await sent).status, sorted(done), most) == ("succeeded", ["1", "2"], [1])

    calls = [{"name": "refund", "input": {"order": order}} for order in ("1", "2")]
    steps = {"any": [{"tool_calls": calls}, {"text": "Done."}], "other": [{"text": "Hello."}]}
    run(work, models=Models({"scripted": Several(steps)}), tools=[refund])


class Several:
    """Scripts by the name of the model."""

    def __init__(self, steps: dict[str, Any]) -> None:
        self.models = {name: Scripted(each, repeat=False) for name, each in steps.items()}

    def stream(self, request: Any) -> Any:
        return self.models[request.model].stream(request)


def test_a_handler_is_not_asked_about_models() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        result = await bot.send("Refund order 42", approval_handler=lambda request: True)
        assert (result.status, result.action, result.waiting_for) == ("waiting", f"{bot.session_id}:a1", None)
        await runtime.resolve_action(result.action or "", True)

    gated = Policy(name="house", rules=(ModelPolicy(model_patterns=("*",), decision="require_approval"),))
    run(work, REFUND, repeat=False, tools=[refund], policy=gated)


def test_what_a_handler_says_and_nobody_can_record_is_left_to_a_person() -> None:
    async def work(runtime: Runtime) -> None:
        async def yes(request: Any) -> bool:
            runtime._policies.layers = full  # type: ignore[method-assign]
            return True

        def full(state: Any) -> Any:
            raise DiskFull

        bot = await runtime.image("support")
        result = await bot.send("Refund order 42", approval_handler=yes)
        assert (result.status, result.action, done) == ("waiting", f"{bot.session_id}:a1", [])

    run(work, REFUND, repeat=False, tools=[refund])


def test_the_handler_of_a_runtime_decides_for_all_and_for_what_waits_from_before() -> None:
    store = MemoryStore()

    async def before(runtime: Runtime) -> str:
        return (await waiting(runtime))[0].session_id

    async def after(runtime: Runtime) -> None:
        heard = Heard(runtime)
        if not done:
            await heard.until("tool_settled")
        assert done == ["42"]

    run(before, REFUND, repeat=False, store=store, tools=[refund])
    run(after, REFUND[1:], repeat=False, store=store, tools=[refund], approval_handler=lambda request: True)


def test_the_handler_of_a_message_that_comes_again_decides_what_waits_from_before() -> None:
    store = MemoryStore()
    asked: list[str] = []

    async def before(runtime: Runtime) -> None:
        assert (await (await runtime.image("support")).send("Refund order 42", key="k")).status == "waiting"

    async def after(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        result = await bot.send("Refund order 42", key="k", approval_handler=lambda each: not asked.append(each.id))
        assert (result.status, done, asked) == ("succeeded", ["42"], [f"{bot.session_id}:a1"])
        assert (await bot.send("Refund order 42", key="k", approval_handler=raises)).status == "succeeded"

    run(before, REFUND, repeat=False, store=store, tools=[refund])
    run(after, REFUND[1:], repeat=False, store=store, tools=[refund])
