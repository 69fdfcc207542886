"""Tools for some principals alone: not offered to others, and not run where a model asks for them all the same."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from reenact import Policy, PolicyContext, PolicyEngine, Runtime, ToolPolicy, tool
from reenact.adapters.models import Models
from reenact.adapters.policy_file import load_policy
from reenact.events.errors import BadInput
from reenact.events.log import MemoryStore
from tests.runtimes import Heard, run

CALL = [{"tool_calls": [{"name": "restart", "input": {}}]}, {"text": "Done."}]
TWICE = CALL * 2
OWNERS = Policy(name="house", rules=(ToolPolicy(tool_patterns=("restart",), allowed_principals=("owner",)),))
done: list[str] = []


@tool(effect="idempotent")
def restart() -> str:
    """Restart the machine."""
    done.append("restarted")
    return "restarted"


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    done.clear()


async def outcome(bot: Any, word: str = "restart") -> tuple[str, str]:
    """How the call ended that a message led to."""
    before = len(await bot.events())
    assert (await bot.send(word)).status == "succeeded"
    [settled] = [each.data for each in (await bot.events())[before:] if each.type == "tool_settled"]
    return settled.outcome, str(settled.output)


def test_only_the_owner_s_jobs_run_it() -> None:
    async def work(runtime: Runtime) -> None:
        owner, guest = (runtime.scoped(principal=name) for name in ("owner", "guest"))
        assert (await outcome(await owner.image("bot")))[0] == "ok" and done == ["restarted"]
        ended, said = await outcome(await guest.image("bot"))
        assert ended == "denied" and "whoever sent this" in said and done == ["restarted"]
        bot = await runtime.image("bot")
        assert (await runtime.replay(bot.session_id)).identical

    run(work, TWICE, repeat=False, tools=[restart], policy=OWNERS)


def test_nor_is_it_offered_to_others() -> None:
    offered: list[list[str]] = []

    class Listing:
        def stream(self, request: Any) -> Any:
            offered.append([spec.name for spec in request.tools])
            return self._stream()

        async def _stream(self) -> Any:
            from reenact.events.content import Text, Usage
            from reenact.events.model import ModelAnswer

            yield ModelAnswer(parts=(Text(text="ok"),), stop_reason="end_turn", usage=Usage(), model="any")

    async def work(runtime: Runtime) -> None:
        for name in ("owner", "guest", "owner"):
            await (await runtime.scoped(principal=name).image("bot")).send("hi")
        assert offered == [["restart"], [], ["restart"]]

    run(work, models=Models({"scripted": Listing()}), tools=[restart], policy=OWNERS)


def test_a_message_of_the_owner_behind_that_of_a_guest_gives_the_guest_nothing() -> None:
    async def work(runtime: Runtime) -> None:
        guest = await runtime.scoped(principal="guest").image("bot")
        owner = await runtime.scoped(principal="owner").image("bot")
        heard = Heard(runtime)
        first, second = await guest.send("one").run(), await owner.send("two").run()
        assert (await first).status == (await second).status == "succeeded"
        assert [event.data.outcome for event in heard.of("tool_settled")] == ["denied", "ok"]

    run(work, TWICE, repeat=False, tools=[restart], policy=OWNERS)


def test_a_rule_that_comes_while_a_job_runs_holds_for_its_next_call() -> None:
    """Who sent it was not asked for when it was sent, so nobody knows: it is denied."""
    began: list[Runtime] = []

    @tool(effect="read")
    async def look() -> str:
        """Look."""
        with_program = began[0]._root
        import contextvars

        await contextvars.Context().run(
            lambda: __import__("asyncio").ensure_future(with_program.set_policy("default", OWNERS))
        )
        return "seen"

    async def work(runtime: Runtime) -> None:
        began.append(runtime)
        bot = await runtime.scoped(principal="owner").image("bot")
        heard = Heard(runtime)
        assert (await bot.send("go")).status == "succeeded"
        assert [event.data.outcome for event in heard.of("tool_settled")] == ["ok", "denied"]
        assert (await outcome(bot))[0] == "ok", "its next message says who sent it"

    steps = [{"tool_calls": [{"name": "look", "input": {}}]}, *TWICE]
    run(work, steps, repeat=False, tools=[look, restart])


def test_what_a_tool_sends_is_not_the_owner_s() -> None:
    here: list[Runtime] = []

    @tool(effect="idempotent")
    async def delegate() -> str:
        """Have another agent do it."""
        return (await (await here[0].image("other")).send("restart {}")).text

    async def work(runtime: Runtime) -> None:
        view = runtime.scoped(principal="owner")
        here.append(view)
        said = (await (await view.image("bot")).send("delegate {}")).text
        assert said.endswith("The tools are: delegate."), "nobody told the other agent of it"
        assert not done
        assert (await (await view.image("bot")).send("restart {}")).text == "restarted"

    model = {"model": "scripted:tools"}
    run(work, models=Models(), default_agent=model, tools=[delegate, restart], policy=OWNERS)


def test_it_holds_over_a_restart() -> None:
    store = MemoryStore()
    ask = Policy(
        name="house",
        rules=(
            ToolPolicy(tool_patterns=("restart",), allowed_principals=("owner",)),
            ToolPolicy(tool_patterns=("restart",), decision="require_approval"),
        ),
    )

    async def before(runtime: Runtime) -> None:
        bot = await runtime.scoped(principal="owner").image("bot")
        assert (await bot.send("restart")).status == "waiting"

    async def after(runtime: Runtime) -> None:
        [action] = await runtime.actions()
        heard = Heard(runtime)
        await runtime.resolve_action(action.id, True, digest=action.digest)
        await heard.until("job_succeeded")
        assert done == ["restarted"]

    run(before, CALL, repeat=False, store=store, tools=[restart], policy=ask)
    run(after, CALL[1:], repeat=False, store=store, tools=[restart], policy=ask)


def test_the_engine_and_files_know_it_too(tmp_path: Path) -> None:
    file = tmp_path / "house.toml"
    file.write_text('[[tools]]\ntool_patterns = ["restart"]\nallowed_principals = ["owner"]\n')
    policy = load_policy(file)
    assert policy.rules == OWNERS.rules
    engine = PolicyEngine(policy.rules)
    verdicts = [
        asyncio.run(engine.check_tool("restart", PolicyContext(principal_id=who))).decision.value
        for who in ("owner", "guest", None)
    ]
    assert verdicts == ["allow", "deny", "deny"]
    spares = PolicyEngine([ToolPolicy(tool_patterns=("restart",), decision="deny", allowed_principals=("owner",))])
    assert asyncio.run(spares.check_tool("restart", PolicyContext(principal_id="owner"))).decision.value == "allow"


@pytest.mark.parametrize("given", [(), "owner", (3,), ("",)])
def test_what_is_no_list_of_principals_is_refused(given: Any) -> None:
    with pytest.raises(BadInput, match="allowed_principals"):
        ToolPolicy(tool_patterns=("restart",), allowed_principals=given)
