"""What cools down is of the key for all tenants of a process; of each tenant's failures only its own log tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from reenact import Failover, Runtime, Tokens
from reenact.actors.clock import ManualClock
from reenact.actors.cooldown import Cooldowns, CooldownTimes, failed
from reenact.actors.verify import verify
from reenact.actors.windows import changes, opened_by, restored
from reenact.events import codec
from reenact.events.content import Failure
from reenact.events.log import MemoryLog, MemoryStore
from reenact.events.message import Signal
from reenact.events.model import Credentials, ModelAnswer, ModelFailure, ModelRequest
from tests.providers import A, B, C, Provider, opened
from tests.runtimes import Heard

TOKENS = Tokens()
OURS = TOKENS.issue(scope="default", principal="ann")[0].reveal()
THEIRS = TOKENS.issue(scope="b", principal="bob")[0].reveal()
BILLING = 5 * 3600


def process(store: MemoryStore, provider: Provider, clock: ManualClock) -> Runtime:
    """A runtime of the scope `default`, whose tenants share one key of each provider."""
    return opened(
        provider,
        store=store,
        clock=clock,
        authenticator=TOKENS,
        default_agent={"model": A, "fallbacks": [C]},
        credentials=lambda name, spec: [Credentials(api_key=f"the key of {name}")],
    )


async def says(of: Runtime, token: str) -> str:
    view = await of.authenticate(token)
    return (await (await view.image("bot")).send("hi")).text


def cooldowns(store: MemoryStore) -> list[tuple[str, str, str]]:
    """Of each event of a cooldown: its stream, whose it is, and its type."""
    return [
        (stored.batch.stream, stored.batch.head.context.scope, recorded.type)
        for stored in list(store.all)
        for recorded in codec.unpack(stored)
        if recorded.type.startswith("cooldown_")
    ]


def told(
    store: MemoryStore, provider: Provider, clock: ManualClock, *tokens: str, until: str = "job_succeeded"
) -> list[str]:
    """A process that hears one message of each of these, and what they were answered. until: what is heard before it
    closes."""

    async def main() -> list[str]:
        async with process(store, provider, clock) as of:
            heard = Heard(of)
            said = [await says(of, token) for token in tokens]
            await heard.until(until)
            return said

    return asyncio.run(asyncio.wait_for(main(), 20))


def test_a_tenant_of_the_runtimes_own_scope_hears_nothing_of_what_failed_for_another() -> None:
    store = MemoryStore()

    async def main() -> tuple[str, str]:
        async with process(store, Provider(a="billing"), ManualClock()) as of:
            ours, theirs = await of.authenticate(OURS), await of.authenticate(THEIRS)
            heard: tuple[list[Any], list[Any]] = [], []
            ours.on_any(heard[0].append)
            theirs.on_any(heard[1].append)
            assert await says(of, THEIRS) == "I am c."
            bot = await ours.image("bot", model=C, fallbacks=[])  # it has nothing to do with the model that cools
            assert (await bot.send("hi")).text == "I am c."
            return repr((heard[0], await past(ours))), repr((heard[1], await past(theirs)))

    ours, theirs = asyncio.run(asyncio.wait_for(main(), 20))
    assert "I am c." in ours and not any(word in ours for word in ("ooldown", "billing", A))
    assert theirs.count("CooldownOpened(") == 2, "live, and followed"
    assert cooldowns(store) == [("cooldown-b", "b", "cooldown_opened")]
    assert verify(MemoryLog(store)).sound


async def past(view: Any) -> list[Any]:
    """What a view follows, to the end of its first job."""
    found: list[Any] = []
    async for event in view.follow():
        found.append(event)
        if event.type == "job_succeeded":
            break
    return found


def test_a_key_that_cools_is_heeded_by_all_scopes_of_a_process_and_noted_for_whose_call_it_was() -> None:
    store, provider = MemoryStore(), Provider(a="billing")
    assert told(store, provider, ManualClock(), THEIRS, OURS) == ["I am c.", "I am c."]
    assert provider.models == ["a", "c", "c"]
    assert cooldowns(store) == [("cooldown-b", "b", "cooldown_opened")]


def test_over_a_restart_each_scope_knows_its_own() -> None:
    store, clock = MemoryStore(), ManualClock()
    told(store, Provider(a="billing"), clock, THEIRS)
    clock.move(s=3600)
    later = Provider()
    assert told(store, later, clock, THEIRS) == ["I am c."]
    assert told(store, later, clock, OURS) == ["I am a."]
    assert told(store, later, clock, OURS, THEIRS, until="cooldown_ended") == ["I am a.", "I am a."]
    assert cooldowns(store) == [("cooldown-b", "b", "cooldown_opened"), ("cooldown-b", "b", "cooldown_ended")]
    assert told(store, later, clock, THEIRS) == ["I am a."]


def test_what_answers_is_noted_for_the_scope_whose_log_says_that_it_cools_and_for_no_other() -> None:
    store, clock, provider = MemoryStore(), ManualClock(), Provider(a=["billing"])

    async def main() -> None:
        async with process(store, provider, clock) as of:
            assert await says(of, THEIRS) == "I am c."
            clock.move(s=BILLING + 1)
            assert await says(of, OURS) == "I am a."
            assert cooldowns(store) == [("cooldown-b", "b", "cooldown_opened")]
            heard = Heard(of)
            assert await says(of, THEIRS) == "I am a."
            await heard.until("cooldown_ended")  # it is noted beside the answer

    asyncio.run(asyncio.wait_for(main(), 20))
    assert cooldowns(store) == [("cooldown-b", "b", "cooldown_opened"), ("cooldown-b", "b", "cooldown_ended")]


def test_a_window_that_another_scopes_failure_began_is_not_told_of_when_it_becomes_the_whole_keys() -> None:
    times, second = CooldownTimes(), 1_000_000
    theirs = failed(Cooldowns(), "k", A, "rate_limit", 0, times)
    ours = failed(theirs, "k", B, "overloaded", second, times)
    note = changes(theirs, ours, B)
    assert [(fact.model, fact.whole) for fact in opened_by(note, ours, Cooldowns())] == [(B, False)]
    assert [fact.whole for fact in opened_by(note, ours, theirs)] == [True, False]
    assert restored(opened_by(note, ours, Cooldowns()), 2 * second, times).windows.keys() == {("k", B)}


# -- what fails for one is nothing to another who asks with something else --


class Servers(Provider):
    """Those that need no key; the one of `ann` is down."""

    async def stream(self, request: ModelRequest) -> AsyncIterator[Signal | ModelAnswer]:
        if request.credentials.base_url == "http://ann.lan/v1":
            raise ModelFailure(Failure(code="connection", message="down", retryable=True))
        async for each in super().stream(request):
            yield each


def test_a_server_without_keys_that_is_down_keeps_nobody_from_their_own() -> None:
    async def main() -> tuple[str, str, str]:
        of = opened(
            Servers(),
            default_agent={"model": A, "fallbacks": [C]},
            clock=ManualClock(),
            failover=Failover(retries=0),
            credentials=lambda name, spec: Credentials(
                base_url=f"http://{spec.scope}.lan/v1" if name == "scripted" else None
            ),
        )
        async with of:
            names = ("ann", "bob", "ann")
            ann, bob, again = [(await (await of.scoped(scope=name).image("bot")).send("hi")).text for name in names]
            return ann, bob, again

    assert asyncio.run(asyncio.wait_for(main(), 20)) == ("I am c.", "I am a.", "I am c.")


class Guarded(Provider):
    """A server that knows one password, `good`, and answers no address with a query."""

    async def stream(self, request: ModelRequest) -> AsyncIterator[Signal | ModelAnswer]:
        given = request.credentials
        if given.password not in (None, "good"):
            raise ModelFailure(Failure(code="auth", message="no"))
        if given.base_url is not None and "?" in given.base_url:
            raise ModelFailure(Failure(code="model_not_found", message="nowhere"))
        async for each in super().stream(request):
            yield each


@pytest.mark.parametrize(
    ("anns", "bobs"),
    [
        ("http://team:bad@lan/v1", "http://team:good@lan/v1"),
        ("http://team:bad@lan/v1", "http://lan/v1"),
        ("http://lan/v1?x=1", "http://lan/v1"),
    ],
)
def test_what_fails_with_anothers_password_or_query_in_an_address_cools_nobody_elses(anns: str, bobs: str) -> None:
    of_whom = {"ann": anns, "bob": bobs}

    async def main() -> list[str]:
        async with opened(
            Guarded(),
            default_agent={"model": A, "fallbacks": [C]},
            clock=ManualClock(),
            credentials=lambda name, spec: Credentials(base_url=of_whom[spec.scope] if name == "scripted" else None),
        ) as of:
            return [(await (await of.scoped(scope=name).image("bot")).send("hi")).text for name in ("ann", "bob")]

    assert asyncio.run(asyncio.wait_for(main(), 20)) == ["I am c.", "I am a."]


def test_of_two_passwords_at_one_address_the_other_is_tried() -> None:
    async def main() -> list[str]:
        passwords = [Credentials(base_url=f"http://team:{each}@lan/v1") for each in ("bad", "good")]
        async with opened(Guarded(), default_agent={"model": A}, credentials=lambda name, spec: passwords) as of:
            return [(await (await of.image("bot")).send("hi")).text]

    assert asyncio.run(asyncio.wait_for(main(), 20)) == ["I am a."]


def own_keys(provider: Provider, clock: ManualClock, **options: Any) -> Runtime:
    """A runtime whose tenants each bring a key of their own."""
    return opened(provider, clock=clock, credentials=lambda name, spec: Credentials(api_key=spec.scope * 8), **options)


@pytest.mark.parametrize("busy", [False, True])
def test_whoever_paid_is_asked_again_in_time_however_often_another_fails_with_a_key_of_theirs(busy: bool) -> None:
    provider, clock = Provider(**{"ann" * 8: "billing", "bob" * 8: ["billing"]}), ManualClock()

    async def main() -> list[str]:
        async with own_keys(provider, clock, default_agent={"model": A}) as of:
            ann, bob = [await of.scoped(scope=name).image("bot") for name in ("ann", "bob")]
            said = [(await bob.send("hi")).status]
            for _ in range(2):
                clock.move(s=20)
                if busy:
                    await ann.send("hi")
                said.append((await bob.send("hi")).status)
            return said

    assert asyncio.run(asyncio.wait_for(main(), 20)) == ["failed", "failed", "succeeded"]


@pytest.mark.parametrize("restarts", [False, True])
def test_however_many_keys_of_another_are_refused_what_cools_for_one_is_remembered(
    restarts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reenact.actors.cooldown.WINDOWS_MAX", 4)
    store, clock, asked = MemoryStore(), ManualClock(), list[str]()

    class Refusing(Provider):
        async def stream(self, request: ModelRequest) -> AsyncIterator[Signal | ModelAnswer]:
            key = request.credentials.reveal()
            asked.append(key)
            if key.startswith("key-"):
                code = "timeout" if key == "key-of-bob" else "billing"
                raise ModelFailure(Failure(code=code, message="no"))
            async for each in super().stream(request):
                yield each

    def process() -> Runtime:
        failover = Failover(retries=0)
        return opened(
            Refusing(), store=store, clock=clock, failover=failover, default_agent={"model": A, "fallbacks": [C]}
        )

    async def says(of: Runtime, name: str, key: str, image: str) -> None:
        await (await of.scoped(scope=name).image(image)).send("hi", credentials={"scripted": key})

    async def main() -> int:
        async with process() as of:
            for number in range(6):
                await says(of, "ann", f"key-{number}", "bot")
            await says(of, "bob", "key-of-bob", "first")
            if not restarts:
                await says(of, "bob", "key-of-bob", "second")
        if restarts:
            async with process() as of:
                await says(of, "ann", "key-7", "bot")
                await says(of, "bob", "key-of-bob", "second")
        return asked.count("key-of-bob")

    assert asyncio.run(asyncio.wait_for(main(), 20)) == 1


@pytest.mark.parametrize("hours", [0, 9, 25])
def test_given_as_many_tenants_with_a_refused_key_as_are_remembered_whoever_has_two_busy_models_is_answered_by_a_third(
    hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reenact.actors.cooldown.WINDOWS_MAX", 4)
    clock, others = ManualClock(), ("ann", "bea", "cem")
    provider = Provider(a="overloaded", b="overloaded", **{name * 8: "auth" for name in others})

    async def main() -> list[str]:
        failover = Failover(retries=0)
        async with own_keys(provider, clock, failover=failover, default_agent={"model": A, "fallbacks": [B, C]}) as of:
            for name in others:
                await heard(of, name, model=C, fallbacks=[])
            clock.move(s=hours * 3600)
            return await heard(of, "zed")

    assert asyncio.run(asyncio.wait_for(main(), 20)) == "I am c."


@pytest.mark.parametrize("busy", [False, True])
def test_whoever_fell_back_returns_whatever_another_misspells(busy: bool) -> None:
    clock = ManualClock()

    async def main() -> list[str]:
        of = own_keys(Provider(a=["rate_limit"], typo="model_not_found"), clock, failover=Failover(retries=0))
        async with of:
            ann = await of.scoped(scope="ann").image("bot", model="scripted:typo", fallbacks=[])
            bob = await of.scoped(scope="bob").image("bot", model=A, fallbacks=[C])
            said = [(await bob.send("hi")).text]
            clock.move(s=3600)
            if busy:
                await ann.send("hi")
            return [*said, (await bob.send("hi")).text]

    assert asyncio.run(asyncio.wait_for(main(), 20)) == ["I am c.", "I am a."]


# -- how often something is probed, and what is known to answer --


async def heard(of: Runtime, scope: str, *, image: str = "bot", key: str | None = None, **config: Any) -> str:
    """What one of a scope is answered."""
    bot = await of.scoped(scope=scope).image(image, **config)
    result = await bot.send("hi", credentials=None if key is None else {"scripted": key})
    return result.text or result.status


@pytest.mark.parametrize("fallbacks", [(), (C,)])
def test_however_many_keys_of_another_fail_what_failed_for_one_is_not_probed_more_often(
    fallbacks: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reenact.actors.cooldown.PROBES_MAX", 4)
    clock = ManualClock()
    provider = Provider(
        **{"bob" * 8: "timeout" if fallbacks else "auth"}, **{f"key-{n}-of-ann": "auth" for n in range(9)}
    )

    async def main() -> int:
        async with own_keys(provider, clock, failover=Failover(retries=0)) as of:
            for _ in range(2):
                await heard(of, "bob", model=A, fallbacks=list(fallbacks))
                clock.move(s=5)
                for number in range(9):
                    await heard(of, "ann", key=f"key-{number}-of-ann", model=A, fallbacks=[])
        return provider.asked.count(("a", "bob" * 8))

    assert asyncio.run(asyncio.wait_for(main(), 20)) == 1


@pytest.mark.parametrize("busy", [False, True])
def test_given_that_a_model_answers_another_with_their_key_then_it_is_no_more_than_probed_with_the_key_that_failed(
    busy: bool,
) -> None:
    clock, provider = ManualClock(), Provider()
    provider.fails["a", "bob" * 8] = "overloaded"

    async def main() -> int:
        async with own_keys(provider, clock, default_agent={"model": A, "fallbacks": [C]}) as of:
            assert await heard(of, "bob") == "I am c."
            clock.move(s=31)
            if busy:
                assert await heard(of, "ann") == "I am a."
            before = len(provider.asked)
            assert await heard(of, "bob") == "I am c."
            return len(provider.asked) - before

    assert asyncio.run(asyncio.wait_for(main(), 20)) == 2


@pytest.mark.parametrize("busy", [False, True])
def test_given_that_a_model_answers_one_again_then_all_sessions_of_theirs_return_whatever_fails_with_anothers_key(
    busy: bool,
) -> None:
    clock, provider = ManualClock(), Provider(**{"bob" * 8: ["timeout", "timeout"], "ann" * 8: "auth"})

    async def main() -> list[str]:
        async with own_keys(
            provider, clock, default_agent={"model": A, "fallbacks": [C]}, failover=Failover(retries=0)
        ) as of:
            said = [await heard(of, "bob", image=name) for name in ("one", "two")]
            clock.move(s=40)
            said.append(await heard(of, "bob", image="one"))
            if busy:
                await heard(of, "ann", fallbacks=[])
            return [*said, await heard(of, "bob", image="two")]

    assert asyncio.run(asyncio.wait_for(main(), 20)) == ["I am c.", "I am c.", "I am a.", "I am a."]


@pytest.mark.parametrize("busy", [False, True])
def test_however_many_keys_of_another_answer_that_a_model_answers_one_again_stays_known(
    busy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reenact.actors.cooldown.WINDOWS_MAX", 4)
    clock, provider = ManualClock(), Provider(**{"bob" * 8: ["timeout", "timeout"], "cem" * 8: "auth"})

    async def main() -> list[str]:
        async with own_keys(
            provider, clock, default_agent={"model": A, "fallbacks": [C]}, failover=Failover(retries=0)
        ) as of:
            said = [await heard(of, "bob", image=name) for name in ("one", "two")]
            clock.move(s=40)
            await heard(of, "cem", fallbacks=[])  # something cools
            said.append(await heard(of, "bob", image="one"))
            for number in range(6 * busy):
                assert await heard(of, "ann", key=f"key-{number}-of-ann") == "I am a."
            return [*said, await heard(of, "bob", image="two")]

    assert asyncio.run(asyncio.wait_for(main(), 20)) == ["I am c.", "I am c.", "I am a.", "I am a."]


@pytest.mark.parametrize("busy", [False, True])
def test_over_a_restart_a_key_that_is_unpaid_is_left_alone_whatever_another_is_answered_with_theirs(busy: bool) -> None:
    store, clock, provider = MemoryStore(), ManualClock(), Provider(**{"bob scripted": "billing"})

    def process() -> Runtime:
        return opened(
            provider,
            store=store,
            clock=clock,
            default_agent={"model": A, "fallbacks": [C]},
            credentials=lambda name, spec: Credentials(api_key=f"{spec.scope} {name}"),
        )

    async def main() -> int:
        async with process() as of:
            assert await heard(of, "bob", image="one") == "I am c."
        async with process() as of:
            if busy:
                assert await heard(of, "ann") == "I am a."
            assert await heard(of, "bob", image="two") == "I am c."
        return provider.asked.count(("a", "bob scripted"))

    assert asyncio.run(asyncio.wait_for(main(), 20)) == 1
