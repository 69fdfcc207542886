"""An approval is of a call in its place: the folder, and the variables that its tool depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reenact import Runtime, ToolContext, tool
from reenact.adapters.tools.errors import ToolDefinitionError
from reenact.events.log import MemoryStore
from tests.runtimes import Heard, run

DEPLOY = [{"tool_calls": [{"name": "deploy", "input": {}}]}, {"text": "Done."}]
done: list[str] = []


@tool(effect="idempotent", approval="ask", environ=("STAGE", "REGION"))
def deploy() -> str:
    """Deploy to where the environment says."""
    done.append("deployed")
    return "deployed"


@pytest.fixture(autouse=True)
def nothing_done(monkeypatch: pytest.MonkeyPatch) -> None:
    done.clear()
    monkeypatch.setenv("STAGE", "staging")
    monkeypatch.delenv("REGION", raising=False)


async def asked(runtime: Runtime, **config: Any) -> Any:
    bot = await runtime.image("support", **config)
    assert (await bot.send("deploy")).status == "waiting"
    [action] = await runtime.actions()
    return action


CHANGES = {
    "nothing": ({}, None),
    "a variable": ({"STAGE": "production"}, "STAGE is not what it was"),
    "a variable that was not there": ({"REGION": "eu"}, "REGION is not what it was"),
    "a variable that it does not name": ({"LANG_OF_ANOTHER": "C"}, None),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("restart", [False, True])
def test_a_variable_that_changed_between_question_and_start_is_found(
    change: str, restart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, (values, said) = MemoryStore(), CHANGES[change]

    async def before(runtime: Runtime) -> Any:
        action = await asked(runtime)
        assert action.call.env == {"STAGE": "staging"} and action.call.sandbox == ""
        return action if restart else await after(runtime)

    async def after(runtime: Runtime) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        heard = Heard(runtime)
        [action] = await runtime.actions()
        await runtime.resolve_action(action.id, True, digest=action.digest)
        await heard.until("job_succeeded")
        [settled] = heard.of("tool_settled")
        assert (settled.data.outcome, done) == (("ok", ["deployed"]) if said is None else ("denied", []))
        assert said is None or said in settled.data.output
        [shown] = await runtime.all_actions()
        assert shown.became == ("it ended: ok" if said is None else settled.data.output), "and `show` tells it"
        assert (await runtime.replay(action.session_id)).identical

    run(before, DEPLOY, repeat=False, store=store, tools=[deploy])
    if restart:
        run(after, DEPLOY[1:], repeat=False, store=store, tools=[deploy])


def test_so_is_another_folder(tmp_path: Path) -> None:
    async def work(runtime: Runtime) -> None:
        action = await asked(runtime, workspace=str(tmp_path / "one"))
        heard = Heard(runtime)
        await runtime.image("support", workspace=str(tmp_path / "two"))
        await runtime.resolve_action(action.id, True)
        await heard.until("job_succeeded")
        assert "another place" in heard.of("tool_settled")[0].data.output and not done

    run(work, DEPLOY, repeat=False, tools=[deploy])


@tool(effect="idempotent", approval="ask")
def clean(context: ToolContext) -> str:
    """Delete all in the folder."""
    done.append(str(context.workspace))
    return "cleaned"


CLEAN = [{"tool_calls": [{"name": "clean", "input": {}}]}, {"text": "Done."}]


@pytest.mark.parametrize("turned", [False, True])
def test_where_links_lead_is_the_place_and_what_runs_after_they_are_turned_does_not_run(
    turned: bool, tmp_path: Path
) -> None:
    link, one, two = tmp_path / "link", tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    link.symlink_to(one)

    async def work(runtime: Runtime) -> None:
        action = await asked(runtime, workspace=str(link))
        assert action.call.cwd == str(one.resolve())
        if turned:
            link.unlink()
            link.symlink_to(two)
        heard = Heard(runtime)
        await runtime.resolve_action(action.id, True, digest=action.digest)
        await heard.until("job_succeeded")
        if turned:
            assert "another place" in heard.of("tool_settled")[0].data.output and not done
        else:
            assert done == [str(one.resolve())], "the folder that was shown, whatever a link says by now"
        assert (await runtime.replay(action.session_id)).identical

    run(work, CLEAN, repeat=False, tools=[clean])


def test_a_person_reads_what_the_variables_say_and_that_there_are_no_walls() -> None:
    async def work(runtime: Runtime) -> None:
        action = await asked(runtime)
        shown = (await runtime.request("action_get_request", {"actionId": action.id})).data.text
        assert 'With       STAGE="staging"' in shown and "in no sandbox" in shown

    run(work, DEPLOY, tools=[deploy])


def test_of_a_secret_its_name_is_stored_and_of_a_long_value_a_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    monkeypatch.setenv("STAGE", "correct horse battery")
    monkeypatch.setenv("REGION", "x" * 2000)

    async def work(runtime: Runtime) -> None:
        runtime.secret("stage", "correct horse battery")
        env = (await asked(runtime)).call.env
        assert env["STAGE"] == "[secret:stage]" and env["REGION"].startswith("sha256:") and len(env["REGION"]) < 80

    run(work, DEPLOY, store=store, tools=[deploy])
    assert not [row for each in store.all for row in each.batch.rows if b"horse" in row.data]


def test_a_variable_that_became_a_secret_after_the_start_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    monkeypatch.setenv("DEPLOY_PASSWORD", "first-Pa55-of-all")

    @tool(effect="idempotent", approval="ask", environ=["DEPLOY_PASSWORD"])
    def deploy() -> str:
        """Deploy."""
        return "done"

    async def work(runtime: Runtime) -> None:
        monkeypatch.setenv("DEPLOY_PASSWORD", "an0ther-Pa55-word")
        assert (await asked(runtime)).call.env["DEPLOY_PASSWORD"] == "[secret:DEPLOY_PASSWORD]"

    run(work, DEPLOY, store=store, tools=[deploy])
    assert not [row for each in store.all for row in each.batch.rows if b"an0ther" in row.data]


@pytest.mark.parametrize("names", [("",), ("A=B",), ("9A",), (3,), tuple(f"V{n}" for n in range(33))])
def test_what_is_no_name_of_a_variable_is_refused(names: Any) -> None:
    with pytest.raises(ToolDefinitionError, match="environ"):

        @tool(environ=names)
        def some() -> str:
            """Some."""
            return ""


def test_its_variables_are_part_of_the_version_of_a_tool_and_none_change_nothing() -> None:
    def some() -> str:
        """Some."""
        return ""

    versions = {tool(some, environ=names).version for names in ((), ("A",), ("A", "B"), ("B", "A"))}
    assert len(versions) == 3 and tool(some).version in versions
