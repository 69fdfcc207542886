"""What a tool or a program asks people, over a whole runtime: how it is put, and what comes back."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from reenact import (
    ActionFilter,
    ActionManager,
    ActionRequiredError,
    ActionSpec,
    ActionStatus,
    Runtime,
    ToolContext,
    tool,
)
from reenact.events.errors import BadInput, BadResolution, Closed, NotFound
from reenact.events.log import MemoryStore
from tests.askers import DEPLOY, deploy, done, put
from tests.runtimes import Heard, run, runtime


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    done.clear()


def test_a_tool_may_ask_a_person_and_its_time_stands_still_meanwhile() -> None:
    async def work(runtime: Runtime) -> None:
        sent, action = await put(runtime)
        assert (action.type, action.payload, action.tool) == ("confirm", {"message": "Deploy to production?"}, "t1")
        await asyncio.sleep(0.6)  # twice the tool's own limit
        await runtime.resolve_action(action.id, True)
        assert (await sent).text == "Done." and done == ["asked", "deployed"]
        assert (await runtime.replay(action.session_id)).identical

    run(work, DEPLOY, repeat=False, tools=[deploy])


def test_a_tool_that_is_begun_again_asks_the_same_question_and_hears_the_same_answer() -> None:
    store = MemoryStore()

    async def before(runtime: Runtime) -> str:
        return (await put(runtime))[1].id

    async def after(runtime: Runtime) -> None:
        heard = Heard(runtime)
        if done != ["asked", "asked"]:
            await heard.until("tool_started")
        assert [each.id for each in await runtime.actions()] == [action]
        await runtime.resolve_action(action, True)
        await heard.until("job_succeeded")
        assert done == ["asked", "asked", "deployed"]
        assert len(await runtime.all_actions()) == 1

    action = run(before, DEPLOY, repeat=False, store=store, tools=[deploy])
    run(after, DEPLOY[1:], repeat=False, store=store, tools=[deploy])


def test_an_answer_that_came_while_nobody_waited_is_there_when_it_is_asked_for_again() -> None:
    store = MemoryStore()

    async def before(runtime: Runtime) -> str:
        return (await put(runtime))[1].id

    async def between(runtime: Runtime) -> None:
        await runtime.resolve_action(action, False)

    async def after(runtime: Runtime) -> None:
        heard = Heard(runtime)
        if done[-1] != "left":
            await heard.until("job_succeeded")
        assert done == ["asked", "asked", "left"]

    action = run(before, DEPLOY, repeat=False, store=store, tools=[deploy])
    run(between, store=store, armed=False)
    run(after, DEPLOY[1:], repeat=False, store=store, tools=[deploy])


def test_the_manager_asks_waits_answers_by_token_takes_back_and_lists() -> None:
    async def work(runtime: Runtime) -> None:
        manager = ActionManager(runtime)
        sent, first = await put(runtime)
        spec = {"job_id": sent.job_id, "type": "choose", "payload": {"options": ["a", "b"]}, "timeout_seconds": 60}
        action = await manager.require_action(spec)
        assert action.status is ActionStatus.PENDING and not action.is_expired and action.resume_token
        assert action.resume_token not in repr(action)
        assert [each.action_id for each in await manager.list_pending(sent.job_id)] == [first.id, action.action_id]
        waiting = asyncio.ensure_future(manager.wait_for_resolution(action.action_id))
        with pytest.raises(BadResolution):
            await manager.resolve(resume_token=action.resume_token, resolution={"choice": "c"})
        resolved = await manager.resolve(resume_token=action.resume_token, resolution={"choice": "b"})
        assert (await waiting) == resolved and resolved.resolution == {"choice": "b"}
        assert (await manager.wait_for_resolution(action.action_id)) == resolved
        with pytest.raises(NotFound):
            await manager.resolve(resume_token=action.resume_token, resolution={"choice": "b"})
        other = await manager.require_action(ActionSpec(job_id=sent.job_id, type="confirm"))
        cancelled = await manager.cancel(other.action_id, reason="User cancelled")
        assert cancelled.status is ActionStatus.CANCELLED
        with pytest.raises(ActionRequiredError):
            await manager.wait_for_resolution(other.action_id)
        late = await manager.require_action(ActionSpec(job_id=sent.job_id, type="confirm"))
        with pytest.raises(TimeoutError):
            await manager.wait_for_resolution(late.action_id, timeout=0.01)
        assert (await manager.get(late.action_id)).status is ActionStatus.EXPIRED  # type: ignore[union-attr]
        everything = await manager.list(ActionFilter(job_id=sent.job_id))
        assert [each.status.value for each in everything] == ["pending", "resolved", "cancelled", "expired"]
        assert await manager.get(f"{sent.session_id}:a99") is None

    run(work, DEPLOY, repeat=False, tools=[deploy])


@pytest.mark.parametrize("when", ["while it waits", "before it waits"])
def test_whoever_waits_for_an_answer_is_told_when_the_runtime_is_closed(when: str) -> None:
    """Given a question, when its runtime is closed, then whoever waits for its answer hears of that at once."""

    async def main() -> None:
        async with runtime(DEPLOY, repeat=False, tools=[deploy]) as opened:
            _, action = await put(opened)
            before = opened.bus.subscriptions
            waits: Any = ActionManager(opened.scoped()).wait_for_resolution(action.id)
            if when == "while it waits":
                waits = asyncio.ensure_future(waits)
                for _ in range(200):
                    await asyncio.sleep(0)
                assert opened.bus.subscriptions == before + 1
        with pytest.raises(Closed):
            await asyncio.wait_for(waits, 5)

    asyncio.run(main())


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "confirm"},
        {"type": "confirm", "job_id": "job_none"},
        {"type": "confirm", "session_id": "sess_none"},
        {"type": "riddle", "session_id": "here"},
        {"type": "confirm", "session_id": "here", "timeout_seconds": 0},
        {"type": "confirm", "session_id": "here", "timeout_seconds": float("nan")},
        {"type": "confirm", "session_id": "here", "payload": {"big": "x" * 2_000_000}},
        {"type": "confirm", "session_id": "here", "payload": {"n": object()}},
        {"type": "confirm", "session_id": "here", "payload": "words"},
        {"type": "choose", "session_id": "here", "payload": {"options": []}},
        {"no": "type"},
    ],
)
def test_what_is_no_question_is_refused_by_name(spec: dict[str, Any]) -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        given = {**spec, "session_id": bot.session_id} if spec.get("session_id") == "here" else spec
        with pytest.raises((BadInput, NotFound)):
            await ActionManager(runtime).require_action(given)
        assert await runtime.actions() == []

    run(work)


LOGIN = [{"tool_calls": [{"name": "login", "input": {}}]}, {"text": "Done."}]


@tool(effect="idempotent")
async def login(context: ToolContext) -> str:
    """Log in, with what a person types."""
    action = await context.actions.require_action(ActionSpec(type="reauth", payload={"secret": "shop"}))
    action = await context.actions.wait_for_resolution(action.action_id)
    return json.dumps([action.action_id.rpartition(":")[2], context.secret("shop").reveal() == PASSWORD])


PASSWORD = "correct horse battery"


async def asked(runtime: Runtime, **payload: Any) -> str:
    """A question of a session, and its id."""
    bot = await runtime.image("support")
    spec = ActionSpec(type="upload", session_id=bot.session_id, payload=payload)
    return (await ActionManager(runtime).require_action(spec)).action_id


def test_a_mistyped_field_of_a_question_is_refused_with_the_nearest() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        manager = ActionManager(runtime)
        for given, said in [
            ({"type": "confirm", "session_id": bot.session_id, "timeout_second": 3}, "Did you mean timeout_seconds"),
            ({"type": "confirm", "sessionid": bot.session_id}, "Did you mean session_id"),
            ({"type": "confirm", "sessionId": bot.session_id, "zzz": 1}, "It has type, job_id"),
            (["confirm"], "not a value of type list"),
            (ActionSpec(type="confirm", session_id=bot.session_id, key=3), "Expected"),  # type: ignore[arg-type]
        ]:
            with pytest.raises(BadInput, match=said):
                await manager.require_action(given)  # type: ignore[arg-type]
        assert await runtime.actions() == []
        assert (await manager.require_action({"type": "confirm", "sessionId": bot.session_id})).type == "confirm"

    run(work)


@pytest.mark.parametrize("token", [b"token", 3, ["x"]])
def test_a_token_that_is_no_text_is_refused_by_name(token: Any) -> None:
    async def work(runtime: Runtime) -> None:
        action = await asked(runtime)
        with pytest.raises(BadInput, match="A token is a text"):
            await ActionManager(runtime).resolve(resume_token=token, resolution={"files": []})
        with pytest.raises(BadInput, match="A token is a text"):
            await runtime.resolve_action(action, {"files": []}, token=token)
        with pytest.raises(BadInput, match="is named"):
            await ActionManager(runtime).resolve(action_id=b"x", resolution={"files": []})  # type: ignore[arg-type]

    run(work)


def test_files_are_bounded_and_readable() -> None:
    async def work(runtime: Runtime) -> None:
        action = await asked(runtime)
        resolve = ActionManager(runtime).resolve
        large = base64.b64encode(bytes(8 * 1024 * 1024 + 1)).decode()
        for data, said in [(large, "8,388,609 bytes"), ("no base64!", "no base64"), (3, "one of data|no base64")]:
            with pytest.raises(BadResolution, match=said):
                await resolve(action_id=action, resolution={"files": [{"name": "n", "url": "u", "data": data}]})
        most = base64.b64encode(bytes(8 * 1024 * 1024)).decode()
        done = await resolve(action_id=action, resolution={"files": [{"name": "n", "data": most}]})
        assert len(base64.b64decode(done.resolution["files"][0]["data"])) == 8 * 1024 * 1024  # type: ignore[index]

    run(work)


def test_a_known_secret_in_a_file_is_not_stored_and_the_answer_is_refused() -> None:
    async def work(runtime: Runtime) -> None:
        runtime.secret("shop", PASSWORD)
        action = await asked(runtime)
        data = base64.b64encode(f"my password: {PASSWORD}".encode()).decode()
        with pytest.raises(BadResolution, match="known secret that stood in it"):
            await runtime.resolve_action(action, {"files": [{"name": "n", "data": data}]})
        assert (await runtime.action(action)).status == "pending"

    run(work)


@pytest.mark.parametrize("name", [3, "", " ", "a]b", "x" * 65, "a\nb"])
def test_a_login_is_asked_for_under_a_name(name: Any) -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        spec = ActionSpec(type="reauth", session_id=bot.session_id, payload={"secret": name})
        with pytest.raises(BadInput, match="secret of a reauth"):
            await ActionManager(runtime).require_action(spec)

    run(work)


def test_a_login_is_not_recorded_where_nothing_was_handed_over() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        await bot.send("log in")
        action = f"{bot.session_id}:a1"
        for said in ({"authenticated": True, "secret": "shop"}, {"authenticated": True}):
            with pytest.raises(BadResolution, match="none of that name was handed over"):
                await runtime.resolve_action(action, said)
        assert (await runtime.action(action)).status == "pending"
        assert (await runtime.resolve_action(action, {"authenticated": False})).status == "resolved"

    run(work, LOGIN, repeat=False, tools=[login])


def test_no_login_takes_the_place_of_a_secret_of_the_program_s_own() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        await bot.send("log in")
        action = f"{bot.session_id}:a1"
        own = runtime.secret("shop", "the-program-s-own")
        with pytest.raises(BadInput, match="the program's own"):
            await runtime._asking.hand_over(action, PASSWORD, {})
        spec = ActionSpec(type="reauth", session_id=bot.session_id, payload={"secret": "shop"})
        with pytest.raises(BadInput, match="the program's own"):
            await ActionManager(runtime).require_action(spec)
        assert runtime._vault.get("shop") is own
        other = ActionSpec(type="reauth", session_id=bot.session_id, payload={"secret": "bank"})
        for number in range(2):  # what a person gave, a person may give anew
            asked = await ActionManager(runtime).require_action(other)
            await runtime._asking.hand_over(asked.action_id, f"{PASSWORD} {number}", {})
        given = runtime._vault.get("bank")
        assert given is not None and given.reveal() == f"{PASSWORD} 1"

    run(work, LOGIN, repeat=False, tools=[login])


@pytest.mark.parametrize("later", range(8))
@pytest.mark.parametrize("other", ["another secret", "no", "yes, without one"])
def test_of_two_who_answer_a_login_at_once_the_tool_has_what_the_recorded_one_gave(later: int, other: str) -> None:
    got: list[str | None] = []

    @tool(effect="idempotent")
    async def login(context: ToolContext) -> str:
        """Log in."""
        action = await context.actions.require_action(ActionSpec(type="reauth", payload={"secret": "shop"}))
        await context.actions.wait_for_resolution(action.action_id)
        try:
            got.append(context.secret("shop").reveal())
        except NotFound:
            got.append(None)
        return "done"

    async def work(runtime: Runtime) -> None:
        heard, bot = Heard(runtime), await runtime.image("support")
        await bot.send("log in")
        action = f"{bot.session_id}:a1"
        alice, bob = runtime.scoped(principal="alice"), runtime.scoped(principal="bob")

        async def second() -> str:
            for _ in range(later):
                await asyncio.sleep(0)
            if other == "another secret":
                return (await bob._asking.hand_over(action, f"{PASSWORD} 2", {})).by or ""
            return (await bob.resolve_action(action, {"authenticated": other != "no"})).by or ""

        first = alice._asking.hand_over(action, f"{PASSWORD} 1", {})
        await asyncio.gather(first, second(), return_exceptions=True)
        await heard.until("job_succeeded")
        by = (await runtime.action(action)).by
        bobs = f"{PASSWORD} 2" if other == "another secret" else None
        assert got == [f"{PASSWORD} 1" if by == "alice" else bobs]

    run(work, LOGIN, repeat=False, tools=[login])


def test_a_login_is_handed_over_and_asked_for_again_by_a_process_that_does_not_have_it() -> None:
    store = MemoryStore()

    async def before(runtime: Runtime) -> None:
        bot = await runtime.image("support")
        sent = await bot.send("log in").run()
        assert (await sent).status == "waiting"
        action = f"{bot.session_id}:a1"
        for wrong in ({"authenticated": True, "secret": PASSWORD}, {"authenticated": True, "password": PASSWORD}):
            with pytest.raises(BadResolution) as refused:
                await runtime.resolve_action(action, wrong)
            assert PASSWORD not in str(refused.value)
        with pytest.raises(BadInput, match="less than"):
            await runtime._asking.hand_over(action, "abc", {})
        assert runtime._vault.get("shop") is None

    async def between(runtime: Runtime) -> None:  # a disarmed owner that is gone before the tool runs again
        [action] = await runtime.actions()
        await runtime._asking.hand_over(action.id, PASSWORD, {})

    async def after(runtime: Runtime) -> None:
        heard = Heard(runtime)
        while not (pending := await runtime.actions()):
            await heard.until("action_required")
        assert [each.id.rpartition(":")[2] for each in pending] == ["a2"], "what was given before is in no memory"
        await runtime._asking.hand_over(pending[0].id, PASSWORD, {"comment": "once more"})
        await heard.until("job_succeeded")
        [settled] = heard.of("tool_settled")
        assert json.loads(settled.data.output) == ["a2", True]
        assert (await runtime.action(pending[0].id)).resolution == {
            "authenticated": True,
            "secret": "shop",
            "comment": "once more",
        }
        with pytest.raises(NotFound):
            await runtime._asking.hand_over(f"{pending[0].session_id}:a9", PASSWORD, {})
        assert PASSWORD not in repr(heard.events)

    run(before, LOGIN, repeat=False, store=store, tools=[login])
    run(between, store=store, armed=False)
    run(after, LOGIN[1:], repeat=False, store=store, tools=[login])
    assert not [row for each in store.all for row in each.batch.rows if PASSWORD.encode() in row.data]


@pytest.mark.parametrize(
    "wanted", [{"limit": -1}, {"limit": True}, {"limit": "x"}, {"status": "pendng"}, {"type": "confrim"}, {"job_id": 5}]
)
def test_a_filter_that_finds_nothing_whatever_there_is_is_refused(wanted: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=f"{next(iter(wanted))} must be"):
        ActionFilter(**wanted)


def test_a_filter_gives_the_oldest_and_no_more_than_its_limit() -> None:
    async def work(runtime: Runtime) -> None:
        bot = await runtime.image("bot")
        manager = ActionManager(runtime)
        asked = [await manager.require_action({"type": "confirm", "session_id": bot.session_id}) for _ in range(3)]
        for limit in range(5):
            found = await manager.list(ActionFilter(limit=limit, status="pending", type="confirm"))
            assert [each.action_id for each in found] == [each.action_id for each in asked[:limit]]
        with pytest.raises(BadInput, match="A digest is a text"):
            await runtime.resolve_action(asked[0].action_id, True, digest=5)  # type: ignore[arg-type]

    run(work)
