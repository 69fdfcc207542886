"""A runtime whose models fail: whom it asks next, what it records of it, what a kill in the middle leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from reenact import CooldownTimes, Failover, ModelPolicy, Policy
from reenact.actors.clock import ManualClock
from reenact.adapters.models import Models, Retries, RetryPolicy
from reenact.adapters.models.scripted import Scripted
from reenact.events.agent import ModelFailed
from reenact.events.codec import unpack
from reenact.events.content import Text
from reenact.events.errors import BadInput
from reenact.events.log import MemoryLog, MemoryStore
from reenact.events.message import Signal
from reenact.events.model import ModelAnswer, ModelRequest
from reenact.projections.audit import records
from reenact.runtime import Runtime
from tests.providers import A, B, C, Provider, called, identical, notes, opened, play, selections
from tests.runtimes import Gate, Heard, runtime


def test_what_a_session_selects_first_is_recorded_once_before_it_is_asked_and_nothing_where_there_is_no_choice() -> (
    None
):
    async def turns(of: Runtime) -> list[list[str]]:
        bot = await of.image("x")
        found = []
        for _ in range(2):
            before = len(await bot.events())
            await bot.send("hi")
            found.append([event.type for event in (await bot.events())[before:]])
        assert notes(await bot.events()) == ([(A, "primary", None)] if "model_selected" in found[0] else [])
        await identical(of, bot.session_id)
        return found

    first, second = play(turns, Provider())
    plain = play(turns, Provider(), default_agent={"model": A})
    assert first.index("model_called") + 1 == first.index("model_selected") < first.index("model_answered")
    assert [[each for each in first if each != "model_selected"], second] == plain


def test_when_a_model_does_not_answer_the_next_one_does_and_the_session_stays_with_it() -> None:
    provider = Provider(a="auth")

    async def work(of: Runtime) -> None:
        bot = await of.image("x")
        first = await bot.send("one")
        assert (first.status, first.text) == ("succeeded", "I am b.")
        assert (await bot.send("two")).text == "I am b."
        events = await bot.events()
        assert selections(events) == [(B, "fallback", "auth")]
        assert called(events) == [A, B, B]
        assert provider.models == ["a", "b", "b"]  # while it cools nobody asks it
        await identical(of, bot.session_id)

    play(work, provider)


@pytest.mark.parametrize("yes", [True, False])
def test_a_fallback_under_a_rule_that_asks_is_asked_about_before_it_is_called(yes: bool) -> None:
    provider = Provider(a="auth")
    rule = ModelPolicy(name="dear", model_patterns=("*:b",), require_approval=True)

    async def work(of: Runtime) -> None:
        bot = await of.image("x")
        waiting = await bot.send("one")
        assert waiting.status == "waiting" and provider.models == ["a"]
        [action] = await of.actions()
        assert action.payload == {"model": B} and action.reason.endswith("/dear")
        heard = Heard(of)
        await of.resolve_action(action.id, yes)
        ended = (await heard.until("job_succeeded" if yes else "job_failed")).data
        events = await bot.events()
        if yes:
            assert provider.models == ["a", "b"] and called(events) == [A, B]
        else:
            assert provider.models == ["a"] and ended.failure.code == "policy_denied"
            assert "house" in ended.failure.message and [each.reason for each in ended.failure.tried] == ["auth"]
        await identical(of, bot.session_id)

    play(work, provider, policy=Policy(name="house", rules=(rule,)))


def test_a_session_that_fell_back_to_what_a_rule_denies_later_goes_back_to_its_first_model() -> None:
    """The rule comes with a new process, days after the first model was busy for a moment."""
    store, clock, provider = MemoryStore(), ManualClock(), Provider(a=["rate_limit"])
    ids: list[str] = []

    async def falls_back(of: Runtime) -> None:
        bot = await of.image("x")
        assert (await bot.send("one")).text == "I am b."
        ids.append(bot.id)
        clock.move(s=86_400)

    async def goes_on(of: Runtime) -> None:
        bot = await of.open_image(ids[0])
        for _ in range(2):
            assert (await bot.send("two")).text == "I am a."
        assert selections(await bot.events())[1:] == [(A, "primary", None)] and provider.models == ["a", "b", "a", "a"]
        await identical(of, bot.session_id)

    rule = Policy(name="house", rules=(ModelPolicy(model_patterns=(B,), decision="deny"),))
    play(falls_back, provider, store=store, clock=clock, failover=Failover(retries=0))
    play(goes_on, provider, store=store, clock=clock, failover=Failover(retries=0), policy=rule)


@pytest.mark.parametrize(
    "code",
    [
        *("auth", "permission", "billing", "rate_limit", "overloaded", "timeout", "model_not_found"),
        *("server_error", "connection", "stream_cut", "bad_response", "something_new"),
    ],
)
def test_it_advances_after(code: str) -> None:
    async def work(of: Runtime) -> None:
        result = await (await of.image("x")).send("hi")
        assert (result.status, result.text) == ("succeeded", "I am b.")

    play(work, Provider(a=code))


@pytest.mark.parametrize("code", ["cancelled", "context_exceeded", "too_large", "invalid_request", "content_filter"])
def test_it_does_not_advance_after(code: str) -> None:
    provider = Provider(a=code)

    async def work(of: Runtime) -> None:
        bot = await of.image("x")
        result = await bot.send("hi")
        assert result.status in ("failed", "cancelled") and provider.models == ["a"]
        assert selections(await bot.events()) == []

    play(work, provider)


def test_what_may_be_asked_elsewhere_is_a_setting() -> None:
    async def work(of: Runtime) -> None:
        assert (await (await of.image("x")).send("hi")).status == "failed"

    play(work, Provider(a="auth"), failover=Failover(stop_on=("auth",)))


def test_an_interrupt_asks_nobody_else() -> None:
    async def work() -> None:
        gate = Gate()
        options = {"default_agent": {"model": A, "fallbacks": [C]}}
        async with runtime(models=Models({"scripted": gate, "other": Provider()}), **options) as of:
            bot = await of.image("x")
            run = await bot.send("hi").run()
            async for event in run:
                if event.type == "text_delta":
                    await bot.interrupt()
            assert (await run.result()).status == "cancelled"
            assert selections(await bot.events()) == []

    asyncio.run(asyncio.wait_for(work(), 20))


def test_a_provider_that_cancels_itself_has_failed_and_nobody_interrupted_anything() -> None:
    class Cancels(Provider):
        async def stream(self, request: ModelRequest) -> AsyncIterator[Signal | ModelAnswer]:
            if request.model == "a":
                raise asyncio.CancelledError("a scope of its own")
            async for item in super().stream(request):
                yield item

    async def work(of: Runtime) -> None:
        bot = await of.image("x")
        assert (await bot.send("hi")).text == "I am b."
        [failed] = [event.data for event in await bot.events() if isinstance(event.data, ModelFailed)]
        assert failed.failure.code == "internal" and "a scope of its own" in failed.failure.message
        await identical(of, bot.session_id)

    play(work, Cancels())


def test_a_busy_model_is_asked_a_few_times_more_before_another_is() -> None:
    provider = Provider(a="overloaded")

    async def work(of: Runtime) -> None:
        await (await of.image("x")).send("hi")

    play(work, provider, failover=Failover(retries=1))
    assert provider.models == ["a", "a", "b"]


def test_with_nowhere_to_go_a_model_is_asked_as_often_as_the_policy_says_and_fails_by_its_own_name() -> None:
    provider = Provider(a="overloaded")

    async def work(of: Runtime) -> None:
        result = await (await of.image("x")).send("hi")
        assert result.failure is not None and result.failure.code == "overloaded"

    play(work, provider, default_agent={"model": A})
    assert provider.models == ["a", "a", "a"]


def test_when_nobody_answers_the_turn_fails_with_every_attempt_and_the_end_of_the_first_cooldown() -> None:
    provider = Provider(a="auth", b="overloaded", c="billing")

    async def work(of: Runtime) -> None:
        bot = await of.image("x")
        failure = (await bot.send("hi")).failure
        assert failure is not None and failure.code == "models_exhausted"
        assert failure.tried is not None
        assert [(each.provider, each.model, each.reason, each.status) for each in failure.tried] == [
            ("scripted", "a", "auth", 500),
            ("scripted", "b", "overloaded", 500),
            ("other", "c", "billing", 500),
        ]
        assert failure.available_at is not None
        assert failure.available_at == of.clock.now() // 1000 + 30_000
        assert "scripted:a (auth, 500)" in failure.message and "may be asked again at" in failure.message
        await identical(of, bot.session_id)

    play(work, provider, failover=Failover(retries=0), clock=ManualClock())


def test_a_model_that_cools_is_not_asked_by_other_sessions_either() -> None:
    provider = Provider(a="billing")

    async def work(of: Runtime) -> None:
        await (await of.image("x")).send("one")
        second = await of.image("y")
        assert (await second.send("two")).text == "I am b."
        assert provider.models == ["a", "b", "b"]
        events = await second.events()
        assert selections(events) == [(B, "fallback", "cooldown")] and called(events) == [A, B]
        await identical(of, second.session_id)

    play(work, provider)


def test_what_a_failed_model_had_said_is_not_in_the_answer_of_the_next_one_nor_in_what_that_sees() -> None:
    provider = Provider(a="auth")

    async def work(of: Runtime) -> None:
        bot = await of.image("x")
        assert (await bot.send("hi")).text == "I am b."
        await bot.send("again")
        assert "half" not in repr(provider.seen[1]) and "half" not in repr(provider.seen[2])
        failed = next(event.data for event in await bot.events() if isinstance(event.data, ModelFailed))
        assert failed.partial == (Text(text="half of a"),)
        assert not any("half" in repr(message) for message in await bot.messages())

    play(work, provider)


def test_a_model_named_for_one_message_is_the_only_one_that_is_asked() -> None:
    provider = Provider(c="auth")

    async def work(of: Runtime) -> None:
        bot = await of.image("x")
        assert (await bot.send("hi", model=C)).status == "failed"
        assert provider.models == ["c"]
        assert (await bot.send("hi")).text == "I am a."
        assert selections(await bot.events()) == [(C, "pinned", None), (A, "primary", None)]
        await identical(of, bot.session_id)

    play(work, provider)


def test_with_a_model_and_fallbacks_of_its_own_a_message_goes_on_to_those_and_to_none_of_the_images() -> None:
    provider = Provider(c="auth", b="auth")

    async def work(of: Runtime) -> None:
        bot = await of.image("x")
        assert (await bot.send("hi", model=C, fallbacks=[B])).status == "failed"
        assert provider.models == ["c", "b"]
        assert (await bot.send("hi", fallbacks=[])).text == "I am a."
        await identical(of, bot.session_id)

    play(work, provider)


def test_the_audit_says_of_each_call_why_its_model_was_selected() -> None:
    provider = Provider(a="auth")

    async def work(of: Runtime) -> None:
        bot = await of.image("x")
        await bot.send("one")
        await bot.send("two")
        await bot.send("three", model=C)
        found = [each for each in records(await bot.events()) if each.type == "model.selected"]
        told = [(each.context["provider"], each.context["model"], each.context["reason"]) for each in found]
        assert told == [
            ("scripted", "a", "primary"),
            ("scripted", "b", "fallback"),
            ("scripted", "b", "fallback"),
            ("other", "c", "pinned"),
        ]

    play(work, provider)


def test_the_audit_says_which_model_is_left_alone_with_which_key_until_when_and_why() -> None:
    provider, clock, store = Provider(a=["billing"]), ManualClock(), MemoryStore()

    async def work(of: Runtime) -> int:
        bot = await of.image("x")
        await bot.send("one")
        failed_at = of.clock.now() // 1000
        clock.move(s=5 * 3600 + 1)
        heard = Heard(of)
        assert (await bot.send("two")).text == "I am a."
        await heard.until("cooldown_ended")  # it is noted beside the answer
        return failed_at

    failed_at = play(work, provider, clock=clock, store=store)
    events = [event for stored in MemoryLog(store).read_all(limit=1_000) for event in unpack(stored)]
    opened, ended = [each for each in records(events) if each.type.startswith("cooldown_")]
    assert (opened.context["provider"], opened.context["model"]) == ("scripted", "a")
    assert (opened.context["because"], opened.context["until"]) == ("billing", failed_at + 5 * 3_600_000)
    assert (ended.type, ended.resource_id) == ("cooldown_ended", A)


def test_a_changed_definition_begins_with_its_own_model() -> None:
    provider = Provider(a="auth")

    async def work(of: Runtime) -> None:
        bot = await of.image("x")
        await bot.send("one")
        await of.update_image(bot.id, {"model": C, "fallbacks": [B]})
        assert (await bot.send("two")).text == "I am c."
        await identical(of, bot.session_id)

    play(work, provider)


# -- coming back --


def test_a_session_returns_to_its_first_model_when_that_is_known_to_answer_and_probes_it_else() -> None:
    provider, clock = Provider(a=["overloaded"]), ManualClock()

    async def work(of: Runtime) -> None:
        one, two = await of.image("x"), await of.image("y")
        await one.send("hi")
        await two.send("hi")
        assert provider.models == ["a", "b", "b"]
        clock.move(s=31)
        assert (await one.send("hi")).text == "I am a."
        assert (await two.send("hi")).text == "I am a."
        assert [reason for _, reason, _ in selections(await one.events())] == ["fallback", "probe"]
        assert [reason for _, reason, _ in selections(await two.events())] == ["fallback", "primary"]
        for each in (one, two):
            await each.send("hi")
            assert len(selections(await each.events())) == 2
            await identical(of, each.session_id)

    play(work, provider, failover=Failover(retries=0), clock=clock)


def test_a_probe_that_fails_is_one_request_and_leaves_the_session_where_it_was() -> None:
    provider, clock = Provider(a="overloaded"), ManualClock()

    async def work(of: Runtime) -> None:
        bot = await of.image("x")
        await bot.send("hi")
        clock.move(s=31)
        before = len(provider.asked)
        assert (await bot.send("hi")).text == "I am b."
        assert provider.models[before:] == ["a", "b"]
        await identical(of, bot.session_id)

    play(work, provider, failover=Failover(retries=2), clock=clock)


# -- a kill in the middle --


def test_a_process_that_dies_in_the_middle_of_a_failover_is_gone_on_with_where_it_was() -> None:
    """The first falls back and dies while the fallback answers; the next one asks the fallback, and nobody else."""
    store, gate = MemoryStore(), Gate()
    provider = Provider(a="auth")

    async def dies() -> str:
        async with runtime(
            store=store,
            models=Models({"scripted": provider, "other": gate}),
            default_agent={"model": A, "fallbacks": [C]},
        ) as of:
            bot = await of.image("x")
            run = await bot.send("hi").run()
            async for event in run:
                if event.type == "text_delta" and "partial" in event.data.text:
                    break
            return bot.session_id

    async def goes_on(session_id: str) -> None:
        second = Provider()
        of = opened(second, store=store, default_agent={"model": A, "fallbacks": [C]})
        heard = Heard(of)
        async with of:
            await heard.until("job_succeeded")
            events = await of.events(session_id)
            assert called(events) == [A, C, C] and second.models == ["c"]
            assert events[-1].type == "job_succeeded"
            await identical(of, session_id)

    session_id = asyncio.run(asyncio.wait_for(dies(), 20))
    asyncio.run(asyncio.wait_for(goes_on(session_id), 20))


# -- bad input --


@pytest.mark.parametrize(
    "settings",
    [
        *({"retries": bad} for bad in (-1, float("nan"), 0.5, True, "2", None)),
        *({"rotations": -1}, {"attempts": 0}, {"attempts": float("inf")}, {"stop_on": "auth"}, {"stop_on": (1,)}),
        {"cooldowns": {}},
        *({name: bad} for name in ("timeout_s", "silence_s") for bad in (0, -1.0, 1e9, float("nan"), "5", True, None)),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(settings: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=next(iter(settings))):
        Failover(**settings)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf"), "1", None, True])
@pytest.mark.parametrize("name", CooldownTimes.__struct_fields__)
def test_times_that_are_none_are_refused_by_name(name: str, bad: Any) -> None:
    with pytest.raises(BadInput, match=name):
        CooldownTimes(**{name: (bad,) if name == "transient_s" else bad})
    with pytest.raises(BadInput):
        CooldownTimes(transient_s=())


@pytest.mark.parametrize(
    ("named", "settings"),
    [
        *(("transient_s", {"transient_s": bad}) for bad in (5, [30.0], "30", None, 30.0, {30.0}, (1.0,) * 101)),
        ("billing_max_s", {"billing_s": 100.0, "billing_max_s": 1.0}),
        ("billing_max_s", {"billing_s": 48 * 3600.0}),
        ("auth_max_s", {"auth_max_s": 1.0}),
    ],
)
def test_times_that_do_not_fit_together_are_refused_when_they_are_made(named: str, settings: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=f"^{named} must"):
        CooldownTimes(**settings)


@pytest.mark.parametrize("name", RetryPolicy.__struct_fields__)
def test_a_retry_policy_that_makes_no_sense_is_refused_by_name(name: str) -> None:
    for bad in (-1, float("nan"), float("inf"), "1", None, True):
        with pytest.raises(BadInput, match=name):
            RetryPolicy(**{name: bad})
    Retries(RetryPolicy(wait_initial_s=0, wait_max_s=1))


def test_a_failover_that_is_none_is_refused() -> None:
    with pytest.raises(BadInput, match="failover"):
        opened(Provider(), failover={"retries": 1})


@pytest.mark.parametrize("fallbacks", ["scripted:b", ["nowhere:b"], [1], ["b"], [f"scripted:{n}" for n in range(17)]])
def test_fallbacks_that_there_are_none_of_are_refused_and_nothing_is_sent(fallbacks: Any) -> None:
    async def work(of: Runtime) -> None:
        with pytest.raises(BadInput):
            await of.image("bad", fallbacks=fallbacks)
        bot = await of.image("x")
        with pytest.raises(BadInput):
            await bot.send("hi", fallbacks=fallbacks)
        assert [event.type for event in await bot.events()] == ["session_created"]

    play(work, Provider())


def test_a_script_can_fail_as_any_provider_does() -> None:
    async def work() -> None:
        async with runtime(
            models=Models({"other": Scripted([{"text": "Hello."}], repeat=True)}),
            default_agent={"model": "scripted:fails:auth", "fallbacks": ["scripted:fails", "other:x"]},
        ) as of:
            bot = await of.image("x")
            assert (await bot.send("hi")).text == "Hello."
            codes = [event.data.failure for event in await bot.events() if isinstance(event.data, ModelFailed)]
            assert [(each.code, each.status) for each in codes] == [("auth", 401)] + [("server_error", 500)] * 3

    asyncio.run(asyncio.wait_for(work(), 20))
