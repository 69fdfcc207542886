"""Tokens, which let who has one answer one question: once, and stored nowhere."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from reenact import ActionManager, ActionSpec, Runtime
from reenact.adapters.models import Models
from reenact.adapters.models.scripted import Scripted
from reenact.events.errors import ActionOver, NotFound
from reenact.events.message import as_json
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
    import logging

    from reenact.reading import Reading

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
