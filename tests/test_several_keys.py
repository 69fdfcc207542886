"""Several keys of one provider: which is asked, which after it fails, and whose is never changed for another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from reenact import Failover
from reenact.actors.clock import ManualClock
from reenact.events.agent import ModelFailed, ModelSelected
from reenact.events.errors import BadInput
from reenact.events.log import MemoryStore
from reenact.events.model import Credentials
from reenact.projections.audit import records
from reenact.runtime import Runtime
from tests.providers import A, B, Provider, identical, notes, play, selections


def keys(*names: str) -> Callable[[str, Any], list[Credentials]]:
    return lambda provider, spec: [Credentials(api_key=name) for name in names]


def test_a_refused_key_is_followed_by_the_next_one_before_another_model_is_asked() -> None:
    provider = Provider(key_one="auth")

    async def work(of: Runtime) -> None:
        bot = await of.image("x")
        assert (await bot.send("hi")).text == "I am a."
        assert (await bot.send("hi")).text == "I am a."
        assert provider.asked == [("a", "key_one"), ("a", "key_two"), ("a", "key_two")]
        events = await bot.events()
        first, selected = [event.data for event in events if isinstance(event.data, ModelSelected)]
        [failed] = [event.data for event in events if isinstance(event.data, ModelFailed)]
        assert first.noted and selected.model == A and None not in (first.key, selected.key)
        assert first.key == failed.key != selected.key
        assert not any(key in repr(event) for event in events for key in ("key_one", "key_two"))
        await identical(of, bot.session_id)

    play(work, provider, credentials=keys("key_one", "key_two"))


def test_a_rate_limit_tries_one_more_key_and_then_another_model() -> None:
    provider = Provider(a="rate_limit")

    async def work(of: Runtime) -> None:
        assert (await (await of.image("x")).send("hi")).text == "I am b."

    play(work, provider, credentials=keys("k1", "k2", "k3"), failover=Failover(retries=0))
    assert [model for model, _ in provider.asked] == ["a", "a", "b"]
    assert len({key for model, key in provider.asked if model == "a"}) == 2


def test_sessions_share_the_keys_and_each_keeps_to_its_own() -> None:
    provider = Provider()

    async def work(of: Runtime) -> None:
        bots = [await of.image(name) for name in "xyz"]
        for _ in range(2):
            for bot in bots:
                await bot.send("hi")

    play(work, provider, credentials=keys("k1", "k2"))
    assert [key for _, key in provider.asked] == ["k1", "k2", "k1"] * 2


def test_a_session_keeps_its_key_and_its_model_over_a_restart() -> None:
    store = MemoryStore()

    async def first(of: Runtime) -> list[str]:
        bots = [await of.image(name) for name in "xyz"]
        for bot in bots:
            await bot.send("hi")
        [note] = notes(await bots[1].events())
        assert note[:2] == (A, "primary") and note[2] not in (None, notes(await bots[0].events())[0][2])
        return [bot.id for bot in bots]

    async def second(of: Runtime) -> None:
        for image in reversed(ids):
            bot = await of.open_image(image)
            await bot.send("hi")
            assert len(notes(await bot.events())) == 1 and selections(await bot.events()) == []
            await identical(of, bot.session_id)

    async def without_its_key(of: Runtime) -> None:
        bot = await of.open_image(ids[2])
        await bot.send("hi")
        assert [each.data.because for each in await bot.events() if isinstance(each.data, ModelSelected)] == [
            None,
            "key_gone",
        ]
        await identical(of, bot.session_id)

    given = keys("k1", "k2", "k3")
    ids = play(first, Provider(), credentials=given, store=store)
    provider = Provider()
    play(second, provider, credentials=given, store=store)
    assert [key for _, key in provider.asked] == ["k3", "k2", "k1"]
    play(without_its_key, Provider(), credentials=keys("k1", "k2"), store=store)


def test_with_one_key_and_one_model_nothing_is_selected_and_nothing_recorded() -> None:
    async def work(of: Runtime) -> None:
        bot = await of.image("x")
        await bot.send("hi")
        assert not any(isinstance(event.data, ModelSelected) for event in await bot.events())
        [found] = [each for each in records(await bot.events()) if each.type == "model.selected"]
        assert (found.context["model"], found.context["reason"]) == ("a", "primary")

    play(work, Provider(), credentials=keys("k1"), default_agent={"model": A})


@pytest.mark.parametrize("given", [("k1",), ("k1", "k2")], ids=["one key", "two keys"])
@pytest.mark.parametrize("code", ["billing", "auth"])
def test_a_lone_model_whose_keys_are_unpaid_or_refused_is_asked_again_once_in_a_while(
    given: tuple[str, ...], code: str
) -> None:
    provider, clock = Provider(a=[code] * (len(given) + 1)), ManualClock()

    async def work(of: Runtime) -> None:
        bot, other = await of.image("x"), await of.image("y")
        await bot.send("hi")
        assert [key for _, key in provider.asked] == [*given]
        for each in (bot, bot, other):
            failure = (await each.send("hi")).failure
            assert failure is not None and failure.code == "models_exhausted" and failure.tried is not None
            assert [(each.model, each.reason) for each in failure.tried] == [("a", code)] * len(given)
            assert failure.available_at == of.clock.now() // 1000 + 30_000 and not failure.retryable
        assert len(provider.asked) == len(given), "nobody is asked between"
        clock.move(s=31)
        assert (await bot.send("hi")).status == "failed"
        assert (await bot.send("hi")).status == "failed"
        assert [key for _, key in provider.asked] == [*given, given[0]], "the one that is free first"
        clock.move(s=31)
        assert (await bot.send("hi")).text == "I am a."  # somebody has paid meanwhile
        assert (await other.send("hi")).text == "I am a."
        for each in (bot, other):
            await identical(of, each.session_id)

    play(work, provider, credentials=keys(*given), default_agent={"model": A}, clock=clock)


def test_a_lone_model_that_is_busy_is_asked_by_the_next_message_with_the_key_that_is_free_first() -> None:
    provider, clock = Provider(k1=["rate_limit"], k2=["rate_limit"]), ManualClock()

    async def work(of: Runtime) -> None:
        bot = await of.image("x")
        assert (await bot.send("hi")).status == "failed"
        assert [key for _, key in provider.asked] == ["k1", "k2"]
        assert (await bot.send("hi")).text == "I am a." and provider.asked[-1] == ("a", "k1")
        await identical(of, bot.session_id)

    play(work, provider, credentials=keys("k1", "k2"), default_agent={"model": A}, clock=clock)


def test_another_key_in_the_place_of_a_refused_one_is_asked_at_once() -> None:
    provider, now = Provider(wrong="auth"), ["wrong"]

    async def work(of: Runtime) -> None:
        bot = await of.image("x")
        assert (await bot.send("hi")).status == "failed"
        now[:] = ["right"]
        assert (await bot.send("hi")).text == "I am a."

    play(work, provider, credentials=lambda provider, spec: keys(*now)(provider, spec), default_agent={"model": A})


def test_keys_in_their_given_order_are_asked_in_it_and_the_first_one_again_by_whoever_comes_new() -> None:
    provider = Provider(k1=["rate_limit"])

    async def work(of: Runtime) -> None:
        for name in "xyz":
            await (await of.image(name)).send("hi")

    order = Failover(retries=0, key_order="given")
    play(work, provider, credentials=keys("k1", "k2", "k3"), failover=order)
    assert [key for _, key in provider.asked] == ["k1", "k2", "k2", "k2"]  # k1 cools
    provider = Provider()
    play(work, provider, credentials=keys("k1", "k2", "k3"), failover=order)
    assert [key for _, key in provider.asked] == ["k1", "k1", "k1"]
    with pytest.raises(BadInput, match=r"^key_order must be"):
        Failover(key_order="alphabetical")


@pytest.mark.parametrize("code", ["auth", "rate_limit", "billing"])
def test_the_key_that_a_message_brings_is_never_changed_for_another(code: str) -> None:
    provider = Provider(mine=code)

    async def work(of: Runtime) -> None:
        bot = await of.image("x", model=A, fallbacks=[B])
        failed = await bot.send("hi", credentials={"scripted": "mine"})
        assert failed.failure is not None and {key for _, key in provider.asked} == {"mine"}
        assert (await bot.send("hi")).text and provider.asked[-1][1] in ("k1", "k2")

    play(work, provider, credentials=keys("k1", "k2"), failover=Failover(retries=0))


@pytest.mark.parametrize("bad", ["sk-secret", ["sk-secret"], 7, [None]])
def test_credentials_that_are_none_fail_the_turn_by_name_and_are_not_shown(bad: Any) -> None:
    async def work(of: Runtime) -> None:
        bot = await of.image("x")
        failure = (await bot.send("hi")).failure
        assert failure is not None and failure.code == "bad_input" and "credentials must" in failure.message
        assert "sk-secret" not in repr(await bot.events())

    play(work, Provider(), credentials=lambda provider, spec: bad)
