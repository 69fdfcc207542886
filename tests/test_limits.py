"""Nothing grows without end: every limit is reached, and docs/limits.md lists each with its value."""

from __future__ import annotations

import ast
import asyncio
import importlib
import re
import statistics
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reenact import agents, blocking
from reenact.actors import system
from reenact.adapters.models import Models, sse
from reenact.adapters.models.scripted import Scripted
from reenact.adapters.models.sse import EventReader
from reenact.environment import EnvironmentSpec, ModelEnvironment
from reenact.events.errors import Full
from reenact.events.model import ModelFailure
from reenact.runtime import Runtime
from tests.conftest import LONG, Figure
from tests.runtimes import Gate, run, runtime

ROOMS = ("events", "actors", "adapters", "projections", "reenact")
LIMIT = re.compile(
    r"^(?!MIN_|SMALLEST_)([A-Z]+_)*(MAX|LIMIT|LARGEST|LONGEST|MOST|DEEPEST|TIMEOUT_S|TRIES|REPORTS)(_[A-Z]+)*$|"
    r"^[A-Z_]+_(MAX_S|MAX_SIZE|TIMEOUT_S)$"
)
ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \| `([\w/]+\.py)` \|", re.M)


# -- the list --


def limits(root: Path) -> set[tuple[str, str]]:
    """(name, file) of every constant of the source whose name says that it is a limit; and what is remembered up to a
    number without a name."""
    found = set()
    for room in ROOMS:
        for file in sorted((root / room).rglob("*.py")):
            path = file.relative_to(root).as_posix()
            if path.split("/")[1] in ROOMS:
                continue  # the same files under their other name
            for node in ast.parse(file.read_text("utf-8")).body:
                target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
                name = getattr(target, "id", "")
                if LIMIT.match(name.lstrip("_")):
                    found.add((name, path))
                for each in getattr(node, "decorator_list", ()):
                    if isinstance(each, ast.Call) and "cache" in ast.unparse(each.func):
                        found |= {(ast.unparse(each), path) for given in each.args if isinstance(given, ast.Constant)}
    return found


def test_every_limit_is_listed_with_its_value(root: Path) -> None:
    listed = {(name, file): value for name, value, file in ROW.findall((root / "docs" / "limits.md").read_text())}
    missing = limits(root) - listed.keys()
    assert not missing, f"not in docs/limits.md: {sorted(missing)}"
    for (name, file), value in listed.items():
        parts = file.removesuffix(".py").split("/")
        module = importlib.import_module(".".join(parts if parts[0] == "reenact" else ["reenact", *parts]))
        assert eval(value.replace(",", ""), {}) == getattr(module, name), f"{file}: {name} is {getattr(module, name)}"


def test_a_limit_that_nobody_listed_is_noticed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "things.py").write_text(
        "THINGS_MAX: int = 3\n_OWN_MAX = 5\nOTHER = 4\n\n\n@lru_cache(7)\ndef f(): pass\n"
    )
    assert {name for name, _ in limits(tmp_path)} == {"THINGS_MAX", "_OWN_MAX", "lru_cache(7)"}


# -- reached --


def test_what_an_agent_needs_outside_is_let_go_of_when_its_session_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    class Outside(ModelEnvironment):
        def __init__(self, spec: EnvironmentSpec) -> None:
            super().__init__(Models({"scripted": Scripted([{"text": "Hello."}], repeat=True)}), "scripted")
            made.append(spec.session_id)

        async def dispose(self) -> None:
            gone.append(self)

    async def work(opened: Runtime) -> tuple[int, int]:
        bot = await opened.image("bot")
        begun = [await opened.new_session(bot.id) for _ in range(30)]
        for session_id in begun:
            await (await opened.send(bot.id, "hi", session_id=session_id)).result()
        await asyncio.sleep(0)
        kept = len(made) - len(gone)
        await (await opened.send(bot.id, "still there?", session_id=begun[0])).result()
        return kept, made.count(begun[0])

    made: list[str] = []
    gone: list[Outside] = []
    monkeypatch.setitem(system.ActorSystem.__init__.__kwdefaults__, "awake_max", 5)

    kept, times = run(work, environment_factory=Outside)

    assert kept <= 5 and times == 2
    assert len(made) == len(gone) == 31


def test_agents_beyond_those_that_are_remembered_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(opened: Runtime) -> tuple[list[str], object]:
        bot = await opened.image("bot")
        begun = [await opened.new_session(bot.id) for _ in range(9)]
        for session_id in begun:
            await (await opened.send(bot.id, "hi", session_id=session_id)).result()
        ids = [agent for each in begun for agent in [await opened._agents.at(each)] if agent is not None]
        assert len(opened._agents._awake) == 4
        found = [await opened.find_agent(agent_id) for agent_id in ids]
        assert [each.session_id for each in found if each is not None] == begun
        assert len(opened._agents._awake) == 4
        return ids, await opened.find_agent("agent_of_nobody")

    monkeypatch.setattr(agents, "AGENTS_MAX", 4)

    ids, nobody = run(work)

    assert len(set(ids)) == 9 and nobody is None


def test_an_image_holds_no_more_for_a_thousand_sessions_than_for_one() -> None:
    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        one = len(msgspec.json.encode(await opened.image_state(bot.id)))
        begun = [bot.session_id, *[await opened.new_session(bot.id) for _ in range(1000)]]
        assert await opened._images.sessions(bot.id) == begun
        assert len(msgspec.json.encode(await opened.image_state(bot.id))) <= one + 1
        await opened.delete_image(bot.id)
        closed = [(await opened.events(each))[-1].type for each in begun[::250]]
        assert closed == ["session_closed"] * 5

    run(work)


def test_a_mailbox_that_is_full_refuses_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "MAILBOX_MAX", 20)

    async def work(opened: Runtime) -> tuple[int, int]:
        bot = await opened.image("bot")
        runs = [await bot.send(f"message {n}").run() for n in range(200)]
        ends = await asyncio.gather(*(each.result() for each in runs), return_exceptions=True)
        refused = [end for end in ends if isinstance(end, Full)]
        assert {end.status for end in ends if not isinstance(end, BaseException)} == {"succeeded"}
        told = [message for message in await bot.messages() if message.role == "user"]
        assert len(told) == 200 - len(refused), "what was not refused was answered"
        return len(refused), len(told)

    refused, told = run(work)
    assert refused > 0 and told >= 20


def test_a_lane_that_is_full_refuses_until_a_job_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "QUEUED_MAX", 3)
    gate = Gate()

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        runs = [await bot.send(f"message {n}", key=f"k{n}").run() for n in range(4)]
        for each in runs:
            await each.accepted()
        with pytest.raises(Full, match="3 messages wait"):
            await bot.send("one more")
        again = await bot.send("message 3", key="k3").run()
        assert await again.accepted() == runs[3].job_id, "one that was accepted before is not refused"
        gate.opened.set()
        await asyncio.gather(*(each.result() for each in runs))
        assert (await bot.send("now")).status == "succeeded"

    run(work, models=Models({"scripted": gate}))


def test_a_session_has_so_many_events_and_replays_whatever_the_limit_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        await bot.send("one")
        monkeypatch.setattr(system, "EVENTS_MAX", 5)
        with pytest.raises(Full, match="go on in a new session"):
            await bot.send("two")
        assert (await opened.replay(bot.session_id)).identical
        session = await opened.new_session(bot.id)
        assert (await (await opened.send(bot.id, "three", session_id=session)).result()).status == "succeeded"

    run(work)


def test_an_answer_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "ANSWER_BYTES_MAX", 1000)
    for piece in (b"data: no end of line", b"data: {}\n\n"):
        reader = EventReader()
        with pytest.raises(ModelFailure, match="more than 1000 bytes"):
            for _ in range(200):
                reader.feed(piece)


def test_who_blocks_and_does_not_read_is_waited_for_and_hears_of_every_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking, "UNREAD_MAX", 5)
    models = Models({"scripted": Scripted([{"text": "word " * 200}])})
    with blocking.Runtime("memory://", models=models, default_agent={"model": "scripted:any"}) as opened:
        reading = opened.image("bot").send("go")
        events = iter(reading)
        first = next(events)
        assert reading.result().status == "succeeded"
        assert reading._seen is None and first is not None
        types = [first.type, *(event.type for event in events)]
    assert types[0] == "job_queued" and types[-1] == "job_succeeded"


def test_who_blocks_and_never_reads_keeps_nobody_from_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking, "UNREAD_MAX", 5)
    models = Models({"scripted": Scripted([{"text": "word " * 200}])})
    with blocking.Runtime("memory://", models=models, default_agent={"model": "scripted:any"}) as opened:
        reading = opened.image("bot").send("go")
        events = iter(reading)
        next(events)
        assert reading.result().status == "succeeded"
    assert [event.type for event in events][-1] == "job_succeeded"


# -- a slow watcher never slows the writer --

TURNS = 400 if LONG else 60


def spent(tmp_path: Path, name: str, watchers: int) -> float:
    """Seconds of a turn, with so many watchers that never read what they asked for."""

    async def work() -> float:
        agent = {"model": "scripted:any"}
        models = Models({"scripted": Scripted([{"text": "word " * 50}])})
        async with Runtime(f"sqlite:///{tmp_path / name}.db", models=models, default_agent=agent) as opened:
            bot = await opened.image("bot")
            views = [opened.bus.stream(limit=100) for _ in range(watchers)]
            turns = []
            for turn in range(TURNS):
                began = time.perf_counter()
                assert (await bot.send(f"turn {turn}")).status == "succeeded"
                turns.append(time.perf_counter() - began)
            assert all(len(view) <= 101 and view.dropped for view in views), "they are behind, and hold no more"
            return statistics.median(turns)

    return asyncio.run(work())


def test_a_watcher_that_never_reads_slows_no_writer(tmp_path: Path, figure: Figure) -> None:
    alone = min(spent(tmp_path, f"alone-{n}", 0) for n in range(2))
    watched = min(spent(tmp_path, f"watched-{n}", 10) for n in range(2))
    figure(f"a turn: {alone * 1e3:.2f} ms alone, {watched * 1e3:.2f} ms with ten watchers that never read")
    assert watched < alone * 3 + 0.002  # 1.2 is usual; the rest is for busy machines


def test_a_handler_that_waits_would_be_noticed(tmp_path: Path) -> None:
    """The measure can fail: a watcher that is waited for costs what it waits."""

    async def work(opened: Any) -> float:
        bot = await opened.image("bot")
        opened.on("job_succeeded", lambda event: time.sleep(0.05))
        began = time.perf_counter()
        await bot.send("go")
        return time.perf_counter() - began

    async def main() -> float:
        async with runtime() as opened:
            return await work(opened)

    assert asyncio.run(main()) > 0.05
