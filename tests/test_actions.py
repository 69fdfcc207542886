"""Calls that wait for approval, over a whole runtime: asked about, approved, denied, expired, over restarts."""

from __future__ import annotations

import asyncio

import pytest

from reenact import Runtime, tool
from reenact.actors.clock import ManualClock
from reenact.events.errors import ActionChanged, ActionLate, ActionOver, BadInput, BadResolution, NotFound
from reenact.events.log import MemoryStore
from tests.askers import REFUND, done, refund, waiting
from tests.runtimes import Heard, run


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    done.clear()


def test_a_call_that_needs_approval_waits_and_runs_once_it_is_approved() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        sent = await bot.send("Refund order 42").run()
        result = await sent
        assert result.status == "waiting" and not done
        [action] = await runtime.actions()
        assert (action.id, action.type, action.status, action.job_id) == (
            result.action,
            "approval",
            "pending",
            sent.job_id,
        )
        assert action.call is not None and action.call.arguments == {"order": "42"} and action.call.name == "refund"
        assert await runtime.actions(bot.session_id) == [action] == [await runtime.action(action.id)]
        resolved = await runtime.resolve_action(action.id, True, digest=action.digest)
        assert (resolved.status, resolved.resolution, resolved.by) == ("resolved", {"approved": True}, "user")
        assert (await sent).text == "Done." and done == ["42"]
        assert await runtime.actions() == []
        assert (await runtime.replay(bot.session_id)).identical

    run(work, REFUND, repeat=False, tools=[refund])


def test_denied_it_does_not_run_and_the_model_is_told() -> None:
    async def work(runtime: Runtime) -> None:
        bot, action = await waiting(runtime)
        heard = Heard(runtime)
        await runtime.resolve_action(action, False, comment="too much")
        await heard.until("job_succeeded")
        assert not done
        result = next(message for message in await bot.messages() if message.role == "tool")
        assert "too much" in result.content[0].output.value and result.content[0].output.type == "execution-denied"
        assert (await runtime.replay(bot.session_id)).identical

    run(work, REFUND, repeat=False, tools=[refund])


def test_it_waits_over_restarts_without_a_thread_and_is_answered_by_the_next_owner() -> None:
    store = MemoryStore()

    async def before(runtime: Runtime) -> str:
        return (await waiting(runtime))[1]

    async def after(runtime: Runtime) -> None:
        heard = Heard(runtime)
        [found] = await runtime.actions()
        assert found.id == action
        for _ in range(10_000):  # it is taken up when its agent is held to the rules of now
            if runtime._kernel.dispatch.under_way:
                break
            await asyncio.sleep(0)
        assert runtime._kernel.dispatch.under_way == 1, "its end in time, and nothing else"
        await runtime.resolve_action(action, True)
        await heard.until("job_succeeded")
        assert done == ["42"]

    action = run(before, REFUND, repeat=False, store=store, tools=[refund])
    run(after, REFUND[1:], repeat=False, store=store, tools=[refund])


def test_a_disarmed_runtime_records_what_is_said_and_does_nothing() -> None:
    store = MemoryStore()

    async def before(runtime: Runtime) -> str:
        return (await waiting(runtime))[1]

    async def between(runtime: Runtime) -> None:
        assert (await runtime.resolve_action(action, True)).status == "resolved"
        assert runtime._kernel.dispatch.under_way == 0 and not done

    async def after(runtime: Runtime) -> None:
        heard = Heard(runtime)
        if not done:
            await heard.until("job_succeeded")
        assert done == ["42"]

    action = run(before, REFUND, repeat=False, store=store, tools=[refund])
    run(between, store=store, armed=False)
    assert not done
    run(after, REFUND[1:], repeat=False, store=store, tools=[refund])


def test_a_call_whose_tool_is_another_by_then_is_not_run() -> None:
    @tool(name="refund", effect="idempotent", approval="ask")
    def other(order: str, urgent: bool = False) -> str:
        """Refund an order, now with urgency."""
        raise AssertionError

    store = MemoryStore()

    async def before(runtime: Runtime) -> str:
        return (await waiting(runtime))[1]

    async def after(runtime: Runtime) -> None:
        heard = Heard(runtime)
        await runtime.resolve_action(action, True)
        await heard.until("job_succeeded")
        [settled] = heard.of("tool_settled")
        assert settled.data.outcome == "denied" and "another version" in settled.data.output

    action = run(before, REFUND, repeat=False, store=store, tools=[refund])
    run(after, REFUND[1:], repeat=False, store=store, tools=[other])


def test_of_a_hundred_who_approve_and_deny_at_once_one_decides() -> None:
    async def work(runtime: Runtime) -> None:
        _bot, action = await waiting(runtime)
        heard = Heard(runtime)
        tries = (runtime.resolve_action(action, bool(n % 2)) for n in range(100))
        said = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(not isinstance(each, BaseException) for each in said) == 1
        assert all(isinstance(each, ActionOver) for each in said if isinstance(each, BaseException))
        await heard.until("job_succeeded")
        assert len(heard.of("action_resolved")) == 1 and len(done) <= 1

    run(work, REFUND, repeat=False, tools=[refund])


def test_what_is_no_answer_is_refused_and_the_question_stays() -> None:
    async def work(runtime: Runtime) -> None:
        bot, action = await waiting(runtime)
        with pytest.raises(BadResolution):
            await runtime.resolve_action(action, {"approved": "yes"})
        with pytest.raises(BadResolution, match="always"):
            await runtime.resolve_action(action, True, always="class")
        with pytest.raises(BadResolution, match="cannot run"):
            await runtime.resolve_action(action, True, arguments={"ordr": "43"})
        with pytest.raises(ActionChanged):
            await runtime.resolve_action(action, True, digest="sha256:0")
        with pytest.raises(BadInput):
            await runtime.resolve_action("a1", True)
        with pytest.raises(NotFound):
            await runtime.resolve_action(f"{bot.session_id}:a2", True)
        with pytest.raises(NotFound):
            await runtime.resolve_action("sess_none:a1", True)
        assert [each.id for each in await runtime.actions()] == [action] and not done

    run(work, REFUND, repeat=False, tools=[refund])


def test_arguments_that_a_person_changed_are_what_runs() -> None:
    async def work(runtime: Runtime) -> None:
        bot, action = await waiting(runtime)
        heard = Heard(runtime)
        await runtime.resolve_action(action, True, arguments={"order": "43"})
        await heard.until("job_succeeded")
        assert done == ["43"]
        assert (await runtime.replay(bot.session_id)).identical

    run(work, REFUND, repeat=False, tools=[refund])


def test_arguments_with_a_secret_in_them_are_refused_for_they_are_not_what_would_run() -> None:
    async def work(runtime: Runtime) -> None:
        runtime.secret("account", "DE02120300000000202051")
        runtime.secret("pin", "471123")
        heard, (_, action) = Heard(runtime), await waiting(runtime)
        for order in ("DE02120300000000202051", "to DE02120300000000202051", 471123, ["471123"]):
            with pytest.raises(BadResolution, match="There is a secret in these arguments") as refused:
                await runtime.resolve_action(action, True, arguments={"order": order})
            assert "DE02" not in str(refused.value)
        assert (await runtime.action(action)).status == "pending"
        await runtime.resolve_action(action, True, arguments={"order": "[secret:account]"})
        await heard.until("job_succeeded")
        assert done == ["[secret:account]"], "as it was written"

    run(work, REFUND, tools=[refund])


def test_a_leave_for_one_principal_s_job_is_for_no_other_s_in_the_same_session() -> None:
    async def work(runtime: Runtime) -> None:
        heard, bot = Heard(runtime), await runtime.image("support")
        alice, bob = [await runtime.scoped(principal=each).open_image(bot.id) for each in ("alice", "bob")]
        asked = await alice.send("Refund order 42")
        await runtime.resolve_action(asked.action, True, always="exact")
        await heard.until("job_succeeded")
        asked = await bob.send("Refund order 42")
        assert asked.status == "waiting" and done == ["42"]
        await runtime.resolve_action(asked.action, False)
        await heard.until("job_succeeded", 2)
        assert (await alice.send("Refund order 42")).status == "succeeded" and done == ["42", "42"]
        assert (await runtime.replay(bot.session_id)).identical

    run(work, REFUND, repeat=True, tools=[refund])


def test_a_leave_for_calls_to_come_ends_when_approval_is_required() -> None:
    async def work(runtime: Runtime) -> None:
        heard, bot = Heard(runtime), await runtime.image("support")
        asked = await bot.send("Refund order 42")
        await runtime.resolve_action(asked.action, True, always="exact")
        await heard.until("job_succeeded")
        assert (await bot.send("Refund order 42")).status == "succeeded" and done == ["42", "42"]
        await runtime.image("support", approval_required=True)
        assert (await bot.send("Refund order 42")).status == "waiting" and done == ["42", "42"]
        assert (await runtime.replay(bot.session_id)).identical

    run(work, REFUND, repeat=True, tools=[refund])


def test_the_model_is_told_that_a_person_changed_the_arguments() -> None:
    async def work(runtime: Runtime) -> None:
        bot, action = await waiting(runtime)
        heard = Heard(runtime)
        await runtime.resolve_action(action, True, arguments={"order": "43"})
        await heard.until("job_succeeded")
        session = await runtime._kernel.telling.session(f"session-{bot.session_id}")
        results = [item for item in session.context.render(10_000) if hasattr(item, "results")]
        said = results[0].results[0].output
        assert 'ran with: {"order":"43"}' in said and said.endswith("refunded 43")

    run(work, REFUND, repeat=False, tools=[refund])


def test_an_expired_question_is_no() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support", approval_timeout_s=0.05)
        result = await bot.send("Refund order 42")
        heard = Heard(runtime)
        if result.status == "waiting":
            await heard.until("job_succeeded")
        assert not done
        with pytest.raises(ActionOver):
            await runtime.resolve_action(f"{bot.session_id}:a1", True)
        assert (await runtime.action(f"{bot.session_id}:a1")).status == "expired"

    run(work, REFUND, repeat=False, tools=[refund])


def test_it_expires_also_when_its_time_ran_out_while_nobody_owned_the_log() -> None:
    store, clock = MemoryStore(), ManualClock()

    async def before(runtime: Runtime) -> str:
        return (await waiting(runtime))[1]

    async def after(runtime: Runtime) -> None:
        async for recorded in runtime.follow():
            if recorded.type == "job_succeeded":
                break
        assert (await runtime.action(action)).status == "expired" and not done
        with pytest.raises(ActionOver):
            await runtime.resolve_action(action, True)

    action = run(before, REFUND[:1], repeat=False, store=store, clock=clock, tools=[refund])
    clock.move(s=8 * 24 * 3600)
    run(after, REFUND[1:], repeat=False, store=store, clock=clock, tools=[refund])


def test_a_late_answer_is_told_and_recorded() -> None:
    async def work(runtime: Runtime) -> None:
        _bot, action = await waiting(runtime)
        now = runtime.clock.now
        runtime.clock.now = lambda: now() + 25 * 3600 * 1_000_000  # type: ignore[method-assign]
        heard = Heard(runtime)
        with pytest.raises(ActionLate):
            await runtime.resolve_action(action, True)
        await heard.until("action_expired")
        assert not done

    run(work, REFUND, repeat=False, tools=[refund])


def test_an_image_may_ask_before_every_call() -> None:
    @tool(effect="read")
    def look(n: int) -> str:
        """Look."""
        return "seen"

    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support", approval_required=True)
        assert (await bot.send("look")).status == "waiting"

    run(work, [{"tool_calls": [{"name": "look", "input": {"n": 1}}]}, {"text": "."}], repeat=False, tools=[look])


def test_a_run_that_joins_an_earlier_job_is_not_told_of_a_question_that_is_over() -> None:
    store = MemoryStore()

    async def before(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        sent = await bot.send("Refund order 42", key="k").run()
        await runtime.resolve_action((await sent).action or "", True)
        assert (await sent).status == "succeeded"

    async def after(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        again = await bot.send("Refund order 42", key="k")
        assert (again.status, again.action) == ("succeeded", None)

    run(before, REFUND, repeat=False, store=store, tools=[refund])
    run(after, store=store, tools=[refund])


def test_the_bus_lists_shows_answers_and_takes_back() -> None:
    async def work(runtime: Runtime) -> None:
        bot, action = await waiting(runtime)
        listed = (await runtime.request("action_list_request", {"sessionId": bot.session_id})).data
        assert [each["id"] for each in listed.actions] == [action]
        shown = (await runtime.request("action_get_request", {"actionId": action})).data
        assert "refund" in shown.text and shown.action.call.arguments == {"order": "42"}
        bad = await runtime.request("action_resolve_request", {"actionId": action, "resolution": {"approved": "x"}})
        assert "approved" in bad.data.error
        heard = Heard(runtime)
        answer = {"actionId": action, "resolution": {"approved": True}, "digest": shown.action.digest}
        resolved = (await runtime.request("action_resolve_request", answer)).data
        assert resolved.error is None and resolved.action.status == "resolved"
        await heard.until("job_succeeded")
        assert done == ["42"]
        again = await runtime.request("action_resolve_request", answer)
        assert "over" in again.data.error
        cancelled = await runtime.request("action_cancel_request", {"actionId": action})
        assert cancelled.data.error is None and cancelled.data.action.status == "resolved", "it was too late"

    run(work, REFUND, repeat=False, tools=[refund])
