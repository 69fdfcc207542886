"""On whose behalf, and as a part of what: contexts, tokens that cancel, and tokens that say who somebody is."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import weakref
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from reenact import (
    CancellationToken,
    ExecutionContext,
    Policy,
    PolicyEngine,
    PolicyRef,
    Runtime,
    RunVersions,
    tool,
)
from reenact.adapters.hosts.caller import PERSON, own_principal
from reenact.adapters.models.scripted import Scripted
from reenact.events.action import AGENT_PRINCIPALS, HANDLER, is_reserved
from reenact.events.budget import BudgetSpec
from reenact.events.errors import BadInput, Cancelled, Refused, Unauthenticated
from reenact.events.log import MemoryStore
from reenact.events.message import Context
from reenact.identity.credential import TOKENS_MAX, Known, Tokens
from tests.runtimes import HELLO, Gate, Models, run, runtime

NAMES = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
CONTEXTS = st.builds(
    ExecutionContext,
    scope_id=NAMES,
    principal_id=NAMES,
    session_id=st.none() | NAMES,
    run_id=st.none() | NAMES,
    job_id=st.none() | NAMES,
    trace_id=NAMES,
    span_id=NAMES,
    parent_span_id=st.none() | NAMES,
    policy_ref=st.none() | st.builds(PolicyRef, name=NAMES, version=st.none() | NAMES),
    budgets=st.none() | st.builds(BudgetSpec, max_tokens=st.integers(1, 9), max_cost=st.sampled_from(["0.5", None])),
    versions=st.none() | st.builds(RunVersions, model_version=st.none() | NAMES, schema_version=st.integers(1, 9)),
    metadata=st.dictionaries(st.text(), JSON, max_size=3),
)
TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01")


@given(CONTEXTS)
def test_a_context_comes_back_from_its_plain_form(context: ExecutionContext) -> None:
    plain = context.to_dict()
    assert ExecutionContext.from_dict(json.loads(json.dumps(plain))) == context
    assert "cancellation" not in plain


@given(CONTEXTS)
def test_a_child_is_a_new_span_of_the_same_trace_with_a_linked_token(context: ExecutionContext) -> None:
    child = context.child()
    assert (child.trace_id, child.parent_span_id) == (context.trace_id, context.span_id)
    assert child.span_id != context.span_id and child.traceparent != context.traceparent
    assert child.traceparent[:36] == context.traceparent[:36]
    same = {name: getattr(child, name) for name in context.to_dict() if "span" not in name}
    assert same == {name: getattr(context, name) for name in same}
    assert context.child(new_span=False).span_id == context.span_id
    child.cancellation.cancel()
    assert not context.cancellation.cancelled
    grandchild = context.child().child()
    context.cancellation.cancel("enough")
    assert grandchild.cancellation.reason == "enough"


@given(CONTEXTS)
def test_with_a_job_it_is_the_same_but_for_the_job(context: ExecutionContext) -> None:
    other = context.with_job("job-xyz")
    assert other.job_id == "job-xyz" and other.with_job(context.job_id or "x").span_id == context.span_id
    assert other.cancellation is context.cancellation
    assert TRACEPARENT.fullmatch(other.traceparent)
    assert context.to_request_context() == Context(
        context.scope_id, context.principal_id, session_id=context.session_id
    )


def test_ids_of_the_web_are_carried_as_they_are_and_others_as_their_digest() -> None:
    web = ExecutionContext(trace_id="4bf92f3577b34da6a3ce929d0e0e4736", span_id="00f067aa0ba902b7")
    assert web.traceparent == "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    own = ExecutionContext(trace_id="trace-ghi", span_id="span-jkl")
    assert own.traceparent == ExecutionContext(trace_id="trace-ghi", span_id="span-jkl").traceparent
    assert TRACEPARENT.fullmatch(own.traceparent)


@pytest.mark.parametrize(
    "fields",
    [
        {"scope_id": ""},
        {"scope_id": None},
        {"scope_id": 3},
        {"principal_id": "a\nb"},
        {"session_id": " "},
        {"job_id": "x" * 257},
        {"metadata": {"a": object()}},
        {"metadata": []},
        {"budgets": 5},
        {"policy_ref": "strict"},
        {"policy_ref": {"deny": ["*"]}},
        {"versions": []},
        {"cancellation": None},
    ],
)
def test_a_context_that_makes_no_sense_is_refused(fields: Any) -> None:
    with pytest.raises(BadInput):
        ExecutionContext(**fields)


@pytest.mark.parametrize(
    "given", [None, [], {"scope": "x"}, {"cancellation": None}, {"versions": 3}, {"policy_ref": {"name": 3}}, {3: 4}]
)
def test_a_plain_form_that_is_none_is_refused(given: Any) -> None:
    with pytest.raises(BadInput):
        ExecutionContext.from_dict(given)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"budgets": {"maxTurn": 0}}, "maxTurn"),
        ({"budgets": {"max_turns": 0, "maxTurns": 1}}, "max_turns twice"),
        ({"budgets": {"max_cost": -1}}, "max_cost"),
        ({"budgets": {"max_cost": float("nan")}}, "max_cost"),
        ({"budgets": {"max_tool_calls": 1, "on_breach": "ask"}}, "max_tool_calls"),
        ({"budgets": []}, "an object of limits"),
        ({"policy_ref": {"name": "house", "override": {"deny": ["*"]}}}, "override"),
        ({"policy_ref": {"name": "house", "Version": "7"}}, "Version"),
        ({"versions": {"modelVersion": "7"}}, "modelVersion"),
    ],
)
def test_what_a_plain_form_says_and_nobody_knows_is_refused_by_name(given: Any, named: str) -> None:
    """Given a plain form with a word that is not known, when it is read, then it is no context without that limit."""
    with pytest.raises(BadInput, match=named):
        ExecutionContext.from_dict(given)


@given(CONTEXTS, st.booleans())
def test_a_plain_budget_limits_the_same_in_either_spelling(context: ExecutionContext, camel: bool) -> None:
    """Given a budget in the words of Python or in those of JSON, when a context is read, then it is that budget."""
    budget = context.budgets or BudgetSpec(max_turns=0, max_cost="0.01", on_breach="ask")
    plain = msgspec.to_builtins(budget) if camel else msgspec.structs.asdict(budget)
    assert ExecutionContext.from_dict({**context.to_dict(), "budgets": plain}).budgets == budget


def test_what_is_sent_for_a_context_that_was_read_is_within_its_budget() -> None:
    async def work(opened: Runtime) -> None:
        context = ExecutionContext.from_dict({"principal_id": "eve", "budgets": {"max_turns": 0}})
        result = await (await opened.as_(context).image("bot")).send("hi")
        assert result.status == "failed" and "max_turns" in str(result.failure)

    run(work)


# -- cancelling --


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
def test_a_token_is_cancelled_once_and_tells_all_that_hear_it(error: type[BaseException]) -> None:
    token, heard = CancellationToken(), []

    def broken() -> None:
        raise error

    token.on_cancel(broken)
    token.on_cancel(lambda: heard.append(1))
    forget = token.on_cancel(lambda: heard.append(2))
    forget()
    token.check()
    token.cancel("first")
    token.cancel("second")
    token.on_cancel(lambda: heard.append(3))
    assert heard == [1, 3] and token.reason == "first"
    with pytest.raises(Cancelled, match="first"):
        token.check()


def test_a_token_that_has_ended_leaves_nothing_with_its_parent() -> None:
    parent = CancellationToken()
    for _ in range(100):
        parent.linked().cancel()
    assert not parent._heard


def test_a_context_keeps_nothing_of_its_children_that_nobody_has() -> None:
    """Given a context, when children of it were used and dropped, then it holds none of them and nothing of theirs."""

    async def work(opened: Runtime) -> None:
        context = ExecutionContext(scope_id="acme", principal_id="eve")
        bot = await opened.as_(context).image("bot")
        dropped = []
        for _ in range(3):
            child = context.child()
            dropped += [weakref.ref(child.cancellation), weakref.ref(child.child().cancellation)]
            await (await opened.as_(child).send(bot.id, "hi"))
        del child
        gc.collect()
        assert [token() for token in dropped] == [None] * 6
        assert not context.cancellation._heard

    run(work)


@given(st.data())
def test_whatever_is_linked_and_cancelled_each_who_hears_of_it_hears_once(data: st.DataObject) -> None:
    """Given tokens linked as a tree, all held or only the first and the last, when some are cancelled, then
    whoever hears of one of those or of one below hears of it once, and nothing is kept of whom it was told to."""
    parents = data.draw(st.lists(st.integers(0, 7), min_size=1, max_size=8))
    tokens, line, heard, forgets = [CancellationToken()], [{0}], [], []
    for number, drawn in enumerate(parents, 1):
        parent = drawn % number
        tokens.append(tokens[parent].linked())
        line.append({number, *line[parent]})
    for number, token in enumerate(tokens):
        forgets.append(token.on_cancel(partial(heard.append, number)))
    forgotten = data.draw(st.sets(st.integers(0, len(parents))))
    for number in forgotten:
        forgets[number]()
    dropped = data.draw(st.booleans())
    ends = [0] if dropped else data.draw(st.lists(st.integers(0, len(parents)), max_size=4))
    if dropped:
        first, last = tokens[0], tokens[-1]
        del token, tokens
        gc.collect(0)
        tokens = [first, *[last] * len(parents)]
    for number in ends:
        tokens[number].cancel(f"at {number}")
    cancelled = {number for number, above in enumerate(line) if above & set(ends)}
    assert sorted(heard) == sorted(cancelled - forgotten)
    assert len(tokens[0]._heard) == len(line) - len(cancelled | forgotten)
    for number, token in enumerate(tokens):
        assert dropped or token.cancelled == (number in cancelled)
        first_end = next((end for end in ends if end in line[number]), None)
        assert token.reason == (None if first_end is None else f"at {first_end}")


def test_a_line_of_children_however_long_is_cancelled_with_its_first() -> None:
    """Given a child of a child and so on, when the first is cancelled, then so is the last, and whoever hears of it."""
    first, heard = ExecutionContext(), []
    last = first
    for _ in range(5_000):
        last = last.child()
    last.cancellation.on_cancel(lambda: heard.append(1))
    first.cancellation.cancel("enough")
    assert heard == [1] and last.cancellation.reason == "enough"


def test_cancelling_a_context_cancels_what_was_sent_with_it_and_nothing_else() -> None:
    async def work(opened: Runtime) -> None:
        context = ExecutionContext(scope_id="acme", principal_id="eve")
        view, other = opened.as_(context), opened.as_(context.child())
        own = opened.scoped(scope="acme", principal="eve")
        runs = [await (await each.image(f"bot {n}")).send("hi").run() for n, each in enumerate((view, other, own))]
        await asyncio.gather(*(run.accepted() for run in runs))
        other.context.cancellation.cancel("not wanted")
        assert (await runs[1]).status == "cancelled"
        assert not context.cancellation.cancelled
        context.cancellation.cancel()
        assert (await runs[0]).status == "cancelled"
        assert (await own.session_state(runs[2].session_id)).running is not None
        with pytest.raises(Cancelled):
            await (await view.image("bot 0")).send("again")

    run(work, models=Models({"scripted": Gate()}))


def test_given_a_context_that_was_cancelled_then_no_message_is_sent_by_its_bus_either() -> None:
    async def work(opened: Runtime) -> None:
        view = opened.as_(ExecutionContext(scope_id="acme", principal_id="eve"))
        bot = await view.image("bot")
        asked = {"imageId": bot.id, "content": "hi"}
        assert (await view.request("message_send_request", asked)).type == "message_send_response"
        view.context.cancellation.cancel("enough")
        for sending in (view.request, view.bus.request):
            with pytest.raises(Cancelled, match="enough"):
                await sending("message_send_request", asked)
        with pytest.raises(Cancelled, match="enough"):
            view.bus.emit_command("message_send_request", asked)
        assert len([event for event in await bot.events() if event.type == "job_queued"]) == 1

    run(work)


def test_the_trace_of_a_context_is_in_the_envelope_of_everything_that_follows() -> None:
    async def work(opened: Runtime) -> None:
        context = ExecutionContext(scope_id="acme", principal_id="eve")
        view = opened.as_(context)
        bot = await view.image("bot")
        await bot.send("hi")
        heads = [recorded.head for recorded in await bot.events()]
        assert {(head.trace, head.context.scope, head.context.principal) for head in heads} == {
            (context.traceparent, "acme", "eve")
        }
        quiet = await opened.scoped(scope="acme", principal="eve").image("quiet")
        assert {recorded.head.trace for recorded in await quiet.events()} == {None}

    run(work)


# -- what is made of a view --


@tool(effect="idempotent")
def pay(cents: int) -> str:
    """Pay."""
    return "paid"


PAYING = [{"tool_calls": [{"name": "pay", "input": {"cents": 1}}]}, {"text": "ok"}]


def engine() -> PolicyEngine:
    engine = PolicyEngine()
    engine.add_policy(Policy(name="strict", deny=["pay"]))
    engine.add_policy(Policy(name="other"))
    return engine


DERIVED = {
    "scoped": lambda view: view.scoped(),
    "for another principal": lambda view: view.scoped(principal="bob"),
    "for a context of its own": lambda view: view.as_(ExecutionContext(scope_id="acme", principal_id="eve")),
    "for a child": lambda view: view.as_(view.context.child(policy_ref=None, budgets=None)),
    "twice": lambda view: view.scoped().as_(ExecutionContext(scope_id="acme")).scoped(),
}


@pytest.mark.parametrize("made", DERIVED.values(), ids=DERIVED)
def test_what_is_made_of_a_view_keeps_its_policy_its_budget_its_trace_and_its_cancellation(made: Any) -> None:
    async def work(opened: Runtime) -> None:
        view = opened.as_(
            ExecutionContext(
                scope_id="acme",
                principal_id="eve",
                policy_ref=PolicyRef(name="strict"),
                budgets=BudgetSpec(max_turns=2),
            )
        )
        derived = made(view)
        assert (derived.context.policy_ref, derived.context.budgets) == (view.context.policy_ref, view.context.budgets)
        assert derived.context.trace_id == view.context.trace_id
        bot = await derived.image("bot")
        await bot.send("pay")
        assert [each.data.outcome for each in await bot.events() if each.type == "tool_settled"] == ["denied"]
        assert {event.head.trace[:36] for event in await bot.events()} == {view.context.traceparent[:36]}
        for request in (derived.request, derived.bus.request):
            with pytest.raises(BadInput, match="not the bus"):
                await request("message_send_request", {"imageId": bot.id, "content": "hi"})
        view.context.cancellation.cancel("enough")
        with pytest.raises(Cancelled):
            await bot.send("again")

    run(work, PAYING, repeat=False, tools=[pay], policy=engine())


def test_a_job_sent_by_what_is_made_of_a_view_is_cancelled_with_either() -> None:
    async def work(opened: Runtime) -> None:
        for which in (0, 1):
            view = opened.as_(ExecutionContext(scope_id="acme", principal_id=f"eve {which}"))
            derived = view.as_(ExecutionContext(scope_id="acme", principal_id=f"eve {which}"))
            sent = await (await derived.image(f"bot {which}")).send("hi").run()
            await sent.accepted()
            (view, derived)[which].context.cancellation.cancel("enough")
            assert (await sent).status == "cancelled"
            assert not (derived, view)[which].context.cancellation.cancelled

    run(work, models=Models({"scripted": Gate()}))


def test_the_bounds_of_a_view_can_only_be_narrowed() -> None:
    def of(**bounds: Any) -> ExecutionContext:
        return ExecutionContext(scope_id="acme", **bounds)

    async def work(opened: Runtime) -> None:
        view = opened.as_(
            of(
                policy_ref=PolicyRef(name="strict"),
                budgets=BudgetSpec(max_turns=2, max_cost="10", on_breach="ask", unpriced="allow"),
            )
        )
        other = of(budgets=BudgetSpec(max_turns=3, max_cost="9", max_tokens=5, unpriced="allow"))
        assert view.as_(other).context.budgets == BudgetSpec(
            max_turns=2, max_cost="9", max_tokens=5, unpriced="allow", on_breach="deny"
        )
        narrower = view.as_(of(policy_ref=PolicyRef(name="strict", overrides={"deny": ["look"]})))
        for made, ref in (
            (view, PolicyRef(name="other")),
            (view, PolicyRef(name="strict", version="1")),
            (narrower, PolicyRef(name="strict")),
            (narrower, PolicyRef(name="strict", overrides={"deny": []})),
        ):
            with pytest.raises(BadInput, match="held to the policy strict"):
                made.as_(of(policy_ref=ref))

    run(work, tools=[pay], policy=engine())


def test_a_view_that_limits_turns_leaves_the_word_about_unpriced_models_to_the_one_around_it() -> None:
    def of(**limits: Any) -> ExecutionContext:
        return ExecutionContext(scope_id="acme", budgets=BudgetSpec(**limits))

    async def work(opened: Runtime) -> None:
        money = opened.as_(of(max_cost="1", unpriced="allow"))
        for view in (money.as_(of(max_turns=3)), opened.as_(of(max_turns=3)).as_(money.context)):
            bot = await view.image("bot")
            assert (await bot.send("hi")).status == "succeeded"
        strict = money.as_(of(max_cost="5"))
        assert strict.context.budgets == BudgetSpec(max_cost="1", unpriced="deny")

    run(work, models=Models({"local": Scripted(HELLO, repeat=True)}), default_agent={"model": "local:llama"})


@pytest.mark.parametrize("given", [None, 5, "acme", {}, {"scope_id": "acme"}])
def test_only_a_context_says_on_whose_behalf_something_is_done(given: Any) -> None:
    async def work(opened: Runtime) -> None:
        for of in (opened, opened.scoped(scope="acme")):
            with pytest.raises(BadInput, match="ExecutionContext"):
                of.as_(given)

    run(work)


# -- who somebody is --


class At:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.at = 1_000_000

    def now(self) -> int:
        return self.at

    def new_id(self) -> str:
        return "0" * 32


def who(tokens: Tokens, token: str) -> ExecutionContext:
    return asyncio.run(tokens.authenticate(token))


def test_a_token_says_who_shows_it_until_it_is_revoked_or_late() -> None:
    clock = At()
    tokens = Tokens(clock=clock)
    secret, known = tokens.issue(scope="acme", principal="eve", lifetime_s=10)
    lasting, _ = tokens.issue(scope="acme", principal="bob")
    context = who(tokens, secret.reveal())
    assert (context.scope_id, context.principal_id) == ("acme", "eve")
    said = set()
    for wrong in ("", "x", secret.reveal() + "x", known.digest, known.id, "\ud800"):
        with pytest.raises(Unauthenticated) as raised:
            who(tokens, wrong)
        said.add(str(raised.value))
    clock.at += 10_000_000
    with pytest.raises(Unauthenticated) as raised:
        who(tokens, secret.reveal())
    assert said | {str(raised.value)} == {"This credential is not accepted."}
    clock.at -= 5_000_000
    with pytest.raises(Unauthenticated):
        who(tokens, secret.reveal())  # a clock that is set back does not bring it back
    assert who(tokens, lasting.reveal()).principal_id == "bob"
    assert tokens.revoke(tokens.known[0].id) and not tokens.revoke("none")
    with pytest.raises(Unauthenticated):
        who(tokens, lasting.reveal())


def test_what_is_kept_of_a_token_gives_it_to_nobody_and_serves_the_next_process() -> None:
    import msgspec

    tokens = Tokens()
    secret, known = tokens.issue(scope="acme", principal="eve")
    stored = msgspec.json.encode(tokens.known)
    assert secret.reveal() not in stored.decode() and len(secret.reveal()) >= 43
    again = Tokens(msgspec.json.decode(stored, type=tuple[Known, ...]))
    assert who(again, secret.reveal()).scope_id == "acme" and again.known == (known,)


@pytest.mark.parametrize(
    "asked",
    [
        {"scope": "", "principal": "eve"},
        {"scope": "acme", "principal": "agent:x"},
        {"scope": "acme", "principal": "eve", "lifetime_s": 0},
        {"scope": "acme", "principal": "eve", "lifetime_s": float("nan")},
    ],
)
def test_a_token_for_nobody_is_not_issued(asked: Any) -> None:
    with pytest.raises(BadInput):
        Tokens().issue(**asked)


def test_so_many_tokens_are_issued_and_no_more_before_one_is_revoked() -> None:
    known = [Known(id=str(n), digest=str(n), scope="acme", principal="ann") for n in range(TOKENS_MAX)]
    tokens = Tokens(known)
    with pytest.raises(BadInput, match="revoke some"):
        tokens.issue(scope="acme", principal="bob")
    assert tokens.revoke("7") and tokens.issue(scope="acme", principal="bob")


RESERVED = ["agent:x", "tool:x", "handler", "handler:yes", "cli:ann@tty1", "policy", "system", " Handler :yes"]


@pytest.mark.parametrize("principal", ["owner", "eve/admin", *RESERVED])
def test_what_a_token_gave_acts_for_its_principal_and_for_no_other(principal: str) -> None:
    tokens = Tokens()
    secret, _ = tokens.issue(scope="acme", principal="eve")

    async def work(opened: Runtime) -> None:
        eve = await opened.authenticate(secret.reveal())
        for view in (eve, eve.scoped(), eve.as_(eve.context.child()), eve.scoped(principal="eve")):
            assert view.principal == "eve"
            with pytest.raises(Refused, match="ask the runtime itself"):
                view.scoped(principal=principal)
            with pytest.raises(Refused, match="ask the runtime itself"):
                view.as_(ExecutionContext(scope_id="acme", principal_id=principal))

    run(work, authenticator=tokens)


@pytest.mark.parametrize("principal", RESERVED)
def test_no_view_becomes_an_agent_a_handler_or_a_terminal(principal: str) -> None:
    async def work(opened: Runtime) -> None:
        view = opened.scoped(scope="acme", principal="eve")
        with pytest.raises(Refused, match="reserved"):
            view.scoped(principal=principal)
        with pytest.raises(Refused, match="reserved"):
            view.as_(ExecutionContext(scope_id="acme", principal_id=principal))

    run(work)


@pytest.mark.parametrize("principal", RESERVED)
def test_no_token_makes_its_holder_look_like_an_agent_a_handler_or_a_terminal(principal: str) -> None:
    with pytest.raises(BadInput, match="give another name"):
        Tokens().issue(scope="acme", principal=principal)
    secret, known = Tokens().issue(scope="acme", principal="eve")
    with pytest.raises(BadInput, match="give another name"):
        Tokens([replace(known, principal=principal)])

    class Theirs:
        async def authenticate(self, token: str) -> ExecutionContext:
            return ExecutionContext(scope_id="acme", principal_id=principal)

    async def work(opened: Runtime) -> None:
        with pytest.raises(Unauthenticated, match="reserved"):
            await opened.authenticate(secret.reveal())

    run(work, authenticator=Theirs())


def test_what_is_reserved_begins_as_what_is_recorded() -> None:
    assert all(is_reserved(each) for each in (*AGENT_PRINCIPALS, HANDLER, PERSON, own_principal()))
    assert not any(is_reserved(each) for each in ("user", "agents", "ann", "ann:agent", "handlers:1"))


def test_a_runtime_acts_for_whoever_shows_a_token() -> None:
    tokens, store = Tokens(), MemoryStore()
    secret, _ = tokens.issue(scope="acme", principal="eve")

    async def main() -> None:
        async with runtime(store=store, authenticator=tokens) as opened:
            view = await opened.authenticate(secret.reveal())
            bot = await view.image("bot")
            await bot.send("hi")
            with pytest.raises(Unauthenticated):
                await opened.authenticate("somebody")
        async with runtime() as opened:
            with pytest.raises(Unauthenticated):
                await opened.authenticate(secret.reveal())

    asyncio.run(asyncio.wait_for(main(), 20))
    assert {(each.batch.head.context.scope, each.batch.head.context.principal) for each in store.all} == {
        ("acme", "eve")
    }


def test_what_is_sent_with_a_context_may_spend_what_the_context_says() -> None:
    async def work(opened: Runtime) -> None:
        view = opened.as_(ExecutionContext(scope_id="acme", budgets=BudgetSpec(max_turns=2)))
        bot = await view.image("bot")
        result = await bot.send("hi")
        assert (result.status, result.steps) == ("failed", 2), result
        assert (await bot.send("hi", budget=BudgetSpec(max_turns=3))).steps == 3

    run(work, [{"tool_calls": [{"name": "nothing", "input": {}}]}])
