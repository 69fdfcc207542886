"""Tenants of one runtime have containers, sessions, keys, secrets and limits of their own; a view stays in its own."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from reenact import ExecutionContext, Runtime, tool
from reenact.adapters.models import Models
from reenact.cli.reading import Reading
from reenact.environment import EnvironmentSpec
from reenact.events.errors import BadInput, NotFound, Refused
from reenact.events.log import MemoryLog, MemoryStore
from reenact.events.message import BusEvent, Context
from reenact.events.model import Credentials
from tests.runtimes import Gate, Heard, run, runtime
from tests.tenants import SECRET, Office, Theirs, asking, look, pay


def test_two_tenants_have_containers_images_sessions_keys_and_names_of_their_own() -> None:
    async def work(opened: Runtime) -> None:
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

    run(work)


def test_the_scope_that_programs_with_one_tenant_have_is_a_scope_like_others() -> None:
    async def work(opened: Runtime) -> None:
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

    run(work)


def test_a_view_cannot_become_another_scope_nor_close_the_runtime() -> None:
    async def work(opened: Runtime) -> None:
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

    run(work)


def test_given_a_handler_of_the_program_that_raises_then_only_the_program_hears_of_it() -> None:
    def raises(event: BusEvent) -> None:
        raise ValueError("a detail of the program's")

    async def work(opened: Runtime) -> None:
        bob = opened.scoped(scope="bob", principal="bob")
        told: list[BusEvent] = []
        bob.on_any(told.append)
        bob.on("subscriber_failed", told.append)
        bob.bus.observable.subscribe(told.append)
        heard, live = Heard(opened), bob.bus.stream()
        opened.on("job_succeeded", raises)
        await (await bob.image("bot")).send("hi")
        await heard.until("subscriber_failed")
        await bob.image("another")
        told += [await anext(live) for _ in range(len(live))]
        assert {"job_succeeded", "image_created"} <= {event.type for event in told}
        assert "subscriber_failed" not in {event.type for event in told}

    run(work)


@pytest.mark.parametrize("field", ["scope", "scopeId", "principal", "principalId", "tenant", "context"])
def test_what_a_request_says_of_whose_it_is_is_not_looked_at(field: str) -> None:
    async def work(opened: Runtime) -> None:
        bob = opened.scoped(scope="bob", principal="bob")
        await opened.scoped(scope="alice", principal="alice").create_container("hers")
        for asked in (opened, bob, bob.bus):
            seen = await asked.request("container_list_request", {field: "alice"})
            assert seen.data.containerIds == []
        data = {"containerId": "c", field: "alice", "config": {"metadata": {field: "alice"}}}
        made = await bob.request("image_create_request", data)
        assert made.data.error is None
        [stored] = await bob.events(made.data.record.sessionId)
        assert (stored.context.scope, stored.context.principal) == ("bob", "bob")

    run(work)


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

    calls = [{"tool_calls": [{"name": "fetch", "input": {}}]}, {"text": "done"}]

    async def work(opened: Runtime) -> None:
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

    run(work, calls, tools=[fetch])


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

    async def work(opened: Runtime) -> None:
        for name in ("alice", "bob"):
            bot = await opened.scoped(scope=name, principal=f"{name}'s").image("bot")
            assert (await bot.send("hi")).text == "with [secret:scripted_key]"
        run = await bot.send("hi", credentials={"scripted": "key-for-this-run-only"}).run()
        assert (await run).text == "with [secret:scripted_key]"
        await bot.send("hi")
        for wrong in ({"scripted": 3}, {"scripted": ["x", 3]}):
            with pytest.raises(BadInput):
                await bot.send("hi", credentials=wrong)

    run(work, store=store, models=Models({"scripted": model}), credentials=provide)
    assert model.keys == ["key-of-tenant-alice", "key-of-tenant-bob", "key-for-this-run-only", "key-of-tenant-bob"]
    assert asked == [("scripted", name, f"{name}'s") for name in ("alice", "bob", "bob")]
    assert not [row for each in store.all for row in each.batch.rows if b"key-" in row.data]


# -- reading a log --


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


def test_reading_one_scope_of_a_log_shows_nothing_of_others() -> None:
    store = MemoryStore()

    async def work(opened: Runtime) -> Theirs:
        office = Office(opened)
        await (await office.bob().image("bot")).send("my own")
        await office.alice.set_budget({"max_cost_total": "5"})
        return await office.furnish(["wait", "send"])

    theirs = run(work, store=store, models=asking(), tools=[look, pay])
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
