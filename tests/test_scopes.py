"""Two tenants of one runtime: nothing of the one is seen or changed through the other, by any method, request or view.

What is asked about another's things is answered word for word as what is asked about things that are not there. Every
public method is listed here; one that is not fails a test.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from reenact import ExecutionContext, Runtime, tool
from reenact.access import Access
from reenact.actors.cell import Cell
from reenact.adapters.models import Models
from reenact.adapters.models.scripted import Scripted
from reenact.asking import Asking
from reenact.environment import EnvironmentSpec
from reenact.events.errors import BadInput, NotFound, Refused
from reenact.events.image import ImageConfig
from reenact.events.log import MemoryLog, MemoryStore
from reenact.events.message import Context
from reenact.events.model import Credentials
from reenact.events.session import CancelJob
from reenact.pane import Pane
from reenact.reading import Reading
from reenact.requests import NAMES
from reenact.scoped import Acting, ScopedBus
from tests.runtimes import HELLO, Gate, Heard, runtime

TURN_S = 5.0


@tool(effect="read")
def look() -> str:
    """Look."""
    return "looked"


@tool(effect="read", approval="ask")
def pay(to: str) -> str:
    """Pay somebody, when a person says so."""
    return "paid"


class Theirs(Struct, frozen=True):
    """The names of another tenant's things, or of things that are nowhere."""

    container: str
    image: str
    name: str
    session: str
    alias: str
    agent: str
    job: str
    key: str
    call: str
    action: str
    grant: str
    token: str


_NO = "0" * 32
NOWHERE = Theirs(
    *("nothing", f"img_{_NO}", "noname", f"sess_{_NO}", "noalias", f"agent_{_NO}", f"job_{_NO}", "nokey"),
    *("t9", "a9", "a8", "no token at all"),
)
SECRET = "the-words-of-alice"

# -- what can be done through a view, each with another's names --


async def _listened(view: Acting, listen: Callable[[Callable[[Any], Any]], Any]) -> list[str]:
    """What a subscription hears while the other tenant is busy; its own things it hears."""
    heard: list[Any] = []
    with listen(heard.append):
        await _busy(view)
    return [event.type for event in heard if SECRET in repr(event) or event.context.scope != view.scope]


async def _busy(view: Acting) -> None:
    """The other tenant says something."""
    other = view._root.scoped(scope="alice", principal="alice")
    bot = await other.image("noise", container="noise")
    await bot.send(SECRET)


async def _streamed(view: Acting) -> list[str]:
    live = view.stream()
    await _busy(view)
    await (await view.image("own")).send("mine")
    seen = []
    async for event in live:
        seen.append(event)
        if event.type == "job_succeeded":
            break
    return [event.type for event in seen if event.context.scope != view.scope]


async def _followed(view: Acting) -> list[str]:
    await _busy(view)
    await (await view.image("own")).send("mine")
    seen = []
    async for recorded in view.follow():
        seen.append(recorded)
        if recorded.type == "job_succeeded":
            break
    return [recorded.type for recorded in seen if recorded.context.scope != view.scope]


async def _logged(view: Acting, theirs: Theirs) -> object:
    log = view.log
    streams = (f"session-{theirs.session}", f"image-{theirs.image}", f"container-{theirs.container}")
    return [
        [(log.read(stream), log.head(stream), log.has(stream)) for stream in streams],
        [stored for stored in log.read_all() if stored.batch.head.context.scope != view.scope],
        [log.keyed(scope, f"send:{theirs.key}") for scope in ("alice", view.scope)],
        [stream for stream in log.streams() if not log.has(stream)],
    ]


async def _images(view: Acting, theirs: Theirs) -> object:
    return [[state.image_id for state in await view.images(which)] for which in (theirs.container,)] + [
        theirs.image in [state.image_id for state in await view.images()]
    ]


Probe = Callable[[Acting, Theirs], Awaitable[object]]

PROBES: dict[str, Probe] = {
    "on": lambda view, theirs: _listened(view, lambda hear: view.on(["text_delta", "job_queued"], hear)),
    "on_any": lambda view, theirs: _listened(view, view.on_any),
    "once": lambda view, theirs: _listened(view, lambda hear: view.once("job_queued", hear)),
    "stream": lambda view, theirs: _streamed(view),
    "follow": lambda view, theirs: _followed(view),
    "log": _logged,
    "ask": lambda view, theirs: view.ask(f"session-{theirs.session}", CancelJob(job_id=theirs.job)),
    "create_container": lambda view, theirs: view.create_container(theirs.container),
    "container_state": lambda view, theirs: view.container_state(theirs.container),
    "container_ids": lambda view, theirs: view.container_ids(),
    "image": lambda view, theirs: view.image(theirs.name, container=theirs.container),
    "open_image": lambda view, theirs: view.open_image(theirs.image, theirs.session),
    "image_named": lambda view, theirs: view.image_named(theirs.name, container=theirs.container),
    "create_image": lambda view, theirs: view.create_image(
        theirs.container, ImageConfig(model="scripted:any"), alias=theirs.name
    ),
    "find_image": lambda view, theirs: view.find_image(theirs.image),
    "image_state": lambda view, theirs: view.image_state(theirs.image),
    "images": _images,
    "update_image": lambda view, theirs: view.update_image(theirs.image, {"name": "stolen"}),
    "delete_image": lambda view, theirs: view.delete_image(theirs.image),
    "new_session": lambda view, theirs: view.new_session(theirs.image, alias=theirs.alias),
    "send": lambda view, theirs: view.send(theirs.image, "hi", key=theirs.key),
    "sending": lambda view, theirs: view.sending(theirs.image, "hi", session_id=theirs.session),
    "submit": lambda view, theirs: _submitted(view, theirs),
    "messages": lambda view, theirs: view.messages(theirs.session),
    "events": lambda view, theirs: view.events(theirs.session, after=1),
    "wake": lambda view, theirs: view.wake(theirs.image, theirs.session),
    "session_state": lambda view, theirs: view.session_state(theirs.session),
    "resume": lambda view, theirs: view.resume(theirs.session),
    "stop_image": lambda view, theirs: view.stop_image(theirs.image),
    "stop_agent": lambda view, theirs: view.stop_agent(theirs.agent),
    "interrupt": lambda view, theirs: view.interrupt(theirs.image, session_id=theirs.session),
    "cancel": lambda view, theirs: view.cancel(theirs.session, theirs.job),
    "resolve": lambda view, theirs: view.resolve(theirs.session, theirs.call, "ok"),
    "agent_of": lambda view, theirs: view.agent_of(theirs.image),
    "agents": lambda view, theirs: view.agents(theirs.container),
    "find_agent": lambda view, theirs: view.find_agent(theirs.agent),
    "replay": lambda view, theirs: view.replay(theirs.session),
    "actions": lambda view, theirs: view.actions(theirs.session),
    "pending": lambda view, theirs: view.pending(),
    "action": lambda view, theirs: view.action(f"{theirs.session}:{theirs.action}"),
    "resolve_action": lambda view, theirs: view.resolve_action(f"{theirs.session}:{theirs.action}", True),
    "cancel_action": lambda view, theirs: view.cancel_action(f"{theirs.session}:{theirs.action}", cancel_job=True),
    "issue_token": lambda view, theirs: view.issue_token(f"{theirs.session}:{theirs.action}"),
    "grants": lambda view, theirs: view.grants(theirs.session),
    "revoke_grant": lambda view, theirs: view.revoke_grant(f"{theirs.session}:{theirs.grant}"),
    "set_policy": lambda view, theirs: view.set_policy(theirs.container, {"name": "theirs", "deny": ["*"]}),
    "policies_of": lambda view, theirs: view.policies_of(theirs.image),
    "load_tool_policy": lambda view, theirs: view.load_tool_policy(theirs.agent),
    "save_tool_policy": lambda view, theirs: view.save_tool_policy(theirs.image, {"denied_tools": ("look",)}),
    "bring_policy": lambda view, theirs: view.bring_policy(theirs.session),
    "all_actions": lambda view, theirs: view.all_actions(theirs.session),
    "action_of_token": lambda view, theirs: view.action_of_token(theirs.token),
    "session_of": lambda view, theirs: view.session_of(theirs.job),
    "set_budget": lambda view, theirs: view.set_budget({"session_id": theirs.session, "max_cost_total": "1"}),
    "remove_budget": lambda view, theirs: view.remove_budget(session_id=theirs.session),
    "budget": lambda view, theirs: view.budget(),
    "budgets": lambda view, theirs: _said(view.budgets),
    "request": lambda view, theirs: _requested(view, theirs),
}


async def _said(what: object) -> object:
    return what


async def _submitted(view: Acting, theirs: Theirs) -> object:
    """One's own image, and a session that is another's: the way in that no image guards."""
    from reenact.given import content_of

    own = await view.image("own")
    run = view.submit(await view.image_state(own.id), content_of("hi"), session_id=theirs.session)
    return await run.result(TURN_S)


async def _requested(view: Acting, theirs: Theirs) -> object:
    return [(await view.request(name, _asked(name, theirs))).data for name in sorted(NAMES)]


LISTENING = {"on", "on_any", "once", "stream", "follow"}
"""These give what they heard of others."""

NEITHER_READ_NOR_COMMAND = {
    # Who acts, and how the view begins and ends.
    *("as_", "scoped", "authenticate", "open", "close", "dispose", "context", "scope", "principal", "acting_as", "bus"),
    # The program's own, the same for every tenant.
    *("tools", "default_agent", "base_path", "clock", "new_id"),
    # Of the view's own scope, by its nature: see the test of secrets.
    "secret",
}


def _asked(name: str, theirs: Theirs) -> dict[str, Any]:
    """The data of a request that names another's things wherever it can."""
    return {
        "containerId": theirs.container,
        **({} if name == "container_create_request" else {"imageId": theirs.image}),
        **({"agentId": theirs.agent} if name.startswith("agent_") else {}),
        "content": "hi",
        "updates": {"name": "stolen"},
        "config": {"model": "scripted:any"},
        "idempotencyKey": theirs.key,
        "requestId": f"req {name}",
        "actionId": f"{theirs.session}:{theirs.action}",
        "sessionId": theirs.session,
        "resolution": {"approved": True},
    }


async def outcome(view: Acting, probe: Probe, theirs: Theirs) -> str:
    """What a caller learns, without the names that it used itself and the ids that are made anew each time."""
    try:
        said: object = await asyncio.wait_for(_awaited(probe(view, theirs)), 10)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    text = repr(said)
    for field in Theirs.__struct_fields__:
        text = re.sub(rf"\b{re.escape(getattr(theirs, field))}\b", f"<{field}>", text)
    return _MADE.sub("<made>", text)


async def _awaited(work: Awaitable[object]) -> object:
    return await work


_MADE = re.compile(r"(?:img|sess|agent|job|container)_[0-9a-f]{32}|\b[0-9a-f]{32}\b|\b1\d{12,15}\b|0x[0-9a-f]+")


class Office:
    """A runtime with two tenants in it."""

    def __init__(self, opened: Runtime) -> None:
        self.root = opened
        self.alice = opened.scoped(scope="alice", principal="alice")

    def bob(self) -> Acting:
        return self.root.scoped(scope="bob", principal="bob")

    async def furnish(self, doings: list[str]) -> Theirs:
        """What alice has, after having done this: also leave that was given, a question that waits, and a limit."""
        alice = self.alice
        bot = await alice.image("secretary", container="acme", instructions=SECRET)
        session = await alice.new_session(bot.id, alias="diary")
        bot = await alice.open_image(bot.id, session)
        sent = await bot.send(SECRET, key="once").run()
        if "wait" in doings:
            await sent.result()
        for doing in doings:
            match doing:
                case "send":
                    await bot.send(f"{SECRET} again")
                case "update":
                    await alice.update_image(bot.id, {"description": SECRET})
                case "stop":
                    await alice.stop_image(bot.id)
                case "session":
                    await alice.new_session(bot.id)
                case "other":
                    await alice.image("other", container="acme")
        await sent.result()
        await alice.set_budget({"session_id": session, "max_requests_daily": 10**6})
        agent = await alice.wake(bot.id, session)
        await bot.send("pay", model="scripted:pays-ann")
        heard = Heard(self.root)
        await alice.resolve_action(f"{session}:a1", True, always="exact")
        await heard.until("job_succeeded")
        waits = await bot.send("pay", model="scripted:pays-ben")
        token = await alice.issue_token(f"{session}:a2")
        await _busy(alice)  # what it is allotted for the first time is written once
        names = ("acme", bot.id, "secretary", session, "diary", agent[0], waits.job_id, "once")
        return Theirs(*names, "t2", "a2", "a1", token)


def everything_of(store: MemoryStore, scope: str) -> list[Any]:
    return [stored for stored in store.all if stored.batch.head.context.scope == scope]


def asking() -> Models:
    """Models of which those called `pays-…` pay somebody; all others say hello."""

    def steps(request: Any, seen: Any) -> Any:
        if not request.model.startswith("pays-") or type(request.items[-1]).__name__ == "ResultItem":
            return HELLO[0]
        return {"tool_calls": [{"name": "pay", "input": {"to": request.model}}]}

    return Models({"scripted": Scripted(steps)})


async def leaks(doings: list[str], probes: dict[str, Probe] = PROBES) -> list[str]:
    """The probes by which another tenant learns or changes anything."""
    found = []
    store = MemoryStore()
    async with runtime(store=store, models=asking(), tools=[look, pay]) as opened:
        office = Office(opened)
        theirs = await office.furnish(doings)
        for name, probe in probes.items():
            before = everything_of(store, "alice")
            said = await outcome(opened.scoped(scope=f"bob-{name}", principal="bob"), probe, theirs)
            after = [each for each in everything_of(store, "alice")[len(before) :] if not _noise(each)]
            told = await outcome(opened.scoped(scope=f"carol-{name}", principal="bob"), probe, NOWHERE)
            heard = name in LISTENING and said != "[]"
            if SECRET in said or after or heard or _same(said) != _same(told):
                found.append(f"{name}: {said} against {told}" + (" and something was written" if after else ""))
    return found


def _same(said: str) -> str:
    return re.sub(r"(?:bob|carol)-\w+", "<scope>", said)


def _noise(stored: Any) -> bool:
    return "noise" in repr(stored.batch) or stored.batch.head.context.container_id == "noise"


DOINGS = st.lists(st.sampled_from(["wait", "send", "update", "stop", "session", "other"]), max_size=5)


@given(DOINGS)
@settings(max_examples=6)
def test_nothing_of_one_tenant_is_seen_or_changed_through_another(doings: list[str]) -> None:
    assert asyncio.run(asyncio.wait_for(leaks(doings), 120)) == []


def test_every_public_method_is_tried() -> None:
    async def names() -> set[str]:
        async with runtime() as opened:
            view = opened.scoped(scope="bob", principal="bob")
            return {name for name in dir(view) if not name.startswith("_")}

    public = asyncio.run(names())
    assert public - set(PROBES) - NEITHER_READ_NOR_COMMAND == set(), "try it here with another tenant's names"
    assert set(PROBES) | NEITHER_READ_NOR_COMMAND <= public


def test_every_public_method_of_a_scoped_bus_is_accounted_for() -> None:
    heard = {"on", "on_any", "once", "stream", "observable"}
    asked = {"request", "emit_command"}
    assert {name for name in dir(ScopedBus) if not name.startswith("_")} == heard | asked | {"past", "disposed"}


def test_every_method_of_a_reader_is_tried() -> None:
    public = {name for name in dir(Reading) if not name.startswith("_")}
    told_of_one = {"messages", "conversation", "calls", "size", "replay", "export", "session"}
    told_of_all = {
        "jobs",
        "board",
        "sessions",
        "images",
        "cost",
        "audit",
        "sql",
        "events",
        "actions",
        "action",
        "grants",
        "grant",
        "budgets",
    }
    assert public == told_of_one | told_of_all, "each is asked below for one scope"


def test_every_method_of_a_pane_is_tried() -> None:
    public = {name for name in dir(Pane) if not name.startswith("_")}
    assert public == {"read", "read_all", "streams", "has", "head", "keyed", "close"}


GAPS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "streams": lambda patch: patch.setattr(Cell, "hidden_from", lambda self, scope: False),
    "log": lambda patch: patch.setattr(Pane, "_is_mine", lambda self, stored: True),
    "one method": lambda patch: patch.setattr(Access, "reads", property(lambda self: self.kernel.log)),
    "bus": lambda patch: patch.setattr(ScopedBus, "_hears", lambda self, filter: filter),
    "what is kept": lambda patch: patch.setattr(Runtime, "_act", _keeping_one(Runtime._act)),
    "tokens": lambda patch: patch.setattr(Asking, "of_token", _of_all(Asking.of_token)),
    "containers": lambda patch: patch.setattr(
        "reenact.containers.container_stream", lambda _, name: f"container-{name}"
    ),
}


def _of_all(action_of_token: Any) -> Any:
    """A token is looked for where it is, whoever asks."""
    return lambda self, token: action_of_token(self._runtime._root.scoped(scope="alice", principal="")._asking, token)


class _One(dict[str, Any]):
    """What is kept of one scope is handed to all."""

    def get(self, key: str, default: Any = None) -> Any:
        return next(iter(self.values()), default)


@pytest.mark.parametrize("gap", GAPS)
def test_a_check_that_is_missing_is_found(monkeypatch: pytest.MonkeyPatch, gap: str) -> None:
    GAPS[gap](monkeypatch)
    assert asyncio.run(asyncio.wait_for(leaks(["wait"]), 120)), "nobody noticed"


def _keeping_one(act: Any) -> Any:
    def acting(self: Any, who: Any) -> None:
        if type(self._kept) is dict:
            self._kept = _One()
        act(self, who)

    return acting


# -- views --


def test_two_tenants_have_containers_images_sessions_keys_and_names_of_their_own() -> None:
    async def main() -> None:
        async with runtime() as opened:
            alice, bob = (opened.scoped(scope=name, principal=name) for name in ("alice", "bob"))
            ones, others = await alice.image("bot", container="acme"), await bob.image("bot", container="acme")
            assert ones.id != others.id
            first, second = await ones.send("hi", key="k"), await others.send("hello", key="k")
            assert first.job_id != second.job_id
            await alice.new_session(ones.id, alias="diary")
            await bob.new_session(others.id, alias="diary")
            assert await alice.container_ids() == await bob.container_ids() == ["acme"]
            assert await opened.container_ids() == []
            assert [state.image_id for state in await alice.images()] == [ones.id]
            record = (await bob.request("image_list_request", {})).data.records
            assert [each.imageId for each in record] == [others.id]

    asyncio.run(asyncio.wait_for(main(), 20))


def test_the_scope_that_programs_with_one_tenant_have_is_a_scope_like_others() -> None:
    async def main() -> None:
        async with runtime() as opened:
            own = await opened.image("bot")
            await own.send("hi")
            bob = opened.scoped(scope="bob", principal="bob")
            with pytest.raises(NotFound):
                await bob.messages(own.session_id)
            other = await bob.image("bot")
            with pytest.raises(NotFound):
                await opened.messages(other.session_id)
            assert (await opened.events(own.session_id))[0].context.scope == "default"
            assert opened.log.streams("container-") == ["container-default", "container-bob\x1fdefault"]

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_view_cannot_become_another_scope_nor_close_the_runtime() -> None:
    async def main() -> None:
        async with runtime() as opened:
            bob = opened.scoped(scope="bob", principal="bob")
            for refused in (lambda: bob.scoped(scope="alice"), lambda: bob.as_(opened.scoped(scope="alice").context)):
                with pytest.raises(Refused):
                    refused()
            with pytest.raises(Refused):
                await bob.authenticate("token")
            assert bob.scoped(principal="guest").principal == "guest"
            async with bob:
                pass
            await bob.close()
            assert (await (await bob.image("bot")).send("hi")).status == "succeeded"

    asyncio.run(asyncio.wait_for(main(), 20))


@pytest.mark.parametrize("field", ["scope", "scopeId", "principal", "principalId", "tenant", "context"])
def test_what_a_request_says_of_whose_it_is_is_not_looked_at(field: str) -> None:
    async def main() -> None:
        async with runtime() as opened:
            bob = opened.scoped(scope="bob", principal="bob")
            await opened.scoped(scope="alice", principal="alice").create_container("hers")
            for asking in (opened, bob, bob.bus):
                seen = await asking.request("container_list_request", {field: "alice"})
                assert seen.data.containerIds == []
            data = {"containerId": "c", field: "alice", "config": {"metadata": {field: "alice"}}}
            made = await bob.request("image_create_request", data)
            assert made.data.error is None
            [stored] = await bob.events(made.data.record.sessionId)
            assert (stored.context.scope, stored.context.principal) == ("bob", "bob")

    asyncio.run(asyncio.wait_for(main(), 20))


def test_who_asked_is_in_the_envelope_of_all_that_follows_and_a_restart_changes_nothing() -> None:
    store = MemoryStore()

    async def before() -> str:
        async with runtime(store=store, models=Models({"scripted": Gate()})) as opened:
            bob = opened.scoped(scope="bob", principal="bob@example")
            bot = await bob.image("bot")
            await bot.send("hi").run()
            await Heard(opened).until("text_delta")
            return bot.session_id

    async def after(session_id: str) -> None:
        async with runtime(store=store) as opened:
            bob = opened.scoped(scope="bob", principal="bob@example")
            heard = Heard(opened)
            if (await bob.session_state(session_id)).running is not None:
                await heard.until("job_succeeded")
            assert [message.role for message in await bob.messages(session_id)] == ["user", "assistant"]
            assert {recorded.context.scope for recorded in await bob.events(session_id)} == {"bob"}
            assert (await bob.replay(session_id)).identical

    session_id = asyncio.run(asyncio.wait_for(before(), 20))
    asyncio.run(asyncio.wait_for(after(session_id), 20))


def test_a_tool_gets_the_secrets_of_its_own_tenant_only() -> None:
    from reenact import ToolContext

    got: dict[str, str] = {}

    @tool(effect="read")
    def fetch(context: ToolContext) -> str:
        """Fetch."""
        try:
            got[context.session_id] = context.secret("key").reveal()
        except NotFound:
            got[context.session_id] = "none"
        return got[context.session_id]

    async def main() -> None:
        calls = [{"tool_calls": [{"name": "fetch", "input": {}}]}, {"text": "done"}]
        async with runtime(calls, tools=[fetch]) as opened:
            views = [opened.scoped(scope=name, principal=name) for name in ("alice", "bob", "carol")]
            for view in views[:2]:
                view.secret("key", f"the-key-of-{view.scope}")
            sessions = []
            for view in views:
                bot = await view.image("bot")
                await bot.send("go")
                sessions.append(bot.session_id)
                shown = json.dumps([msgspec.to_builtins(message) for message in await bot.messages()])
                assert "the-key-of" not in shown
            assert [got[session] for session in sessions] == ["the-key-of-alice", "the-key-of-bob", "none"]

    asyncio.run(asyncio.wait_for(main(), 20))


# -- keys of providers --


class Asked:
    """A model that keeps with which key it was asked."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    async def stream(self, request: Any) -> Any:
        from reenact.events.content import Text, Usage
        from reenact.events.model import ModelAnswer

        self.keys.append(request.credentials.reveal())
        said = Text(text=f"with {request.credentials.reveal()}")
        yield ModelAnswer(parts=(said,), stop_reason="end_turn", usage=Usage())


def test_each_tenant_is_asked_for_with_its_own_key_and_a_run_may_bring_one_for_itself() -> None:
    model, store = Asked(), MemoryStore()
    asked: list[tuple[str, str, str]] = []

    def provide(provider: str, spec: EnvironmentSpec) -> Credentials:
        asked.append((provider, spec.scope, spec.principal))
        return Credentials(api_key=f"key-of-tenant-{spec.scope}")

    async def main() -> None:
        async with runtime(store=store, models=Models({"scripted": model}), credentials=provide) as opened:
            for name in ("alice", "bob"):
                bot = await opened.scoped(scope=name, principal=f"{name}'s").image("bot")
                assert (await bot.send("hi")).text == "with [secret:scripted_key]"
            run = await bot.send("hi", credentials={"scripted": "key-for-this-run-only"}).run()
            assert (await run).text == "with [secret:scripted_key]"
            await bot.send("hi")
            for wrong in ({"scripted": 3}, {"scripted": ["x", 3]}):
                with pytest.raises(BadInput):
                    await bot.send("hi", credentials=wrong)

    asyncio.run(asyncio.wait_for(main(), 20))
    assert model.keys == ["key-of-tenant-alice", "key-of-tenant-bob", "key-for-this-run-only", "key-of-tenant-bob"]
    assert asked == [("scripted", name, f"{name}'s") for name in ("alice", "bob", "bob")]
    assert not [row for each in store.all for row in each.batch.rows if b"key-" in row.data]


# -- reading a log --


def test_reading_one_scope_of_a_log_shows_nothing_of_others() -> None:
    store = MemoryStore()

    async def main() -> Theirs:
        async with runtime(store=store, models=asking(), tools=[look, pay]) as opened:
            office = Office(opened)
            await (await office.bob().image("bot")).send("my own")
            await office.alice.set_budget({"max_cost_total": "5"})
            return await office.furnish(["wait", "send"])

    theirs = asyncio.run(asyncio.wait_for(main(), 20))
    log = MemoryLog(store)

    def seen(reading: Reading) -> str:
        session = reading.session("last")
        rows: list[object] = [
            *(reading.jobs(over=True), reading.sessions(empty=True), reading.images(), reading.audit()),
            *reading.budgets(),
            *(
                list(reading.board()),
                reading.actions(over=True),
                reading.grants(revoked=True),
                reading.conversation(session),
            ),
            *(reading.cost("session"), reading.cost("tool"), reading.messages(session), list(reading.events())),
            *(reading.calls(session), reading.replay(session), list(reading.export(session)), reading.size(session)),
            str(reading.sql("select * from events")),
        ]
        return repr(rows)

    own = seen(Reading(log, scope="bob"))
    assert "my own" in own and SECRET not in own and "alice" not in own
    for field in ("image", "session", "agent", "job"):
        assert getattr(theirs, field) not in own
    with pytest.raises(NotFound):
        Reading(log, scope="bob").session(theirs.session)
    assert SECRET in seen(Reading(log)) and "my own" in repr(Reading(log).images()) + repr(list(Reading(log).events()))
    assert Context().scope == "default"


def test_a_program_without_a_loop_has_views_too() -> None:
    from reenact.blocking import Runtime as Blocking

    with Blocking("memory://", default_agent={"model": "scripted:hello"}) as opened:
        alice, bob = opened.scoped(scope="alice"), opened.as_(ExecutionContext(scope_id="bob"))
        with alice:
            bot = alice.image("bot")
            assert bot.send("hi").result().status == "succeeded"
        with pytest.raises(NotFound):
            bob.messages(bot.session_id)
        assert len(alice.messages(bot.session_id)) == 2


def test_the_limits_of_one_tenant_hold_it_and_no_other_also_after_a_restart() -> None:
    store = MemoryStore()

    async def main(first: bool) -> list[str]:
        async with runtime(store=store) as opened:
            alice, bob = (opened.scoped(scope=name, principal=name) for name in ("alice", "bob"))
            if first:
                await alice.set_budget({"max_requests_daily": 1})
            assert len(alice.budgets) == 1 and bob.budgets == () == opened.budgets
            said = []
            for view in (alice, bob):
                result = await (await view.image("bot")).send("hi")
                said.append(result.status if result.failure is None else result.failure.code)
            assert [use.name for use in await bob.budget()] == []
            return said

    assert asyncio.run(asyncio.wait_for(main(True), 20)) == ["succeeded", "succeeded"]
    denied, fine = asyncio.run(asyncio.wait_for(main(False), 20))
    assert denied != "succeeded" and fine == "succeeded"
