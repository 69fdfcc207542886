"""Naming a secret changes nothing but texts of one's own: no rule, limit, answer or name of anybody's."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reenact import (
    ActionSpec,
    ActionType,
    LedgerEvent,
    Policy,
    Runtime,
    RuntimeLedgerWriter,
    Secret,
    Tokens,
    ToolContext,
    ToolPolicy,
    tool,
)
from reenact.actors.clock import ManualClock
from reenact.adapters.models import Models
from reenact.cli.verify import verify
from reenact.events.errors import BadInput, KeyReused, NotAPerson, ReenactError
from reenact.events.log import MemoryStore
from reenact.events.message import BusEvent
from reenact.events.model import Credentials
from reenact.identity.scoped import Acting
from reenact.secrets.discretion import mask
from tests.providers import Provider
from tests.runtimes import Heard
from tests.runtimes import run as opened

PATTERN = "pay*"
HOUSE = Policy(name="house", rules=(ToolPolicy(tool_patterns=(PATTERN,), decision="deny"),))
ran: list[str] = []
here: list[Runtime] = []


@tool(effect="idempotent")
def pay(cents: int) -> str:
    """Pay."""
    ran.append(f"paid {cents}")
    return "paid"


@tool(effect="idempotent", approval="ask")
def refund(order: str) -> str:
    """Give money back."""
    ran.append(f"refunded {order}")
    return "refunded"


@tool(effect="read")
def innocent() -> str:
    """Name a secret, with the runtime in the open, and with a view of it."""
    for each in (here[0], here[0].scoped(scope="alice")):
        with pytest.raises(NotAPerson, match="Secrets are named by people"):
            each.secret("x", PATTERN)
    return "ok"


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()
    here.clear()


def two(work: Callable[[Acting, Acting], Awaitable[None]], url: str = "memory://", **options: Any) -> None:
    """Two tenants with tokens of their own, on one runtime."""

    async def lives() -> None:
        tokens = Tokens()
        given = [tokens.issue(scope=name, principal=name)[0].reveal() for name in ("alice", "bob")]
        options.setdefault("tools", [pay, refund, innocent])
        async with Runtime(url, authenticator=tokens, **options) as runtime:
            here.append(runtime)
            alice, bob = [await runtime.authenticate(each) for each in given]
            await work(alice, bob)

    asyncio.run(asyncio.wait_for(lives(), 60))


async def says(view: Runtime, text: str, **options: Any) -> str:
    """What the model answers, in a conversation of its own: it calls the tool that a message names."""
    bot = await view.image(f"bot {len(await view.images())}", model="scripted:tools")
    result = await bot.send(text, **options)
    assert (await view.replay(bot.session_id)).identical
    return result.text or result.status


async def names_it(alice: Acting) -> None:
    alice.secret("n", PATTERN)


async def gives_a_key(alice: Acting) -> None:
    await says(alice, "hello", credentials={"scripted": PATTERN})


async def has_a_tool_name_it(alice: Acting) -> None:
    assert await says(alice, "innocent {}") == "ok"


@pytest.mark.parametrize("way", [names_it, gives_a_key, has_a_tool_name_it])
def test_whoever_names_a_secret_lifts_no_rule(way: Callable[[Acting], Awaitable[None]], tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"

    async def work(alice: Acting, bob: Acting) -> None:
        for before in (True, False):
            for view in (alice, bob):
                assert "tools are: innocent, refund" in await says(view, 'pay {"cents": 1}')
            if before:
                await way(alice)
        assert ran == []

    two(work, url, policy=HOUSE)
    assert verify(url).sound
    text = (tmp_path / "log.db").read_bytes()
    assert PATTERN.encode() in text and b"[secret:n]" not in text.replace(b"credentials", b"")


def test_a_tool_cannot_make_itself_a_secret_so_that_nobody_can_deny_it() -> None:
    @tool(effect="idempotent")
    async def grasping() -> str:
        """Call its own name and the model's a secret, in a task of its own too."""

        async def names() -> None:
            here[0].scoped(scope="alice").secret("model", "scripted:tools")

        for attempt in (
            lambda: asyncio.create_task(names()),
            lambda: asyncio.to_thread(here[0].secret, "me", "grasping"),
        ):
            with pytest.raises(NotAPerson):
                await attempt()
        ran.append("grasping")
        return "ok"

    async def work(alice: Acting, bob: Acting) -> None:
        bot = await alice.image("bot", model="scripted:tools")
        assert (await bot.send("grasping {}")).text == "ok" and ran == ["grasping"]
        await alice.save_tool_policy(bot.id, {"denied_tools": ["grasping"]})
        await alice.update_image(bot.id, {"tools": ["pay"]})
        await alice.set_policy("default", {"deny": ["grasping"]})
        await bot.send("grasping {}")
        assert ran == ["grasping"], "it was denied"

    two(work, tools=[grasping, pay])


def test_a_variable_of_the_runtime_s_own_lifts_none_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI_DEPLOY_PASSWORD", "?nn?cent")

    async def work(alice: Acting, bob: Acting) -> None:
        assert "tools are: pay, refund." in await says(bob, "innocent {}")
        bot = await bob.image("bot", model="scripted:echo")
        assert (await bot.send("it is ?nn?cent")).text == "it is [secret:CI_DEPLOY_PASSWORD]"

    two(work, policy={"deny": ["?nn?cent"]})


def test_a_tenant_s_own_rule_with_a_secret_in_it_is_refused_and_another_s_is_stored_as_it_is() -> None:
    async def work(alice: Acting, bob: Acting) -> None:
        alice.secret("n", PATTERN)
        with pytest.raises(BadInput, match="in a name, a rule or a setting"):
            await alice.set_policy("default", {"deny": [PATTERN]})
        with pytest.raises(BadInput, match="in a name, a rule or a setting"):
            await alice.image("other", model="scripted:tools", policy={"deny": [PATTERN]})
        await bob.set_policy("default", {"deny": [PATTERN]})
        bot = await bob.image("bot", model="scripted:tools")
        assert [each.deny for each in await bob.policies_of(bot.id)] == [(PATTERN,)]
        assert "tools are: innocent, refund" in (await bot.send('pay {"cents": 1}')).text and ran == []

    two(work)


def test_of_a_changed_image_only_what_the_caller_chose_is_looked_at_and_the_refusal_says_where() -> None:
    async def work(alice: Acting, bob: Acting) -> None:
        bot = await alice.image(
            "bot",
            model="scripted:tools",
            workspace="/tmp/postgres-data",
            params={"stop_sequences": ["postgres"]},
            policy={"name": "postgres", "deny": ["refund"]},
        )
        alice.secret("n", "postgres")
        await alice.update_image(bot.id, {"system_prompt": "Not of postgres."})
        await alice.update_image(bot.id, {"params": {"stop_sequences": ["postgres"], "max_tokens": 9}})
        await alice.save_tool_policy(bot.id, {"denied_tools": ["pay"]})
        config = (await alice.image_state(bot.id)).config
        assert config.system_prompt == "Not of [secret:n]." and config.workspace == "/tmp/postgres-data"
        assert config.params.stop_sequences == ("postgres",) and config.params.max_tokens == 9
        for field, changes in (
            ("workspace", {"workspace": "/postgres/b"}),
            ("deny", {"policy": {"deny": ["postgres*"]}}),
        ):
            with pytest.raises(BadInput, match=rf"rule or a setting \({field}\)") as refused:
                await alice.update_image(bot.id, changes)
            assert "postgres" not in str(refused.value)

    two(work)


def test_what_is_called_as_a_tool_or_a_model_can_be_ruled_upon_whatever_else_is_called_so() -> None:
    async def work(alice: Acting, bob: Acting) -> None:
        alice.secret("a", "innocent")
        alice.secret("b", "scripted:tools")
        bot = await alice.image("bot", model="scripted:tools", tools=["innocent", "pay"])
        await alice.set_policy(
            "default", {"deny": ["innocent"], "rules": [{"kind": "model", "modelPatterns": ["x:*"]}]}
        )
        await alice.save_tool_policy(bot.id, {"denied_tools": ["pay"]})
        assert "tools are: none" in (await bot.send('pay {"cents": 1}')).text and ran == []
        with pytest.raises(BadInput, match="rule or a setting"):
            await alice.set_policy("default", {"deny": ["innocent*"]})

    two(work)


def test_what_another_calls_secret_does_not_keep_anybody_from_deciding_or_from_their_tools() -> None:
    async def work(alice: Acting, bob: Acting) -> None:
        for number, word in enumerate(("approved", "refund", "scripted:tools", "order", "default")):
            alice.secret(f"n{number}", word)
        bot = await bob.image("bot", model="scripted:tools", tools=["refund"])
        assert (await bot.send('refund {"order": "17"}')).status == "waiting"
        [asked] = await bob.actions()
        done = await bob.resolve_action(asked.id, {"approved": True, "comment": "approved"})
        assert (done.status, done.by) == ("resolved", "bob")
        assert done.resolution == {"approved": True, "comment": "approved"}
        await bot.send("hello")  # it is behind it
        assert ran == ["refunded 17"]

    two(work)


def test_nobody_finds_another_s_secret_by_trying() -> None:
    async def work(alice: Acting, bob: Acting) -> None:
        alice.secret("a_door_pin", "48213")
        bot = await bob.image("bot", model="scripted:echo")
        tried = " ".join(f"{number:05d}" for number in range(48_000, 48_500))
        assert (await bot.send(tried)).text == tried
        heard: list[str] = []
        bob.on_any(lambda event: heard.append(repr(event)))
        for trouble in (bob.messages("48213"), bob.image("x", model="48213:48213"), bot.send("x", key="48213")):
            try:
                await trouble
            except ReenactError as error:
                heard.append(str(error))
        await bob.create_container("48213")
        assert heard and not [each for each in heard if "[secret" in each]
        own = await alice.image("bot", model="scripted:echo")
        assert (await own.send("it is 48213")).text == "it is [secret:a_door_pin]"

    two(work)


def test_an_error_is_without_the_secrets_of_whoever_hears_it_however_short_and_not_without_another_s() -> None:
    async def trouble(view: Runtime, value: str) -> list[str]:
        bot = await view.image("bot", model="scripted:echo")
        said = []
        for ask in (
            lambda: view.open_image(f"x{value}"),
            lambda: view.messages(value),
            lambda: view.set_budget({value: 5}),
            lambda: view.set_policy("default", {"name": "x", "rules": [{"kind": value}]}),
            lambda: view.set_policy("default", f"/nowhere/{value}.toml"),
            lambda: bot.send("x", params={value: 1}),
            lambda: bot.send("x", model=f"nobody:{value}"),
        ):
            with pytest.raises(ReenactError) as refused:
                await ask()
            said.append("".join(traceback.format_exception(refused.value)))
        return said

    async def work(alice: Acting, bob: Acting) -> None:
        alice.secret("pin", "12345678")
        alice.secret("word", "abcd")
        here[0].secret("ours", "hunter2hunter")
        for value, masks in (("12345678", "pin"), ("abcd", "word"), ("hunter2hunter", "ours")):
            said = await trouble(alice, value)
            assert all(f"[secret:{masks}]" in each and value not in each for each in said), said
        assert all("12345678" in each and "[secret" not in each for each in await trouble(bob, "12345678"))
        assert all("[secret:ours]" in each for each in await trouble(bob, "hunter2hunter"))

    two(work)


def test_what_somebody_else_s_error_says_with_a_secret_in_it_is_left_out_of_a_traceback() -> None:
    def came_of(value: str) -> BadInput:
        try:
            try:
                raise OSError(2, "No such file", f"/etc/{value}")
            except OSError as error:
                raise BadInput(f"There is no {value}.") from error
        except BadInput as refused:
            return refused

    async def work(alice: Acting, bob: Acting) -> None:
        alice.secret("pin", "12345678")
        for view, shown in ((alice, False), (bob, True)):
            mask(refused := came_of("12345678"), view)
            assert ("12345678" in "".join(traceback.format_exception(refused))) is shown
        mask(refused := came_of("another"), alice)
        assert isinstance(refused.__cause__, OSError), "what holds none stays"

    two(work)


def test_the_words_that_stand_around_names_and_keys_are_nobody_s_secrets() -> None:
    async def work(alice: Acting, bob: Acting) -> None:
        here[0].secret("n0", "container")
        for number, word in enumerate(("send", "image", "session", "default")):
            alice.secret(f"n{number}", word)
        bot = await alice.image("bot", model="scripted:echo")
        assert (await bot.send("hello", key="order-1")).text == "hello"
        assert await alice.new_session(bot.id, alias="diary")
        for trouble in (alice.image("a session", model="scripted:echo"), bot.send("x", key="to send")):
            with pytest.raises(BadInput, match="in a name or a key"):
                await trouble

    two(work)


@tool(effect="idempotent")
async def login(context: ToolContext) -> str:
    """Ask a person for a secret."""
    wanted = ActionSpec(type=ActionType.REAUTH, payload={"message": "Log in.", "secret": "portal"})
    asked = await context.actions.require_action(wanted)
    await context.actions.wait_for_resolution(asked.action_id)
    return "in"


async def named_by_the_program(alice: Acting, word: str) -> None:
    if word != "alice":  # see below
        alice.secret("n", word)


async def handed_over(alice: Acting, word: str) -> None:
    bot = await alice.image("asks", model="scripted:tools")
    asked = (await bot.send("login {}")).action or ""
    if word == "alice":
        with pytest.raises(BadInput, match="A secret is not the name"):
            await alice._asking.hand_over(asked, word, {})
        await alice.cancel_action(asked)
    else:
        await alice._asking.hand_over(asked, word, {})


async def sent_as_a_key(alice: Acting, word: str) -> None:
    bot = await alice.image("sends", model="scripted:echo")
    assert (await bot.send("hello", credentials={"scripted": word})).text == "hello"


@pytest.mark.parametrize("word", ["alice", "carol", "carol-of-"], ids=["scope", "principal", "part"])
@pytest.mark.parametrize("way", [named_by_the_program, handed_over, sent_as_a_key])
def test_given_a_secret_that_is_called_as_somebody_they_act_and_are_ruled_upon_as_before(
    way: Callable[[Acting, str], Awaitable[None]], word: str
) -> None:
    carol = "carol-of-sales" if word == "carol-of-" else "carol"

    async def work(alice: Acting, bob: Acting) -> None:
        await way(alice, word)
        tokens = here[0]._authenticator
        assert isinstance(tokens, Tokens)
        view = await here[0].authenticate(tokens.issue(scope="alice", principal=carol)[0].reveal())
        assert "tools are: innocent, login, pay." in await says(view, "hello")
        program = here[0].scoped(scope="alice")
        for each in ({"max_requests_daily": 99}, {"max_requests_daily": 99, "principal_id": carol}):
            await program.set_budget(each)
        only = ToolPolicy(tool_patterns=("pay",), allowed_scopes=("alice",), allowed_principals=(carol,))
        await program.set_policy("default", Policy(name="who", rules=(only,)))
        assert "tools are: innocent, login." in await says(program, 'pay {"cents": 1}') and ran == []
        assert "paid" in await says(view, 'pay {"cents": 1}') and ran == ["paid 1"]

    two(work, tools=[pay, innocent, login])


def test_given_a_key_that_is_the_name_of_its_holder_it_is_not_looked_for_and_a_warning_says_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a proxy that tells its callers by name; `default` is what the scope of a plain program is called."""
    monkeypatch.setenv("OPENAI_API_KEY", "default")

    async def work(runtime: Runtime) -> None:
        for view in (runtime, runtime.scoped(scope="alice", principal="carol")):
            bot = await view.image("bot", model="scripted:echo")
            for key in (f"{view.scope} 1", f"{view.principal} 1"):
                said = await bot.send("it is default, alice or carol", key=key)
                assert said.text == "it is default, alice or carol"
            await view.set_budget({"max_requests_daily": 9})

    def provide(provider: str, spec: Any) -> Any:
        return [Credentials(api_key=each) for each in (spec.scope, spec.principal)]

    opened(work, models=Models(), credentials=provide)
    assert caplog.text.count("scripted_key is the name of its scope or principal") == 1
    assert caplog.text.count("OPENAI_API_KEY is the name of its scope or principal") == 1


def test_a_program_names_no_secret_as_itself() -> None:
    async def work(alice: Acting, bob: Acting) -> None:
        for name in ("alice", Secret(" alice ")):
            with pytest.raises(BadInput, match="A secret is not the name"):
                alice.secret("n", name)

    two(work)
    for options in ({"principal": "the-hidden-name"}, {"scope": "the-hidden-name"}):
        with pytest.raises(BadInput, match="name of a scope or a principal"):
            Runtime("memory://", secrets={"n": "the-hidden-name"}, **options)


def test_what_a_listener_raised_is_told_without_secrets_of_any_scope() -> None:
    secret = "cannot connect with hunter-Zq7vX9pL2mN4 of bob-Wk3bT8sJ5hG6."

    def plain(event: BusEvent) -> None:
        raise RuntimeError(secret)

    async def waits(event: BusEvent) -> None:
        raise RuntimeError(secret)

    def aside(event: BusEvent) -> None:
        raise RuntimeError(secret)

    async def work(runtime: Runtime) -> None:
        heard = Heard(runtime)
        runtime.secret("db", "hunter-Zq7vX9pL2mN4")
        runtime.scoped(scope="bob", principal="bob").secret("his", "bob-Wk3bT8sJ5hG6")
        for handler, thread in ((plain, False), (waits, False), (aside, True)):
            runtime.on("turn_started", handler, thread=thread)
        await (await runtime.image("support")).send("hi")
        await heard.until("subscriber_failed", 3)
        told = {event.data.error for event in heard.of("subscriber_failed")}
        assert told == {"RuntimeError: cannot connect with [secret:db] of [secret:his]."}

    opened(work)


def test_listeners_hear_requests_without_secrets_and_they_are_answered_as_they_were_asked() -> None:
    got: list[str] = []

    async def work(alice: Acting, bob: Acting) -> None:
        root, heard = here[0], []
        root.on_any(lambda event: heard.append(repr(event)))
        alice.secret("n", "the-hidden-value")

        def answer(data: Any, request: Any) -> dict[str, Any]:
            got.append(data["said"])
            if data["said"] == "trouble":
                raise KeyError("the-hidden-value")
            return {"n": len(data["said"])}

        async def later(data: Any, request: Any) -> dict[str, Any]:
            return answer(data, request)

        root.bus.on_command("look_request", answer)
        root.bus.on_command("wait_request", later)
        for kind in ("look_request", "wait_request"):
            said = await alice.request(kind, {"said": "the-hidden-value", "requestId": "r1"})
            assert said.data.n == 16 and said.data.request_id == "r1"
            assert "[secret:n]" in (await alice.request(kind, {"said": "trouble"})).data.error
        with pytest.raises(BadInput, match="requestId"):
            await alice.request("look_request", {"said": "x", "requestId": "the-hidden-value"})
        assert got == ["the-hidden-value", "trouble"] * 2
        assert len(heard) >= 8 and not [each for each in heard if "the-hidden-value" in each]
        assert not root.bus._requests._said

    two(work)


@pytest.mark.parametrize("later", [{}, {"other": "hunter2hunter2"}])
def test_a_message_again_is_the_same_whatever_its_secrets_are_called_by_now(
    later: dict[str, str], tmp_path: Path
) -> None:
    async def life(known: dict[str, str]) -> Any:
        async with Runtime(f"sqlite:///{tmp_path}/log.db", secrets=known) as runtime:
            bot = await runtime.image("bot", model="scripted:echo")
            return await bot.send("pay with hunter2hunter2", key="order-1")

    first = asyncio.run(life({"pw": "hunter2hunter2"}))
    if not later:  # one that is known no more is another text
        with pytest.raises(KeyReused):
            asyncio.run(life(later))
        return
    again = asyncio.run(life(later))
    assert again.job_id == first.job_id and again.text == first.text == "pay with [secret:pw]"


# -- what is kept of a secret, be it a digest --

CALLS = [
    {"tool_calls": [{"name": "unlock", "input": {"door": "front", "pin": "{pin}"}}]},
    {"tool_calls": [{"name": "refund", "input": {"order": "{pin}"}}]},
    {"tool_calls": [{"name": "refund", "input": {"order": "{pin}"}}]},
    {"text": "It was {pin}."},
]


def log_of(pin: str) -> list[str]:
    """What is recorded where a secret of this value is said in every way, but for times and tokens."""
    value = pin

    @tool(effect="idempotent")
    async def unlock(door: str, pin: str, context: ToolContext) -> str:
        """Open a door, if a person lets it."""
        spec = ActionSpec(
            type="confirm", payload={"message": f"{door}, with {pin} or {value}?"}, key=f"open with {value}"
        )
        await context.actions.wait_for_resolution((await context.actions.require_action(spec)).action_id)
        return f"opened with {pin}"

    async def work(runtime: Runtime) -> list[str]:
        runtime.secret("pin", pin)
        bot = await runtime.image("bot")
        run = bot.send(f"open with {pin}", key="once")
        with runtime.stream("action_required") as asked:
            for more in ({}, {"always": "exact"}):
                question = (await anext(asked)).data.action
                said = {"approved": True, "comment": f"as {pin} is right", **more}
                await runtime.resolve_action(f"{bot.session_id}:{question}", said)
        assert (await run).status == "succeeded"
        recorded = [each async for each in run]
        assert (await runtime.replay(bot.session_id)).identical
        assert "grant_used" in [each.type for each in recorded]
        await RuntimeLedgerWriter(runtime).write(LedgerEvent(event_id="e", metadata={"note": pin}, timestamp=1.0))
        events = [f"{each.type} {msgspec.to_builtins(each.data) | CHANCE}" for each in recorded]
        return [*events, *(f"{each.key} {each.digest.hex()}" for each in store.keys.values())]

    store, steps = MemoryStore(), msgspec.json.decode(msgspec.json.encode(CALLS).replace(b"{pin}", pin.encode()))
    return opened(work, steps, repeat=False, store=store, tools=[unlock, refund], clock=ManualClock())


CHANCE = {"durationMs": None, "token": None, "context": None}
"""What is another in every run, and what is taken of that as it is stored."""


def test_what_is_recorded_is_the_same_whatever_a_secret_s_value_is_to_the_last_digest() -> None:
    one, other = log_of("739152"), log_of("184620")
    assert one == other and "sha256:" in "".join(one)


# -- people with addresses, and the pattern that masks addresses --

ANN = "ann@corp.example"


def with_addresses(work: Callable[[Runtime], Awaitable[None]], **options: Any) -> None:
    async def lives() -> None:
        async with Runtime("memory://", tools=[pay, refund], patterns={"email": True}, **options) as runtime:
            await work(runtime)

    asyncio.run(asyncio.wait_for(lives(), 60))


def test_a_tool_for_one_address_alone_is_nobody_else_s_where_addresses_are_masked() -> None:
    async def work(runtime: Runtime) -> None:
        tokens = [runtime.scoped(principal=name) for name in ("bob@guests.example", ANN)]
        assert "tools are: refund" in await says(tokens[0], 'pay {"cents": 1}') and ran == []
        assert await says(tokens[1], 'pay {"cents": 2}') == "paid" and ran == ["paid 2"]
        assert await says(tokens[1], f"write to {ANN}") != f"write to {ANN}", "in texts it is masked"

    with_addresses(work, policy=Policy(rules=(ToolPolicy(tool_patterns=("pay",), allowed_principals=(ANN,)),)))


def test_who_approved_is_recorded_by_name() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("bot", model="scripted:tools")
        await bot.send('refund {"order": "1"}')
        [asked] = await runtime.actions()
        assert (await runtime.resolve_action(asked.id, {"approved": False, "comment": f"by {ANN}"})).by == ANN
        [said] = [each.data for each in await bot.events() if each.type == "action_resolved"]
        assert (said.by, said.resolution) == (ANN, {"approved": False, "comment": "by [secret:email]"})

    with_addresses(work, principal=ANN)


def test_a_limit_of_one_address_binds_no_other() -> None:
    async def work(runtime: Runtime) -> None:
        await runtime.set_budget({"principal_id": ANN, "max_tokens_total": 30})
        ended = {}
        for name in (ANN, "bob@guests.example"):
            bot = await runtime.scoped(principal=name).image(f"of {name[:3]}", model="scripted:echo")
            ended[name] = {(await bot.send("hello there, friend")).status for _ in range(3)}
        assert ended == {ANN: {"failed"}, "bob@guests.example": {"succeeded"}}
        assert {each.name for each in await runtime.budget()} == {ANN}

    with_addresses(work)


def test_a_code_that_decides_what_is_done_next_is_kept_whatever_is_called_so_and_an_adapter_s_own_is_text() -> None:
    async def work(alice: Acting, bob: Acting) -> None:
        alice.secret("a", "billing")
        alice.secret("b", "hunter2hunter")
        bot = await alice.image("bot", model="scripted:m")
        assert (failure := (await bot.send("first")).failure) is not None and failure.code == "billing"
        other = await alice.image("other", model="scripted:n")
        assert (failure := (await other.send("x")).failure) is not None and failure.code == "weird_[secret:b]"

    two(work, models=Models({"scripted": Provider(m="billing", n="weird_hunter2hunter")}))
