"""A run that waits for a person: what it ends before it says so, what goes on beside it, and who waits behind it."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from reenact import Runtime, ToolContext, tool
from reenact.events.log import MemoryStore
from reenact.run import Run
from tests.runtimes import Heard, run

done: list[str] = []


class Slow:
    """A tool that may not be repeated, and ends when it is let."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.let = asyncio.Event()

        @tool(effect="unsafe")
        async def slow() -> str:
            """Take a while."""
            done.append("began")
            self.begun.set()
            await self.let.wait()
            done.append("ended")
            return "slow is done"

        self.tool = slow


@tool(effect="unsafe", approval="ask")
async def refund(order: str) -> str:
    """Refund an order."""
    done.append(f"began {order}")
    for _ in range(50):
        await asyncio.sleep(0)
    done.append(f"refunded {order}")
    return f"refunded {order}"


def asks(*calls: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"tool_calls": [{"name": name, "input": given} for name, given in calls]}, {"text": "Done."}]


ONE = asks(("refund", {"order": "1"}))
TWO = asks(("refund", {"order": "1"}), ("refund", {"order": "2"}))
BESIDE = asks(("refund", {"order": "1"}), ("slow", {}))


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    done.clear()


async def rests() -> None:
    """Whatever can go on by itself has gone on."""
    for _ in range(200):
        await asyncio.sleep(0)


async def types_of(sent: Run) -> list[str]:
    return [event.type async for event in sent.events()]


# -- what was begun ends first --


@pytest.mark.parametrize("steps", [BESIDE, asks(("slow", {}), ("refund", {"order": "1"}))], ids=["before", "behind"])
def test_a_run_says_that_it_waits_when_what_was_begun_beside_it_has_ended(steps: Any) -> None:
    store, slow = MemoryStore(), Slow()

    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        heard = Heard(runtime)
        sent = await bot.send("go").run()
        result, read = asyncio.ensure_future(sent.result()), asyncio.ensure_future(types_of(sent))
        await slow.begun.wait()
        await heard.until("job_waiting")
        await rests()
        assert not result.done() and not read.done(), "a call of its own is under way"
        slow.let.set()
        ended = await result
        assert (ended.status, ended.action) == ("waiting", f"{bot.session_id}:a1")
        assert (await read)[-1] == "tool_settled"

    async def after(runtime: Runtime) -> None:
        [action] = await runtime.actions()
        assert "tool_doubted" not in [event.type for event in await runtime.events(action.session_id)]

    run(work, steps, repeat=False, store=store, tools=[refund, slow.tool])
    assert done == ["began", "ended"]
    run(after, steps[1:], repeat=False, store=store, tools=[refund, slow.tool])


@pytest.mark.parametrize("number", [1, 2])
def test_what_a_person_just_approved_ends_before_the_run_waits_for_the_next_answer(number: int) -> None:
    """Also where they answer another question than the one that the job was said to wait for."""
    store = MemoryStore()

    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        sent = await bot.send("go").run()
        assert (await sent).action == f"{bot.session_id}:a1"
        await runtime.resolve_action(f"{bot.session_id}:a{number}", True)
        result = await sent
        assert (result.status, result.action) == ("waiting", f"{bot.session_id}:a{3 - number}")

    run(work, TWO, repeat=False, store=store, tools=[refund])
    assert done == [f"began {number}", f"refunded {number}"], "closing cut nothing off"


def test_a_call_that_asks_a_person_itself_waits_too() -> None:
    @tool(effect="idempotent")
    async def ask(context: ToolContext) -> str:
        """Ask."""
        action = await context.actions.require_action({"type": "confirm", "job_id": context.job_id})
        await context.actions.wait_for_resolution(action.action_id)
        return "asked"

    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        result = await bot.send("go")
        assert (result.status, result.waiting_for, result.action) == ("waiting", "t1", f"{bot.session_id}:a1")

    run(work, asks(("ask", {})), repeat=False, tools=[ask])


def test_a_call_that_puts_a_question_and_works_on_is_not_waited_for_by_a_person_before_it_waits_itself() -> None:
    work_on = asyncio.Event()
    put = asyncio.Event()

    @tool(effect="unsafe")
    async def ask(context: ToolContext) -> str:
        """Ask, work on, and wait then."""
        action = await context.actions.require_action({"type": "confirm", "job_id": context.job_id})
        put.set()
        await work_on.wait()
        done.append("worked on")
        await context.actions.wait_for_resolution(action.action_id)
        await asyncio.sleep(0)
        done.append("went on")
        return "asked"

    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        sent = await bot.send("go").run()
        result = asyncio.ensure_future(sent.result())
        await put.wait()
        await rests()
        assert not result.done() and not done
        work_on.set()
        waiting = await result
        assert (waiting.status, waiting.waiting_for, done) == ("waiting", "t1", ["worked on"])
        await runtime.resolve_action(f"{bot.session_id}:a1", True)
        assert (await sent.result()).status == "succeeded" and done == ["worked on", "went on"]

    run(work, asks(("ask", {})), repeat=False, tools=[ask])


def test_a_run_that_comes_again_with_its_key_waits_for_what_goes_on_meanwhile() -> None:
    """One was approved while nobody was there: the program that comes next runs it, and then waits for the other."""
    store = MemoryStore()

    async def before(runtime: Runtime) -> None:
        assert (await (await runtime.image("support")).send("go", key="k")).status == "waiting"

    async def between(runtime: Runtime) -> None:
        await runtime.resolve_action((await runtime.actions())[1].id, True)
        await rests()

    async def after(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        result = await bot.send("go", key="k")
        assert (result.status, result.action) == ("waiting", f"{bot.session_id}:a1")
        assert done == ["began 2", "refunded 2"]
        assert await bot.send("go", key="k") == result, "and at once where nothing goes on"

    run(before, TWO, repeat=False, store=store, tools=[refund])
    run(between, TWO, store=store, tools=[refund], armed=False)
    assert not done
    run(after, TWO[1:], repeat=False, store=store, tools=[refund])


def test_a_runtime_that_takes_nothing_up_says_at_once_that_it_waits() -> None:
    store = MemoryStore()

    async def before(runtime: Runtime) -> None:
        await (await runtime.image("support")).send("go", key="k")

    async def again(runtime: Runtime) -> None:
        assert (await (await runtime.image("support")).send("go", key="k")).status == "waiting"

    run(before, ONE, repeat=False, store=store, tools=[refund])
    run(again, ONE, store=store, tools=[refund], recover=False)
    run(again, ONE, store=store, tools=[refund], armed=False)


# -- who waits behind it --


def test_a_message_behind_a_job_that_waits_is_queued_says_for_what_and_is_answered_after_it() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        first = await bot.send("go").run()
        waits = await first
        second = await bot.send("and then?").run()
        result = await second
        assert (result.status, result.action, result.waiting_for) == ("queued", waits.action, "t1")
        assert await types_of(second) == ["job_queued"]
        third = await bot.send("and then?").run()
        assert (await third).status == "queued"
        await runtime.resolve_action(waits.action or "", True)
        assert [(await each).status for each in (first, second, third)] == ["succeeded"] * 3

    run(work, [*ONE, {"text": "Then."}, {"text": "Then."}], repeat=False, tools=[refund])


def test_so_it_is_with_one_that_was_there_before_and_where_a_call_is_in_doubt() -> None:
    store, slow = MemoryStore(), Slow()

    async def before(runtime: Runtime) -> None:
        heard = Heard(runtime)
        asking = asyncio.ensure_future((await (await runtime.image("support")).send("go").run()).accepted())
        await heard.until("job_waiting")
        await slow.begun.wait()
        await asking  # and it is closed while the slow call is under way

    async def after(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        result = await bot.send("and then?")
        assert (result.status, result.action) == ("queued", f"{bot.session_id}:a1")
        await runtime.resolve_action(result.action or "", False)
        result = await bot.send("and then?")
        assert (result.status, result.action, result.waiting_for) == ("queued", None, "t2")
        third = await bot.send("and then?").run()
        assert (await third).status == "queued"
        await runtime.resolve(bot.session_id, "t2", "ok", "it was")
        assert (await third).status == "succeeded"

    run(before, BESIDE, repeat=False, store=store, tools=[refund, slow.tool])
    run(after, [BESIDE[1], *[{"text": "Then."}] * 3], repeat=False, store=store, tools=[refund, slow.tool])


def test_a_message_that_waits_behind_a_job_that_works_hears_when_that_comes_to_wait() -> None:
    slow = Slow()

    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        await bot.send("go").run()
        await slow.begun.wait()
        second = asyncio.ensure_future(bot.send("and then?").result())
        await rests()
        assert not second.done(), "it may be its turn soon"
        slow.let.set()
        assert (await second).status == "queued"

    run(work, BESIDE, repeat=False, tools=[refund, slow.tool])


def test_an_interrupt_of_a_job_that_waits_takes_its_questions_back_and_the_next_has_its_turn() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        first = await bot.send("go").run()
        assert (await first).status == "waiting"
        second = await bot.send("and then?").run()
        assert (await second).status == "queued"
        await bot.interrupt()
        assert ((await first).status, (await second).status) == ("cancelled", "succeeded")
        assert await runtime.actions() == [] and not done
        assert {action.status for action in await runtime.all_actions()} == {"cancelled"}

    run(work, [TWO[0], {"text": "Then."}], repeat=False, tools=[refund])


def test_a_queued_message_is_taken_out_or_comes_first_while_another_waits() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        waits = await bot.send("go")
        sent = [await bot.send("then", priority=number).run() for number in (0, 1, 2)]
        assert [(await each).status for each in sent] == ["queued"] * 3
        await runtime.cancel(bot.session_id, sent[1].job_id)
        assert (await sent[1]).status == "cancelled"
        heard = Heard(runtime)
        await runtime.resolve_action(waits.action or "", True)
        assert [(await each).status for each in (sent[0], sent[2])] == ["succeeded"] * 2
        assert [event.data.job_id for event in heard.of("job_started")] == [sent[2].job_id, sent[0].job_id]

    run(work, [*ONE, {"text": "Then."}, {"text": "Then."}], repeat=False, tools=[refund])


# -- and over any history --


class Gated:
    """Calls that run until they are let, by their number; and how a session stands, judged by its events alone."""

    def __init__(self) -> None:
        self.let: dict[int, asyncio.Event] = {}

        @tool(effect="unsafe")
        async def gated(n: int) -> str:
            """Run until it is let."""
            await self.let.setdefault(n, asyncio.Event()).wait()
            return "let"

        self.tool = gated

    def judge(self, events: list[Any]) -> tuple[bool, bool, dict[str, str]]:
        """Whether all rests that can go on by itself, whether its job waits for a person and for nothing else, and how
        its jobs ended."""
        parts: dict[str, Any] = {}
        calls: dict[str, tuple[str, Any]] = {}  # those that are not over: how they stand, what they were asked for
        asked: dict[str, str] = {}
        thinking, stopping = False, False
        running: str | None = None
        ends: dict[str, str] = {}
        for event in events:
            data = event.data
            match event.type:
                case "model_called" | "model_answered":
                    thinking = event.type == "model_called"
                    parts = {} if thinking else {f"{data.call} {place}": part for place, part in enumerate(data.parts)}
                case "tool_requested":
                    calls[data.tool] = "asked", parts[f"{data.call} {data.part}"]
                case "action_required":
                    asked[data.action] = data.tool
                    calls[data.tool] = "waits", calls[data.tool][1]
                case "action_resolved" | "tool_authorised" | "tool_started":
                    name = asked[data.action] if event.type == "action_resolved" else data.tool
                    calls[name] = event.type, calls[name][1]
                case "tool_settled":
                    calls.pop(data.tool)
                case "job_stopping":
                    stopping = True
                case "job_started":
                    running, stopping = data.job_id, False
                case "job_succeeded" | "job_cancelled":
                    ends[data.job_id] = event.type.removeprefix("job_")
                    running, stopping = (None, False) if running == data.job_id else (running, stopping)
        gated = [how == "tool_started" and self._is_shut(part) for how, part in calls.values()]
        waits = [how == "waits" for how, _ in calls.values()]
        rests = not (thinking or stopping) and all(map(max, gated, waits)) and (running is None or bool(calls))
        return rests, running is not None and any(waits) and not any(gated), ends

    def _is_shut(self, call: Any) -> bool:
        return call.name == "gated" and not self.let.setdefault(call.input["n"], asyncio.Event()).is_set()


@pytest.mark.parametrize("seed", range(30))
def test_whatever_is_sent_answered_and_ended_in_any_order_a_run_has_a_result_exactly_when_nothing_goes_on(
    seed: int,
) -> None:
    chance, gates = random.Random(seed), Gated()
    steps: list[dict[str, Any]] = []
    for number in range(3):
        names = [chance.choice(["refund", "refund", "gated"]) for _ in range(chance.randint(1, 4))]
        calls = [
            {"name": name, "input": {"order": "1"} if name == "refund" else {"n": number * 10 + place}}
            for place, name in enumerate(names)
        ]
        steps += [{"tool_calls": calls}, {"text": "Done."}]

    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        runs: list[Run] = []
        left = ["send"] * 3 + ["answer", "let"] * 12 + ["interrupt"] * chance.randint(0, 1)
        chance.shuffle(left)
        for act in ["send", *left]:
            actions = await runtime.actions(bot.session_id)
            closed = [gate for gate in gates.let.values() if not gate.is_set()]
            if act == "send" and len(runs) < 3:
                runs.append(await bot.send("go").run())
                await runs[-1].accepted()
            elif act == "answer" and actions:
                await runtime.resolve_action(chance.choice(actions).id, chance.random() < 0.7)
            elif act == "let" and closed:
                chance.choice(closed).set()
            elif act == "interrupt":
                await bot.interrupt()
            rests, halted, ends = gates.judge(await bot.events())
            while not rests:
                await asyncio.sleep(0)
                rests, halted, ends = gates.judge(await bot.events())
            await runtime.session_state(bot.session_id)  # all that is in the log was told by now
            working = [sent for sent in runs if sent.job_id not in ends]
            for sent in runs:
                expected = ends.get(sent.job_id, ("waiting" if sent is working[0] else "queued") if halted else None)
                assert sent.over == (expected is not None), (seed, act, expected)
                assert expected is None or (await sent).status == expected, (seed, act)

    run(work, steps, repeat=False, tools=[refund, gates.tool])
