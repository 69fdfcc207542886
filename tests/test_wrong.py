"""What is given to a runtime and cannot be: one typed error says so, nothing is written, and what is stored can be read
again."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from reenact import (
    ActionFilter,
    ActionManager,
    ActionSpec,
    Budget,
    BudgetSpec,
    ConstraintPolicy,
    ExecutionContext,
    Failover,
    ImageConfig,
    ModelParams,
    ModelPolicy,
    Policy,
    PolicyContext,
    PolicyEngine,
    PolicyRef,
    Profile,
    Runtime,
    Secret,
    Tokens,
    ToolPolicy,
    tool,
)
from reenact.actors.clock import ManualClock
from reenact.adapters.models import Models, RetryPolicy
from reenact.events import codec
from reenact.events.agent import Interrupt
from reenact.events.errors import BadInput, BadResolution, ReenactError, Unauthenticated
from reenact.events.log import MemoryLog
from reenact.events.model import Credentials
from reenact.given import config_of
from reenact.projections.audit import AuditFilter, query
from reenact.rules.tool_policy import filter_tools_by_policy
from reenact.sender import MessageOptions

WRONG: tuple[Any, ...] = (
    *("", " ", "nope", "\udcff", "\0", "a\nb", "x" * 5000, "٣", b"x", 3, -1, 0.5, True, 10**400, math.nan, math.inf),
    *(1e300, Decimal("NaN"), None, object(), [], [1], {}, {"a": 1}, {1: 2}, (), {"a"}),
)
"""Something that is not what is wanted, for all that is wanted: text for numbers, bytes for text, nothing at all."""

RUNS_ON = ("send", "sending", "resolve_action", "set_budget")
"""Methods that begin what goes on beside what is tried next."""


@tool(approval="ask")
def pay(n: int = 0) -> str:
    """Pay."""
    return "paid"


def heads(runtime: Runtime) -> dict[str, int]:
    return {stream: runtime.log.head(stream) for stream in runtime.log.streams("")}


def assert_readable(runtime: Runtime) -> None:
    for stored in runtime.log.read_all(limit=100_000):
        codec.unpack(stored)


METHODS = sorted(
    name
    for name, _ in inspect.getmembers(Runtime, inspect.isfunction)
    if not name.startswith("_")
    and name not in ("open", "close", "dispose", "submit", "follow", "as_", "stream", "on", "on_any", "once")
)


def settable(name: str) -> list[inspect.Parameter]:
    given = [*inspect.signature(getattr(Runtime, name)).parameters.values()][1:]
    options = MessageOptions.__annotations__ if name in ("send", "sending") else ()
    return [
        *(each for each in given if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)),
        *(inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=None) for option in options),
    ]


@pytest.mark.parametrize("name", METHODS)
def test_whatever_a_method_is_given_it_does_its_work_or_says_what_is_wrong(name: str) -> None:
    async def work() -> None:
        async with Runtime("memory://", tools=[pay]) as runtime:
            bot = await runtime.image("bot", model="scripted:tools")
            await bot.send("pay {}")
            [action] = await runtime.actions()
            right: dict[str, Any] = {
                "image_id": bot.id,
                "session_id": bot.session_id,
                "action_id": action.id,
                "agent_id": bot.id,
                "container": "default",
                "container_id": "default",
                "name": "bot",
                "value": "long-enough-1",
                "policy": {"deny": ["exec"]},
                "budget": {"max_cost_daily": "1"},
                "config": ImageConfig(),
                "changes": {},
                "content": "hi",
                "job_id": "job",
                "tool": "t1",
                "outcome": "ok",
                "resolution": False,
                "token": "t",
                "kind": "container_list_request",
                "handler": print,
                "kinds": "text_delta",
                "stream": f"session-{bot.session_id}",
                "command": Interrupt(),
            }
            needed = {each.name: right[each.name] for each in settable(name) if each.default is each.empty}
            for parameter in settable(name):
                for wrong in WRONG:
                    if parameter.name in ("handler", "approval_handler"):  # a function, called when it is
                        continue
                    before = heads(runtime)
                    try:
                        given = getattr(runtime, name)(**{**needed, parameter.name: wrong})
                        if inspect.isawaitable(given):
                            await asyncio.wait_for(asyncio.ensure_future(given), 10)
                    except ReenactError as error:
                        assert str(error) and len(str(error)) < 6_000
                        assert name in RUNS_ON or heads(runtime) == before, (parameter.name, wrong)
                    assert_readable(runtime)
            assert (await runtime.replay(bot.session_id)).identical

    asyncio.run(asyncio.wait_for(work(), 60))


def test_a_value_that_could_be_stored_and_never_read_again_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with Runtime("memory://") as runtime:
            bot = await runtime.image("bot", model="scripted:echo")
            before = heads(runtime)
            for wrong in (
                lambda: runtime.new_session(bot.id, alias=3),  # type: ignore[arg-type]
                lambda: runtime.create_image("default", ImageConfig(name=b"x")),  # type: ignore[arg-type]
                lambda: runtime.update_image(bot.id, ImageConfig(max_steps="9")),  # type: ignore[arg-type]
                lambda: runtime.interrupt(bot.id, reason=3),  # type: ignore[arg-type]
                lambda: runtime.cancel(bot.session_id, "job", reason=b"x"),  # type: ignore[arg-type]
                lambda: bot.send("hi", params=ModelParams(stop_sequences=(1,))),  # type: ignore[arg-type]
                lambda: bot.send("hi", priority=True),
            ):
                with pytest.raises(BadInput):
                    await wrong()
            assert heads(runtime) == before
            assert_readable(runtime)

    asyncio.run(work())
    monkeypatch.setattr("reenact.flow.kernel.check_readable", lambda command: None)
    monkeypatch.setattr("reenact.catalog.sessions.checked_text", lambda value, name: value)

    async def broken() -> None:
        async with Runtime("memory://") as runtime:
            bot = await runtime.image("bot", model="scripted:echo")
            await runtime.new_session(bot.id, alias=3)  # type: ignore[arg-type]
            assert_readable(runtime)

    with pytest.raises(ReenactError, match="cannot be read"):
        asyncio.run(broken())


# -- values that programs make --

MADE: dict[str, Callable[..., Any]] = {
    "ToolPolicy": lambda **given: ToolPolicy(**{"tool_patterns": ("a",), **given}),
    "ModelPolicy": lambda **given: ModelPolicy(**{"model_patterns": ("a",), **given}),
    "ConstraintPolicy": ConstraintPolicy,
    "Policy": Policy,
    "Profile": lambda **given: Profile(**{"name": "n", "tools": ("a",), **given}),
    "Budget": Budget,
    "BudgetSpec": BudgetSpec,
}
KINDS = {
    each.__name__: each for each in (ToolPolicy, ModelPolicy, ConstraintPolicy, Policy, Profile, Budget, BudgetSpec)
}


@pytest.mark.parametrize("kind", MADE)
def test_rules_and_limits_that_can_be_made_can_be_stored_and_read(kind: str) -> None:
    for field in KINDS[kind].__struct_fields__:
        for wrong in WRONG:
            try:
                made = MADE[kind](**{field: wrong})
            except BadInput as error:
                assert str(error)
                continue
            assert msgspec.msgpack.decode(msgspec.msgpack.encode(made), type=KINDS[kind]) == made, (field, wrong)


def run(work: Any) -> Any:
    return asyncio.run(work) if inspect.isawaitable(work) else work


ENGINE = PolicyEngine([ToolPolicy(tool_patterns=("a",), decision="deny")])  # type: ignore[arg-type]
ASKED: dict[str, Callable[[Any], Any]] = {
    **{
        f"PolicyContext.{field}": lambda wrong, field=field: ENGINE.evaluate(PolicyContext(**{field: wrong}))
        for field in PolicyContext.__struct_fields__
        if field != "metadata"
    },
    **{
        f"ExecutionContext.{field}": lambda wrong, field=field: ExecutionContext.from_dict({field: wrong})
        for field in ExecutionContext.__struct_fields__
    },
    **{
        f"Failover.{field}": lambda wrong, field=field: Failover(**{field: wrong})
        for field in Failover.__struct_fields__
    },
    **{
        f"AuditFilter.{field}": lambda wrong, field=field: query([], AuditFilter(**{field: wrong}))
        for field in AuditFilter.__struct_fields__
    },
    **{
        f"Credentials.{field}": lambda wrong, field=field: repr(Credentials(**{field: wrong}))
        for field in Credentials.__struct_fields__
    },
    **{
        f"Runtime.{name}": lambda wrong, name=name: Runtime("memory://", **{name: wrong})
        for name in (
            "scope",
            "principal",
            "tools",
            "secrets",
            "patterns",
            "policy",
            "budget",
            "failover",
            "credentials",
            "models",
            "retries",
            "clock",
            "authenticator",
            "environment_factory",
            "approval_handler",
            "handler_timeout_s",
            "threads",
            "recover",
            "armed",
            "base_path",
            "default_agent",
        )
    },
    "Runtime": lambda wrong: Runtime(wrong) and None if not isinstance(wrong, MemoryLog) else None,
    "ExecutionContext": ExecutionContext.from_dict,
    "check_tool": ENGINE.check_tool,
    "check_model": ENGINE.check_model,
    "check_tool for": lambda wrong: ENGINE.check_tool("a", wrong),
    "check_model for": lambda wrong: ENGINE.check_model("a:b", wrong),
    "check_constraints": ENGINE.check_constraints,
    "evaluate": ENGINE.evaluate,
    "require": ENGINE.require,
    "as_": lambda wrong: Runtime().as_(wrong),
    "as_ by a view": lambda wrong: Runtime().scoped(scope="a").as_(wrong),
    **{
        f"context {name}": lambda wrong, name=name: ExecutionContext(**{name: wrong})
        for name in ("budgets", "policy_ref", "versions", "cancellation", "metadata", "trace_id")
    },
    "child": lambda wrong: ExecutionContext().child(budgets=wrong).to_dict(),
    **{
        f"filter {name}": lambda wrong, name=name: ActionManager(Runtime()).list(ActionFilter(**{name: wrong}))
        for name in ("limit", "status", "type", "session_id", "job_id")
    },
    "list of actions": lambda wrong: ActionManager(Runtime()).list(5 if wrong is None else wrong),
    "a question": lambda wrong: ActionManager(Runtime()).require_action(wrong),
    **{
        f"a question's {name}": lambda wrong, name=name: ActionManager(Runtime()).require_action(
            {"type": "confirm", "session_id": "s", name: wrong}
        )
        for name in ("type", "payload", "metadata", "timeout_seconds", "key", "session_id")
    },
    **{
        f"image {name}": lambda wrong, name=name: config_of({name: wrong}, ImageConfig())
        for name in ("approval_required", "approval_timeout_s", "tools", "fallbacks", "metadata", "workspace")
    },
    "add_rule": lambda wrong: PolicyEngine().add_rule(wrong),
    "add_policy": lambda wrong: PolicyEngine().add_policy(wrong),
    "find": ENGINE.find,
    "overrides": lambda wrong: ENGINE.rights(
        PolicyContext(policy_ref=PolicyRef(name="policy", overrides=wrong))  # type: ignore[arg-type]
    ),
    "PolicyEngine": PolicyEngine,
    "layers": lambda wrong: PolicyEngine(layers=wrong),
    "filter of policy": lambda wrong: filter_tools_by_policy(["a"], wrong),
    "filter of tools": lambda wrong: filter_tools_by_policy(wrong, {}),
    "issue to a scope": lambda wrong: Tokens().issue(scope=wrong, principal="p"),
    "issue to a principal": lambda wrong: Tokens().issue(scope="s", principal=wrong),
    "issue for a time": lambda wrong: Tokens().issue(scope="s", principal="p", lifetime_s=wrong),
    "known tokens": Tokens,
    "Secret": Secret,
}


@pytest.mark.parametrize("asked", ASKED)
def test_what_rules_scopes_and_secrets_are_made_of_is_looked_at(asked: str) -> None:
    for wrong in WRONG:
        try:
            run(ASKED[asked](wrong))
        except ReenactError as error:
            assert str(error), wrong


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("models", {"scripted": object()}),
        ("models", Models),
        ("retries", 3),
        ("retries", RetryPolicy()),
        ("clock", 1.0),
        ("clock", ManualClock),
        ("authenticator", {"token": "ann"}),
        ("environment_factory", {}),
        ("approval_handler", "yes"),
        ("threads", 0),
        ("threads", True),
        ("recover", "no"),
        ("armed", None),
        ("handler_timeout_s", math.nan),
        ("handler_timeout_s", math.inf),
    ],
)
def test_a_runtime_that_cannot_work_is_not_made_and_the_option_is_named(name: str, wrong: Any) -> None:
    with pytest.raises(BadInput, match=f"^{name} must be "):
        Runtime("memory://", **{name: wrong})


# -- times and numbers that are none --

TIMES = (math.nan, -1, -0.5, -math.inf, True, "5", 10**400)


@pytest.mark.parametrize("wrong", TIMES)
def test_a_time_to_wait_that_is_none_is_refused_and_nothing_waits_for_it(wrong: Any) -> None:
    async def work() -> None:
        async with Runtime("memory://", tools=[pay]) as runtime:
            bot = await runtime.image("bot", model="scripted:tools")
            manager = ActionManager(runtime)
            action = await manager.require_action(ActionSpec(type="confirm", session_id=bot.session_id))
            with pytest.raises(BadInput, match=r"^timeout must be a number of seconds from 0 on"):
                await manager.wait_for_resolution(action.action_id, wrong)
            still = await manager.get(action.action_id)
            assert still is not None and still.status == "pending"
            with pytest.raises(BadInput):
                await manager.require_action(
                    ActionSpec(type="confirm", session_id=bot.session_id, timeout_seconds=wrong)
                )
            with pytest.raises(BadInput, match=r"^timeout_s must be "):
                await bot.send("hi", timeout_s=wrong)
            with pytest.raises(BadInput, match=r"^timeout_s must be "):
                await bot.send("hi").result(wrong)
            with pytest.raises(BadInput, match=r"^timeout_s must be "):
                await runtime.request("container_list_request", timeout_s=wrong)
            await bot.send("hi")

    asyncio.run(asyncio.wait_for(work(), 20))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_has_not_is_refused_where_questions_and_answers_come_in(number: float) -> None:
    async def work() -> None:
        async with Runtime("memory://", tools=[pay]) as runtime:
            bot = await runtime.image("bot", model="scripted:tools")
            await bot.send("pay {}")
            [call] = await runtime.actions()
            manager, session = ActionManager(runtime), bot.session_id
            before = heads(runtime)
            with pytest.raises(BadInput, match=r"^payload\['of'\]\[1\] is -?(nan|inf)"):
                await manager.require_action(ActionSpec(type="custom", session_id=session, payload={"of": [1, number]}))
            with pytest.raises(BadInput, match=r"^metadata\['cost'\] is"):
                await manager.require_action(ActionSpec(type="custom", session_id=session, metadata={"cost": number}))
            with pytest.raises(BadInput, match=r"^metadata\['cost'\] is"):
                ExecutionContext(metadata={"cost": number})
            for resolution in ({"approved": True, "arguments": {"n": number}}, {"approved": number}):
                with pytest.raises(BadInput, match=r"^resolution\["):
                    await runtime.resolve_action(call.id, resolution)
                with pytest.raises(BadInput, match=r"^resolution\["):
                    await manager.resolve(action_id=call.id, resolution=resolution)
            assert heads(runtime) == before and [each.id for each in await runtime.actions()] == [call.id]

    asyncio.run(work())


@pytest.mark.parametrize("key", [1, 2.5, None, True])
def test_a_key_that_is_no_text_is_refused_where_questions_and_answers_come_in(key: Any) -> None:
    async def work() -> None:
        async with Runtime("memory://") as runtime:
            bot = await runtime.image("bot", model="scripted:echo")
            await bot.send("hello")
            manager, session = ActionManager(runtime), bot.session_id
            spec = ActionSpec(type="custom", session_id=session)
            for wrong in ({"payload": {"of": [{key: 1}]}}, {"metadata": {"a": {key: 2}}}):
                with pytest.raises(BadInput, match=r"has the key .*, which is no text"):
                    await manager.require_action(replace(spec, **wrong))
            with pytest.raises(BadInput, match=r"^metadata has the key"):
                ExecutionContext(metadata={key: 1})
            action = await manager.require_action(spec)
            before = heads(runtime)
            for resolution in ({key: 2}, {"a": {key: 2}}):
                with pytest.raises(BadResolution, match=r"^resolution.* has the key .*, which is no text"):
                    await runtime.resolve_action(action.action_id, resolution)
            assert heads(runtime) == before

    asyncio.run(work())


def test_no_token_that_is_none_says_why() -> None:
    for wrong in WRONG:
        with pytest.raises(Unauthenticated):
            asyncio.run(Tokens().authenticate(wrong))


@pytest.mark.parametrize("field", ["requested_tokens", "requested_cost", "tool_calls", "turn"])
@pytest.mark.parametrize("wrong", [math.nan, -1, "3", True, Decimal("NaN")])
def test_an_amount_that_is_none_passes_no_limit(field: str, wrong: Any) -> None:
    if field == "requested_cost" and wrong == "3":
        return  # an amount as it is written
    with pytest.raises(BadInput, match=f"^{field}: "):
        PolicyContext(**{field: wrong})
