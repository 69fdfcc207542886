"""What the processes of a kill test do: begin a conversation with tools, or take up what a killed one left.

What they do to the world is a line in a file, what they promised a person is a line in another: both survive a kill.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from reenact import tool
from reenact.actors.commit import GroupCommit
from reenact.adapters.hosts.local import call
from reenact.adapters.logs import open_reader, sqlite
from reenact.adapters.logs.history import VARIABLE
from reenact.adapters.logs.owner import owner_of
from reenact.adapters.models import Models, Retries, RetryPolicy
from reenact.adapters.models.scripted import Scripted
from reenact.adapters.tools.context import ToolContext
from reenact.cli.verify import verify
from reenact.events import failpoint
from reenact.events.action import ActionRequired, ActionResolved
from reenact.events.agent import ToolRequested, ToolSettled, ToolStarted, ToolUnproved
from reenact.events.errors import ReenactError
from reenact.events.message import Recorded
from reenact.events.session import JobQueued
from reenact.flow import loop_commits
from reenact.flow.loop_commits import LoopCommits
from reenact.runtime import Runtime
from tests.simulation.broken import build

CLASSES = {"look": "read", "book": "idempotent", "ship": "probeable", "pay": "unsafe"}


def steps(case: dict[str, Any]) -> list[dict[str, Any]]:
    """What the model says: the calls of the case, all of them unless it names some, then a few words."""
    calls = case.get("calls") or list(CLASSES)
    first: dict[str, Any] = {"tool_calls": [{"name": name, "input": {"n": n}} for n, name in enumerate(calls)]}
    if case.get("fails"):
        first["error"] = {"code": "overloaded", "times": case["fails"]}
    return [first, {"text": "All done."}, {"text": "Still here."}, {"text": "And still."}]


class Here:
    """This process: where its world is, and where it is to be killed."""

    folder = Path()
    inside = ""

    @classmethod
    def line(cls, file: str, text: str) -> None:
        """Append a line in one write: it is there whole, or not at all."""
        fd = os.open(cls.folder / file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(fd, f"{text}\n".encode())
        os.close(fd)

    @classmethod
    def lines(cls, file: str) -> list[str]:
        path = cls.folder / file
        return path.read_text().splitlines() if path.exists() else []

    @classmethod
    def effect(cls, name: str, context: ToolContext) -> str:
        """The effect of a tool, and the two places within it where the process may be killed."""
        cls.reached(f"{name} before")
        cls.line(f"{name}.effects", context.idempotency_key)
        cls.reached(f"{name} after")
        return f"{name} done"

    @classmethod
    def reached(cls, place: str) -> None:
        if place == cls.inside:
            die()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@tool(effect="read")
def look(n: int, context: ToolContext) -> str:
    """Look something up."""
    return Here.effect("look", context)


@tool(effect="idempotent")
def book(n: int, context: ToolContext) -> str:
    """Book something; the same key again books nothing new."""
    return Here.effect("book", context)


@tool(effect="probeable", probe=...)
async def ship(n: int, context: ToolContext) -> str:
    """Ship something."""
    return Here.effect("ship", context)


@ship.probe
def shipped(n: int, context: ToolContext) -> bool:
    """Was it shipped?"""
    return context.idempotency_key in Here.lines("ship.effects")


@tool(effect="unsafe")
async def pay(n: int, context: ToolContext) -> str:
    """Pay."""
    return Here.effect("pay", context)


@tool(effect="unsafe", approval="ask")
async def wire(n: int, context: ToolContext) -> str:
    """Wire money, if a person says so."""
    return Here.effect("wire", context)


@tool(name="pay", effect="idempotent")
async def pay_declared_idempotent(n: int, context: ToolContext) -> str:
    """Pay; and whoever wrote this said that it may be done again."""
    return Here.effect("pay", context)


def runtime(case: dict[str, Any]) -> Runtime:
    paying = pay_declared_idempotent if case.get("broken") == "pay is declared idempotent" else pay
    return Runtime(
        f"sqlite:///{Here.folder / 'agents.db'}",
        tools=[look, book, ship, paying, wire],
        models=Models({"scripted": Scripted(steps(case))}),
        retries=Retries(RetryPolicy(attempts=50, wait_initial_s=0.001, wait_max_s=0.001, jitter_s=0.0)),
        default_agent={"model": "scripted:any"},
        budget=case.get("budget"),
        base_path=Here.folder,
        threads=case.get("threads", 2),
    )


def warm() -> None:
    """Load what is loaded late, in a thread of nobody: what a fork would else load for itself."""
    import reenact.adapters.logs.history
    import reenact.adapters.logs.sqlite
    import reenact.owner
    import reenact.projections.duck
    import reenact.projections.transcript  # noqa: F401


# -- what a process may be there for --


def main(case: dict[str, Any]) -> dict[str, Any]:
    """Do what a case says, killed where it says so. role: the name of one of the functions below."""
    Here.folder = Path(case["folder"])
    Here.inside = case.get("inside") or ""
    os.environ[VARIABLE] = str(Here.folder / "history")
    sqlite.CHECKPOINT_PAGES = case.get("checkpoint_pages", sqlite.CHECKPOINT_PAGES)
    roles = {"prepare": prepare, "work": work, "resume": resume, "ask": ask, "project": project}
    role = (roles | {"approve": approve, "approved": approved, "look": look_around})[case["role"]]
    with _broken(case.get("broken")):
        failpoint.arm(case.get("failpoint") or "")
        passed = count_passes() if case.get("counts") else None
        if case.get("on_loop"):
            OnTheLoop.only()
        said = asyncio.run(role(case))
        return said if passed is None else {"passed": passed}


class OnTheLoop:
    """Commits that the event loop makes itself, seen from within."""

    at_it: ClassVar[set[int]] = set()
    """The thread of the loop, while it makes one."""

    @classmethod
    def only(cls) -> None:
        """From here on failpoints are those of such commits, and none is too slow for the loop."""
        loop_commits.SLOW_S = 60.0
        take, reached = LoopCommits._take, failpoint._reached

        def taken(commits: LoopCommits) -> None:
            cls.at_it.add(threading.get_ident())
            try:
                take(commits)
            finally:
                cls.at_it.clear()

        LoopCommits._take = taken  # type: ignore[method-assign]
        failpoint._reached = lambda name: reached(name) if threading.get_ident() in cls.at_it else None

    @classmethod
    @contextlib.contextmanager
    def answers_before_it_commits(cls) -> Iterator[None]:
        """The broken build: what the workers commit is told behind it, as it should be."""
        rightly, publish = GroupCommit._commit, LoopCommits.publish

        def publish_at_once(commits: LoopCommits, group: list[Any]) -> None:
            publish(commits, group)
            if threading.get_ident() in cls.at_it:
                commits._tell()

        with build("it is told before it is committed"):
            early = GroupCommit._commit
            LoopCommits.publish = publish_at_once  # type: ignore[method-assign]
            GroupCommit._commit = lambda commits: (  # type: ignore[method-assign]
                early if threading.get_ident() in cls.at_it else rightly
            )(commits)
            yield


def count_passes() -> Counter[str]:
    """From here on: how often each failpoint is come by."""
    passed: Counter[str] = Counter()
    failpoint._armed["counted"] = failpoint._Armed(0, "")
    failpoint._reached = lambda name: passed.update([name])
    return passed


def _broken(name: str | None) -> contextlib.AbstractContextManager[None]:
    if name is None or name == "pay is declared idempotent":
        return contextlib.nullcontext()
    if name == "the loop answers before it commits":
        return OnTheLoop.answers_before_it_commits()
    return build(name)


async def prepare(case: dict[str, Any]) -> dict[str, Any]:
    """The image and its session are there, and nothing was said yet."""
    async with runtime(case) as opened:
        bot = await opened.image("bot")
        return {"session": bot.session_id}


async def work(case: dict[str, Any]) -> dict[str, Any]:
    """Send the message that calls every tool, and write down what was promised, at the moment when it was."""
    opened = runtime(case)
    told = 0

    def counts(event: Any) -> None:
        nonlocal told
        if isinstance(event, Recorded):
            told += 1
            Here.line("told", f"{event.stream} {event.version} {event.id}")
            if told == case.get("event"):
                die()

    async def limits_anew(event: Any) -> None:
        with contextlib.suppress(ReenactError):
            await opened.set_budget({"max_requests_daily": 100 + event.version})

    opened.on_any(counts)
    if case.get("limits"):
        opened.on(case["limits"], limits_anew)
    async with opened:
        bot = await opened.image("bot")
        run = await opened.send(bot.id, "go", key="the first message")
        Here.line("accepted", await run.accepted())
        result = await run
        Here.line("ended", f"{result.job_id} {result.status}")
        return {"status": result.status, "told": told}


async def approve(case: dict[str, Any]) -> dict[str, Any]:
    """Send the message that wires money, allow it, and write down what was wired before anybody did. Of several that
    wait the last is decided first, which is not the one that the job is said to wait for."""
    async with runtime(case) as opened:
        bot = await opened.image("bot")
        run = await opened.send(bot.id, "go", key="the first message")
        first = await run
        assert first.status == "waiting" and first.action is not None
        while first.status == "waiting":
            await decide(opened, bot, (await opened.actions(bot.session_id))[-1], case)
            first = await run
        return {"status": first.status}


async def decide(opened: Runtime, bot: Any, action: Any, case: dict[str, Any]) -> None:
    """Answer a question when nothing is under way beside it, as the run said."""
    events = [event.data for event in await opened.events(bot.session_id)]
    begun = {event.tool for event in events if isinstance(event, ToolStarted)}
    over = {event.tool for event in events if isinstance(event, ToolSettled | ToolUnproved)}
    assert begun <= over, f"{begun - over} run while the job is said to wait"
    Here.line("deciding", str(Here.lines("wire.effects").count(f"{bot.session_id}:{action.tool}")))
    await opened.resolve_action(action.id, case.get("approves", True))
    Here.line("decided", action.id)


async def look_around(case: dict[str, Any]) -> dict[str, Any]:
    """Own the log for a moment, take up what is owed, and decide nothing."""
    async with runtime(case) as opened:
        bot = await opened.image("bot")
        run = await opened.send(bot.id, "go", key="the first message")
        return {"status": (await asyncio.wait_for(run.result(), 15)).status, "granted": await granted(opened, bot)}


async def granted(opened: Runtime, bot: Any) -> list[str]:
    """The keys of the calls that somebody allowed."""
    events = [event.data for event in await opened.events(bot.session_id)]
    of = {event.action: event.tool for event in events if isinstance(event, ActionRequired)}
    resolved = [event for event in events if isinstance(event, ActionResolved) and event.resolution["approved"]]
    return [f"{bot.session_id}:{of[event.action]}" for event in resolved]


async def approved(case: dict[str, Any]) -> dict[str, Any]:
    """Take up what is left, decide what is not decided, say what became of what is in doubt."""
    async with runtime(case) as opened:
        bot = await opened.image("bot")
        run = await opened.send(bot.id, "go", key="the first message")
        first = await asyncio.wait_for(run.result(), 15)
        while first.status == "waiting":
            if first.action is not None:
                await decide(opened, bot, await opened.action(first.action), case)
            else:
                assert first.waiting_for is not None
                await opened.resolve(bot.session_id, first.waiting_for, "ok", "I looked: it took place.")
            first = await asyncio.wait_for(run.result(), 15)
        events = await opened.events(bot.session_id)
        replay = await opened.replay(bot.session_id)
        yes = await granted(opened, bot)
        budget = [[limit.limit, limit.most, limit.used] for limit in await opened.budget()]
    report = verify(str(Here.folder / "agents.db"), history=Here.folder / "history")
    flaws = [str(violation) for violation in report.violations]
    return {
        "status": first.status,
        "failure": None if first.failure is None else first.failure.code,
        "session": bot.session_id,
        "approved": yes,
        "calls": {event.data.tool: event.data.name for event in events if isinstance(event.data, ToolRequested)},
        "asked": {event.data.action: event.data.tool for event in events if isinstance(event.data, ActionRequired)},
        "told": [
            f"{event.type} {getattr(event.data, 'action', None) or getattr(event.data, 'tool', '')}" for event in events
        ],
        "outcomes": {event.data.tool: event.data.outcome for event in events if isinstance(event.data, ToolSettled)},
        "budget": budget,
        "replay": replay.identical,
        "flaws": flaws,
    }


async def ask(case: dict[str, Any]) -> dict[str, Any]:
    """Answer what comes in over the socket, as it would from another process: here it comes from this one."""
    async with runtime(case):
        owner = owner_of(str(Here.folder / "agents.db"))
        assert owner is not None and owner.socket is not None
        for n in range(case.get("requests", 3)):
            await call(owner.socket, "container_create_request", {"containerId": f"c{n}"})
            Here.line("containers", f"c{n}")
        return {"containers": (await call(owner.socket, "container_list_request"))["containerIds"]}


async def project(case: dict[str, Any]) -> dict[str, Any]:
    """Lay the log out as tables, a few events at a time, beside its owner. A digest of them says what is in them."""
    from reenact.projections.duck import DuckProjection

    with contextlib.closing(open_reader(str(Here.folder / "agents.db"))) as reader:
        with DuckProjection(Here.folder / "tables.duckdb") as live:
            live.catch_up(reader, batch_events=case.get("batch_events", 5))
            found = live.digest()
        with DuckProjection() as anew:
            anew.catch_up(reader)
            return {"live": found, "rebuilt": anew.digest()}


async def resume(case: dict[str, Any]) -> dict[str, Any]:
    """Take up what is left, answer what waits for a person, go on talking, and look whether it all fits."""
    async with runtime(case) as opened:
        bot = await opened.image("bot")
        patience_s = case.get("patience_s", 60)
        again = await opened.send(bot.id, "go", key="the first message")
        first = await asyncio.wait_for(again.result(), patience_s)
        while first.status == "waiting":
            assert first.waiting_for is not None
            await opened.resolve(bot.session_id, first.waiting_for, "ok", "I looked: it was paid.")
            first = await asyncio.wait_for(again.result(), patience_s)
        more = await opened.send(bot.id, "and now?", key="the second message")
        second = await asyncio.wait_for(more.result(), patience_s)
        events = await opened.events(bot.session_id)
        replay = await opened.replay(bot.session_id)
    report = verify(str(Here.folder / "agents.db"), history=Here.folder / "history")
    return {
        "first": first.status,
        "second": second.status,
        "jobs": [event.data.job_id for event in events if isinstance(event.data, JobQueued)],
        "calls": {event.data.tool: event.data.name for event in events if isinstance(event.data, ToolRequested)},
        "starts": [event.data.tool for event in events if isinstance(event.data, ToolStarted)],
        "ends": [
            [event.data.tool, event.data.outcome, event.data.proof]
            for event in events
            if isinstance(event.data, ToolSettled)
        ],
        "session": bot.session_id,
        "events": [event.id for event in events],
        "replay": replay.summary if not replay.identical else "identical",
        "flaws": [str(violation) for violation in report.violations],
    }
