"""Tokens, which let who has one answer one question: once, and stored nowhere."""

from __future__ import annotations

import asyncio
import base64
import logging
import pickle
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reenact import ActionManager, ActionSpec, Runtime, ToolContext, tool
from reenact.adapters.models import Models
from reenact.adapters.models.scripted import Scripted
from reenact.events.errors import ActionOver, NotFound
from reenact.events.message import as_json
from reenact.people.asking import new_token
from reenact.secrets.vault import Vault
from tests.askers import DEPLOY, REFUND, deploy, done, put, refund, waiting
from tests.runtimes import Heard, run


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    done.clear()


def test_a_token_answers_once_and_is_stored_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    async def work(runtime: Runtime) -> None:
        bot, action = await waiting(runtime)
        heard = Heard(runtime)
        first = await runtime.issue_token(action)
        token = await runtime.issue_token(action)
        assert len(token) == 43 and first != token
        for wrong in (first, "", token[:-1], token + "x"):
            with pytest.raises(NotFound, match="for this token"):
                await runtime.resolve_action(action, True, token=wrong)
        await runtime.resolve_action(action, True, token=token)
        with pytest.raises(NotFound, match="for this token"):
            await runtime.resolve_action(action, True, token=token)
        await heard.until("job_succeeded")
        assert done == ["42"]
        for shown in (repr(heard.events), repr(await bot.events()), caplog.text, repr(vars(runtime))):
            assert token not in shown and first not in shown

    run(work, REFUND, repeat=False, tools=[refund])


def test_no_token_is_found_in_the_file_the_log_beside_it_an_export_or_what_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    from reenact.cli.reading import Reading

    caplog.set_level(logging.DEBUG)
    tokens: list[str] = []
    told: list[str] = []
    url = f"sqlite:///{tmp_path}/agents.db"

    async def main() -> None:
        options: dict[str, Any] = {"models": Models({"scripted": Scripted(DEPLOY, repeat=False)}), "tools": [deploy]}
        async with Runtime(url, default_agent={"model": "scripted:any"}, **options) as runtime:
            runtime.on_any(lambda event: told.append(repr(event) + str(as_json(event))))
            sent, action = await put(runtime)
            tokens.append(await runtime.issue_token(action.id))
            asked = await ActionManager(runtime).require_action(ActionSpec(job_id=sent.job_id, type="confirm"))
            tokens.append(asked.resume_token or "")
            wrong = await asyncio.gather(
                runtime.resolve_action(action.id, True, token=asked.resume_token), return_exceptions=True
            )
            told.append(repr(wrong))
            await ActionManager(runtime).resolve(resume_token=tokens[1], resolution={"approved": True})
            await runtime.resolve_action(action.id, True, token=tokens[0])
            await sent
            told.append(contents(tmp_path))

    asyncio.run(asyncio.wait_for(main(), 20))
    with Reading(url) as reading:
        [session] = [row["sessionId"] for row in reading.sessions()]
        told.append(str(list(reading.export(session))) + str(reading.audit()) + str(reading.actions(over=True)))
        told.append(str(reading.sql("SELECT * FROM events").rows))
    told.append(contents(tmp_path))
    told += [caplog.text, *capsys.readouterr()]
    assert len(tokens) == 2 and all(len(token) == 43 for token in tokens)
    assert not [text[:80] for text in told for token in tokens if token in text]


@tool(effect="read")
async def show(way: str, context: ToolContext) -> str:
    """Ask, and say what answers it."""
    asked = await context.actions.require_action(ActionSpec(type="confirm", timeout_seconds=3.0))
    token = asked.resume_token
    assert token is not None and len(token) == 43
    shown.append(token)
    context.progress(f"with {token}")
    logging.getLogger("reenact").warning("with %s", token)
    if way == "raised":
        raise RuntimeError(token)
    if way == "encoded":
        return msgspec.json.encode(asked).decode() + str(msgspec.to_builtins(asked)) + repr(pickle.dumps(asked))
    return base64.b64encode(f"it is {token}".encode()).decode() if way == "in base64" else f"it is {token}"


shown: list[str] = []


@pytest.mark.parametrize("way", ["returned", "in base64", "raised", "encoded"])
def test_a_tool_that_says_its_token_has_it_masked(way: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shown.clear()
    told: list[str] = []

    async def main() -> None:
        async with Runtime(f"sqlite:///{tmp_path}/agents.db", tools=[show]) as runtime:
            runtime.on_any(lambda event: told.append(repr(event) + str(as_json(event))))
            bot = await runtime.image("bot", model="scripted:tools")
            result = await bot.send(f'show {{"way": "{way}"}}')
            told.append(repr(result))
            spec = ActionSpec(type="confirm", session_id=bot.session_id)
            asked = await ActionManager(runtime).require_action(spec)
            own = await runtime.issue_token(asked.action_id)
            other = await runtime.scoped(scope="other").image("bot", model="scripted:echo")
            assert (await other.send(f"so {own}")).text == "so [secret:resume_token]"
            told.append(contents(tmp_path))
            shown.append(own)
            await runtime.resolve_action(asked.action_id, True, token=own)
            assert not runtime._vault._lent and not runtime._vault.holds(own), "it is worth nothing now"

    asyncio.run(asyncio.wait_for(main(), 20))
    told += [contents(tmp_path), caplog.text]
    for token in shown:
        inside = base64.b64encode(f"it is {token}".encode()).decode()[8:-4]
        assert not [text[:80] for text in told if token in text or inside in text]
    assert way == "encoded" or "[secret:resume_token]" in "".join(told)


def test_so_many_tokens_are_looked_for_and_of_one_question_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reenact.secrets.vault.LENT_MAX", 3)
    known, tokens = Vault([]), [new_token() for _ in range(5)]
    for number, token in enumerate(tokens):
        known.lend(f"s:a{number}", token)
    assert [known.holds(token, "any") for token in tokens] == [False, False, True, True, True]
    known.lend("s:a4", tokens[0])
    assert known.holds(tokens[0], "any") and not known.holds(tokens[4], "any")
    for number in range(5):
        known.take_back(f"s:a{number}")
    assert not len(known._forms)


def contents(folder: Path) -> str:
    """All bytes of all files, while they are written or after."""
    return "".join(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file())


def test_ten_thousand_who_resolve_one_action_by_its_token_are_one() -> None:
    async def work(runtime: Runtime) -> None:
        _, action = await put(runtime)
        token = await runtime.issue_token(action.id)
        tries = [runtime.resolve_action(action.id, True, token=token) for _ in range(1000)]
        said = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(not isinstance(each, BaseException) for each in said) == 1
        assert {type(each) for each in said if isinstance(each, BaseException)} <= {ActionOver, NotFound}

    run(work, DEPLOY, repeat=False, tools=[deploy])
