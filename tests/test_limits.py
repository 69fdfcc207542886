"""Nothing grows without end: every limit is reached, and docs/limits.md lists each with its value."""

from __future__ import annotations

import ast
import asyncio
import importlib
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reenact import blocking
from reenact.actors import system
from reenact.adapters.models import Models, sse
from reenact.adapters.models.scripted import Scripted
from reenact.adapters.models.sse import EventReader
from reenact.catalog import agents
from reenact.environment import EnvironmentSpec, ModelEnvironment
from reenact.events import aside
from reenact.events.errors import Full
from reenact.events.model import ModelFailure
from reenact.events.queue import Unread
from reenact.runtime import Runtime
from tests.conftest import LONG, Figure
from tests.runtimes import Gate, run

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

TURNS = 200 if LONG else 30


def lines_of_a_turn(watchers: int) -> tuple[float, float]:
    """Lines of Python that a turn takes in the thread of the loop, with so many watchers that never read what they
    asked for; and events a turn. Lines and not seconds: a busy machine runs no more of them."""
    counted = 0

    def trace(frame: Any, what: str, _: object) -> Any:
        nonlocal counted
        counted += what == "line"
        return trace

    async def work(opened: Runtime) -> tuple[float, float]:
        bot = await opened.image("bot")
        views = [opened.bus.stream(limit=100) for _ in range(watchers)]
        for turn in range(20):  # until they are full
            await bot.send(f"before {turn}")
        events: list[Any] = []
        with opened.on_any(events.append):
            before, others = counted, sys.gettrace()
            sys.settrace(trace)
            try:
                for turn in range(TURNS):
                    assert (await bot.send(f"turn {turn}")).status == "succeeded"
            finally:
                sys.settrace(others)
        assert all(len(view) == 100 and view.dropped > len(events) for view in views), "behind, and holding no more"
        return (counted - before) / TURNS, len(events) / TURNS

    return run(work, models=Models({"scripted": Scripted([{"text": "word " * 50}])}))


def more_lines_of_a_watcher() -> tuple[float, str]:
    """What each event costs the writer more for each watcher that never reads; and that in words."""
    (alone, events), (watched, _) = lines_of_a_turn(0), lines_of_a_turn(10)
    more = (watched - alone) / (10 * events)
    return more, f"a turn runs {alone:.0f} lines, {more:.0f} more an event for each watcher that never reads"


def test_a_watcher_that_never_reads_slows_no_writer(figure: Figure) -> None:
    more, said = more_lines_of_a_watcher()
    figure(said)
    assert more < 50, said


def test_a_watcher_that_looks_through_what_it_holds_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    push = Unread.push

    def looks_through(unread: Unread, event: Any) -> None:
        for _ in range(unread.size):
            pass
        push(unread, event)

    monkeypatch.setattr(Unread, "push", looks_through)
    more, said = more_lines_of_a_watcher()
    assert more > 100, said


def test_a_handler_on_a_thread_of_its_own_that_never_returns_slows_no_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside, "UNHEARD_MAX", 100)
    gate, heard = threading.Event(), list[Any]()
    last: Any = None

    async def work(opened: Runtime) -> list[Any]:
        nonlocal last
        told: list[Any] = []
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def waits(event: Any) -> None:
            assert gate.wait(60)
            heard.append(event)
            if event is last:
                loop.call_soon_threadsafe(ended.set)

        bot = await opened.image("bot")
        opened.on_any(told.append)
        opened.on_any(waits, thread=True)
        for turn in range(TURNS):
            assert (await bot.send(f"turn {turn}")).status == "succeeded"
        assert heard == [], "it is at its first event still"
        last = told[-1]
        gate.set()
        await asyncio.wait_for(ended.wait(), 60)
        return told

    told = run(work)
    first, gap, *rest = heard
    assert first is told[0] and rest == told[-100:]
    assert (gap.type, gap.data.count) == ("events_dropped", len(told) - 101)


def test_a_function_that_holds_the_loop_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def holds(event: Any) -> None:
        time.sleep(0.11)

    async def work(opened: Runtime) -> None:
        bot = await opened.image("bot")
        opened.on("job_succeeded", holds)
        for turn in range(3):
            await bot.send(f"turn {turn}")

    run(work)
    [said] = [each.getMessage() for each in caplog.records if "holds held the event loop for 0." in each.getMessage()]
    assert "thread=True" in said and "coroutine function" in said
