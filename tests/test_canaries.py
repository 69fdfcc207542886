"""Thirty secrets, each planted where secrets are met with, are nowhere afterwards: not in any file, line or message."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from reenact import ReenactError, Runtime, Secret, ToolContext, tool
from reenact.adapters.models import Models, Retries, RetryPolicy
from reenact.adapters.models.anthropic import Anthropic
from reenact.cli.reading import Reading
from reenact.events.content import Failure, Text, Thinking, ToolCall, Usage
from reenact.events.message import BusEvent, Live, Recorded, as_json
from reenact.events.model import Credentials, ModelAnswer, ModelFailure, ModelRequest
from reenact.events.stream import InputJsonDelta, MessageStop, TextDelta, ThinkingDelta, ToolUseStart, ToolUseStop
from reenact.secrets.vault import Vault
from reenact.secrets.veil import Veil
from tests.adapters.cli.terminal import reenact
from tests.adapters.models.served import Answer, serve

PLACES = (
    *("environment", "environment password", "key of the runtime", "key of a provider", "password of a base URL"),
    *("user text", "user text in base64", "user text in a URL", "user file", "image instructions", "image metadata"),
    *("tool argument", "tool argument key", "tool output", "tool output in JSON", "tool output that is cut"),
    *("tool exception", "cause of an exception", "tool progress", "tool log line", "tool traceback"),
    *("model text", "model text in pieces", "model thinking", "model call id", "partial answer", "failure message"),
    *("header", "error body", "reason of a stop", "image description", "settings of a request"),
    *("failure code", "class of an exception", "reason of an answer", "writer of a thought", "unit of a bill"),
    *("code of a failure that is answered by another", "tool of a partial answer", "argument of a partial answer"),
    *("unknown tool", "argument of an unknown tool", "tool that was interrupted", "argument that was interrupted"),
)
SECRETS = {place: f"canary/{number:02}-{place.replace(' ', '+')}=x" for number, place in enumerate(PLACES)}
UNKNOWN = "sk-ant-canary-nobody-registered-0001"
"""One that is told by its look alone."""


def encodings(value: str) -> list[str]:
    whole = base64.b64encode(b"ab" + value.encode()).decode()
    return [value, json.dumps(value)[1:-1], quote(value), quote(value, safe=""), whole[4:-4]]


class Model:
    """Answers as its turn comes: with a call, with text in pieces, with a failure half way, at last in peace."""

    def __init__(self) -> None:
        self.calls = 0

    async def stream(self, request: ModelRequest) -> Any:
        self.calls += 1
        secret = SECRETS
        if self.calls == 1:
            for letter in secret["model text in pieces"]:
                yield TextDelta(text=letter)
            for half in (secret["model thinking"][:9], secret["model thinking"][9:]):
                yield ThinkingDelta(text=half)
            yield ToolUseStart(id="c1", name="work")
            given = {"said": secret["tool argument"], "more": {secret["tool argument key"]: 1}}
            for letter in json.dumps(given):
                yield InputJsonDelta(partial_json=letter)
            parts = (
                Text(text=f"{secret['model text in pieces']} {secret['model text']} {UNKNOWN}"),
                Thinking(thinking=secret["model thinking"], provider="x", signature=secret["model thinking"]),
                Thinking(thinking="", provider=secret["writer of a thought"]),
                ToolCall(id=f"call {secret['model call id']}", name="work", input=given),
                ToolCall(id="c2", name="fail", input={}),
            )
            yield ModelAnswer(parts=parts, stop_reason="tool_use", usage=Usage(input_tokens=1, output_tokens=1))
        elif self.calls == 2:
            yield TextDelta(text=f"now {secret['partial answer']}")
            message = f"refused: {secret['failure message']} " + "x" * 20 + secret["failure message"][:14] + " ..."
            raise ModelFailure(
                Failure(code=f"weird_{secret['failure code']}", message=message, retryable=True),
                partial=(Text(text=f"now {secret['partial answer']}"),),
            )
        else:
            reason, usage = (
                secret["reason of an answer"],
                Usage(input_tokens=9, output_tokens=9, extra={secret["unit of a bill"]: 1}),
            )
            yield MessageStop(stop_reason=reason)
            yield ModelAnswer(parts=(Text(text="done"),), stop_reason=reason, usage=usage)


class Odd:
    """Fails half way through a call as only its own adapter can; asks for a tool that is none; has no end."""

    def __init__(self) -> None:
        self.calls = 0

    async def stream(self, request: ModelRequest) -> Any:
        self.calls += 1
        usage = Usage(input_tokens=1, output_tokens=1)
        if request.model == "first":
            name, given = SECRETS["tool of a partial answer"], {"a": SECRETS["argument of a partial answer"]}
            raise ModelFailure(
                Failure(code=SECRETS["code of a failure that is answered by another"], message="no", status=500),
                partial=(Text(text="half"), ToolCall(id="c1", name=name, input=given)),
            )
        if request.model == "endless":
            yield ToolUseStart(id="c3", name=SECRETS["tool that was interrupted"])
            yield InputJsonDelta(partial_json=json.dumps({"a": SECRETS["argument that was interrupted"]}))
            yield ToolUseStop()
            await asyncio.Event().wait()
        elif self.calls == 2:
            call = ToolCall(id="c2", name=SECRETS["unknown tool"], input={"a": SECRETS["argument of an unknown tool"]})
            yield ModelAnswer(parts=(call,), stop_reason="tool_use", usage=usage)
        else:
            yield ModelAnswer(parts=(Text(text="done"),), stop_reason="end_turn", usage=usage)


@tool(effect="read")
def work(said: str, more: dict[str, int], context: ToolContext) -> dict[str, Any]:
    """Show everything there is."""
    context.progress(f"at {SECRETS['tool progress']}")
    logging.getLogger("reenact").debug("with %s", SECRETS["tool log line"])
    try:
        raise KeyError(SECRETS["tool traceback"])
    except KeyError:
        logging.getLogger("reenact").debug("trouble", exc_info=True)
    assert context.secret("tool output").reveal() == SECRETS["tool output"]
    return {
        "a": SECRETS["tool output"],
        "b": json.dumps(SECRETS["tool output in JSON"]),
        "c": context.secret("header").name,
    }


@tool(effect="read", max_output_bytes=400)
def fail() -> str:
    """Raise."""
    try:
        raise ValueError(SECRETS["cause of an exception"])
    except ValueError as error:
        long = "y" * 150 + SECRETS["tool output that is cut"] + "y" * 500
        made_up = type(SECRETS["class of an exception"], (RuntimeError,), {})
        raise made_up(f"{SECRETS['tool exception']} {SECRETS['cause of an exception']} {long}") from error


class Seen:
    """Everything that anybody could read afterwards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.texts: list[str] = []

    def hear(self, event: BusEvent) -> None:
        # A request is what its asker said, and goes nowhere; everything drawn from it is here.
        if isinstance(event, Recorded) or not event.type.endswith("_request"):
            self.texts.append(json.dumps(as_json(event)) if isinstance(event, Recorded | Live) else repr(event))

    def found(self) -> set[str]:
        texts = [
            *self.texts,
            *(file.read_bytes().decode("latin-1") for file in self.folder.rglob("*") if file.is_file()),
        ]
        found = {
            place for place, value in SECRETS.items() for each in encodings(value) for text in texts if each in text
        }
        return found | {place for place, value in {"unknown": UNKNOWN}.items() for text in texts if value in text}


async def planted(url: str, seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = SECRETS
    monkeypatch.setenv("SOME_API_KEY", secret["environment"])
    monkeypatch.setenv("SOME_PASSWORD", secret["environment password"])

    def provide(provider: str, spec: Any) -> Credentials:
        if provider == "anthropic":
            address = served.url.replace("http://", f"http://me:{quote(secret['password of a base URL'], safe='')}@")
            return Credentials(api_key=Secret(secret["key of a provider"]), base_url=address)
        return Credentials(api_key="none")

    known = {place: value for place, value in secret.items() if "environment" not in place and "provider" not in place}
    models = Models({"scripted": Model(), "anthropic": Anthropic(), "odd": Odd()})
    retries = Retries(RetryPolicy(attempts=2, wait_initial_s=0.001, wait_max_s=0.001))
    told = {"error": {"message": f"bad: {secret['error body']} {secret['key of a provider']} " + "z" * 940}}
    answer = Answer(
        status=401,
        pieces=[json.dumps(told).encode()],
        headers={"content-type": "application/json", "x-canary": secret["header"]},
    )
    async with (
        serve(answer) as served,
        Runtime(url, tools=[work, fail], secrets=known, credentials=provide, models=models, retries=retries) as runtime,
    ):
        runtime.on_any(seen.hear)
        runtime.secret("key of the runtime", Secret(secret["key of the runtime"]))
        bot = await runtime.image(
            "bot",
            model="scripted:any",
            instructions=f"Use {secret['image instructions']}",
            description=f"With {secret['image description']}",
            metadata={"key": secret["image metadata"]},
        )
        inside = base64.b64encode(f"a {secret['user file']} b".encode()).decode()
        content = [
            {"type": "text", "text": f"{secret['user text']} {secret['environment']} {secret['environment password']}"},
            {"type": "text", "text": base64.b64encode(b"u:" + secret["user text in base64"].encode()).decode()},
            {"type": "text", "text": f"https://x/?q={quote(secret['user text in a URL'], safe='')}"},
            {"type": "text", "text": secret["key of the runtime"]},
            {"type": "file", "media_type": "text/plain", "mediaType": "text/plain", "data": inside},
        ]
        result = await bot.send(content, key="once")
        seen.texts.append(repr(result))
        seen.texts += [repr(await bot.messages()), repr(await bot.events())]
        refused = await bot.send("again", model="anthropic:claude-sonnet-5-5")
        seen.texts.append(repr(refused))
        assert refused.failure is not None and refused.failure.code == "auth"
        other = await runtime.image("other", model="odd:first", fallbacks=["odd:second"])
        assert (await other.send("go")).text == "done"
        async for event in other.send("stay", model="odd:endless"):
            if event.type == ToolUseStop.type:
                await other.interrupt()
        seen.texts += [repr(await other.messages()), repr(await other.events())]
        assert (await runtime.replay(other.session_id)).identical
        # A key that a callable gives is known from its first use on.
        await bot.send(f"{secret['key of a provider']} {secret['password of a base URL']}")
        await runtime.stop_image(bot.id, reason=secret["reason of a stop"])
        answers = await runtime.request(
            "image_create_request", {"containerId": "c", "config": {secret["user text"]: 1}}
        )
        seen.texts.append(json.dumps(answers.data))
        for trouble in (
            lambda: bot.send("x", key=secret["user text"]),
            lambda: bot.send("x", model=secret["settings of a request"]),
            lambda: runtime.create_container(secret["user text"]),
            lambda: runtime.resolve(bot.session_id, secret["user text"], "ok", "done"),
            lambda: runtime.image("x", **{secret["settings of a request"]: 1}),
            lambda: runtime.messages(secret["user text"]),
        ):
            try:
                await trouble()
            except ReenactError as error:
                seen.texts.append("".join(traceback.format_exception_only(error)) + repr(error))
            else:
                raise AssertionError("none of these is possible")
        assert (await runtime.replay(bot.session_id)).identical


def afterwards(url: str, seen: Seen) -> None:
    """What can be made of the log: views, exports, the terminal's output."""
    with Reading(url) as reading:
        session = reading.session("last")
        for rows in (reading.messages(session), reading.audit(), reading.export(session), reading.jobs(over=True)):
            seen.texts += [json.dumps(row) for row in rows]
        seen.texts += [json.dumps(row) for row in (*reading.images(), *reading.sessions(), *reading.cost("model"))]
        seen.texts += [*reading.conversation(session), str(reading.sql("select * from events limit 1000"))]
        (seen.folder / "export.json").write_text("\n".join(json.dumps(row) for row in reading.export(session)))
    for command in ("events --json", "messages last", "audit --json", "images --json", "sessions", "export last", "ps"):
        done = reenact(*command.split(), "--db", url)
        seen.texts += [done.out, done.err]


@contextmanager
def listening(seen: Seen) -> Iterator[None]:
    """Every logger at DEBUG, and what they write."""
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(logging.Formatter("%(name)s %(message)s"))
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
        seen.texts.append(lines.getvalue())


def planting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    seen, url = Seen(folder), f"sqlite:///{folder}/log.db"
    monkeypatch.chdir(folder)
    with listening(seen):
        asyncio.run(asyncio.wait_for(planted(url, seen, monkeypatch), 60))
    afterwards(url, seen)
    assert len(seen.texts) > 60
    return seen.found()


def test_thirty_planted_secrets_are_nowhere_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(SECRETS) >= 30
    assert planting(tmp_path, monkeypatch) == set()


def test_the_canaries_are_found_where_nothing_is_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Vault, "hidden", lambda self, value, scope="", refuse=False: value)
    monkeypatch.setattr(Vault, "text", lambda self, text, start=0, scope="": text)
    monkeypatch.setattr(Veil, "show", lambda self, signal: (signal,))
    monkeypatch.setattr(Vault, "holds", lambda self, text, scope="": "+text=" in text)
    found = planting(tmp_path, monkeypatch)
    assert found >= set(SECRETS) | {"unknown"}, set(SECRETS) - found


@pytest.mark.parametrize("gap", ["hidden", "text", "show"])
def test_each_part_of_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gap: str) -> None:
    broken: dict[str, Any] = {
        "hidden": lambda: monkeypatch.setattr(Vault, "hidden", lambda self, value, scope="", refuse=False: value),
        "text": lambda: monkeypatch.setattr(Vault, "text", lambda self, text, start=0, scope="": text),
        "show": lambda: monkeypatch.setattr(Veil, "show", lambda self, signal: (signal,)),
    }
    broken[gap]()
    monkeypatch.setattr(Vault, "holds", lambda self, text, scope="": "+text=" in text)
    assert planting(tmp_path, monkeypatch)


def test_there_is_one_way_into_a_mailbox(root: Path) -> None:
    found = [
        f"{path.name}: {line.strip()}"
        for path in sorted((root / "reenact").rglob("*.py"))  # does not follow the links to the other rooms
        for line in path.read_text().splitlines()
        if " Ask(" in line or ("bus.tell(" in line and " Peek(" not in line)  # a look has nothing to hide
    ]
    assert found == [
        "kernel.py: self.bus.tell(stream, _Posted(self._hidden(asked, own), told, companions, body, own))",
    ], "every command goes through Kernel._post, where the vault is"
