"""What people do with the runtimes: everything that can be asked, also nonsense, and the same again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from reenact.actors.cell import Cell
from reenact.adapters.tools.acting import acting
from reenact.events.agent import (
    AnswerModel,
    FailModel,
    Interrupt,
    ProveTool,
    RecoverEffect,
    ResolveTool,
    SettleTool,
    StopAgent,
    WakeAgent,
)
from reenact.events.container import RemoveImage
from reenact.events.content import Failure
from reenact.events.errors import ReenactError
from reenact.events.image import AttachSession
from reenact.events.model import ModelAnswer, ModelParams
from reenact.events.session import CancelJob, CreateSession, ExpireJob, Send
from reenact.requests import NAMES

if TYPE_CHECKING:
    from .node import Node
    from .world import World

PATIENCE_S = 1e9
"""How long people wait for an answer: for ever. What is not answered by then will never be."""

FINAL = {"succeeded", "failed", "cancelled", "timed_out"}


class Sent(Struct):
    """A message with its key: however often it is sent, it is one job. jobs: the ids under which it was accepted."""

    key: str
    image: str
    session: str
    text: str
    timeout_s: float | None
    jobs: set[str]
    sure: bool = False
    refused: bool = False


class People:
    """sent: messages with a key. accepted: jobs that somebody was told of. results: how jobs ended, as it was told."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.left = world.options.actions
        self.images: list[tuple[str, str]] = []  # image, session
        self.sent: list[Sent] = []
        self.accepted: set[str] = set()
        self.results: dict[str, set[str]] = {}
        self.replied: set[tuple[str, str]] = set()
        self.acts: list[tuple[Callable[[Node], None], float]] = [
            (self.makes_image, 1),
            (self.sends, 16),
            (self.sends_plainly, 4),
            (self.interrupts, 2),
            (self.cancels, 2),
            (self.stops, 1),
            (self.wakes, 2),
            (self.resolves, 6),
            (self.changes, 2),
            (self.forks_off, 1),
            (self.deletes, 0.3),
            (self.closes, 0.5),
            (self.asks_otherwise, 1),
            (self.requests, 3),
            (self.reads, 1),
        ]

        if world.asks:
            self.acts.append((self.answers, 30))

    @property
    def busy(self) -> bool:
        return self.left > 0

    def act(self, node: Node) -> None:
        """One person asks for one thing, or for the same thing as before."""
        self.left -= 1
        world, chance = self.world, self.world.chance
        if not self.images:
            if not any(what == "image" for what in node.calls.values()):
                self.makes_image(node)
            else:
                self.left += 1
            return
        if chance.random() < world.options.nonsense:
            self.talks_nonsense(node)
            return
        if len(self.images) < world.options.images and chance.random() < 0.3:
            self.makes_image(node)
            return
        acts, weights = zip(*self.acts, strict=True)
        chance.choices(acts, weights)[0](node)

    def lost(self, node: Node) -> None:
        """A process died: who waited for it does not know what became of what was asked."""

    def call(self, node: Node, what: str, work: Any, seen: Callable[[Any], object] | None = None) -> None:
        async def asked() -> None:
            try:
                got = await work
            except ReenactError as error:
                self.world.counts[f"refused: {error.code}"] += 1
                self.world.note("refused", what, error.code)
            else:
                self.world.note("answered", what)
                if seen is not None:
                    seen(got)

        node.call(what, asked())

    # -- what they do --

    def _image(self) -> tuple[str, str]:
        return self.world.chance.choice(self.images)

    def _session(self) -> str:
        """Of any image, current or past."""
        sessions = [name for name in self.world.disk.by_stream if name.startswith("session-")]
        return self.world.chance.choice(sessions).removeprefix("session-") if sessions else "sess_none"

    def makes_image(self, node: Node) -> None:
        chance, runtime = self.world.chance, node.runtime
        name = chance.choice(["bot", "clerk", None])
        limit = chance.choice([1, 3, 6])
        more = {"approval_timeout_s": chance.choice([30.0, 900.0])} if self.world.asks else {}

        def made(image: Any) -> None:
            known = (image.id, image.session_id)
            if known not in self.images:
                self.images.append(known)

        for _ in range(1 + self._twice()):
            self.call(node, "image", runtime.image(name, container=chance.choice("ab"), max_steps=limit, **more), made)

    def _twice(self) -> int:
        chance = self.world.chance
        return chance.randint(1, 4) if chance.random() < self.world.options.twice else 0

    def sends(self, node: Node) -> None:
        """With a key: sent again as long as nobody said that it was accepted, and sometimes also then."""
        chance = self.world.chance
        open_ones = [sent for sent in self.sent if not sent.sure and not sent.refused]
        if self.sent and chance.random() < self.world.options.twice:
            sent = chance.choice(self.sent)
        elif open_ones and chance.random() < 0.5:
            sent = chance.choice(open_ones)
        else:
            image, session = self._image()
            timeout_s = chance.choice([None, None, None, 30.0, 300.0])
            number = len(self.sent)
            sent = Sent(f"key-{number}", image, session, f"message {number}", timeout_s, set())
            self.sent.append(sent)
        for _ in range(1 + self._twice()):
            self.send(node, sent)

    def send(self, node: Node, sent: Sent) -> None:
        waits = self.world.chance.random() < 0.5

        async def send() -> None:
            run = await node.runtime.send(
                sent.image, sent.text, session_id=sent.session, timeout_s=sent.timeout_s, key=sent.key
            )
            try:
                job = await run.accepted()
            except ReenactError:
                sent.refused = not sent.jobs
                raise
            sent.jobs.add(job)
            sent.sure = True
            self.accepted.add(job)
            if waits:
                result = await run
                self.results.setdefault(job, set()).add(result.status)

        self.call(node, f"send {sent.key}", send())

    def sends_plainly(self, node: Node) -> None:
        chance = self.world.chance
        image, session = self._image()
        options: dict[str, Any] = {
            "priority": chance.choice([0, 0, 1, -1]),
            "timeout_s": chance.choice([None, None, 60.0]),
        }
        if chance.random() < 0.3:
            options["model"] = "scripted:other"
        if chance.random() < 0.3:
            options["params"] = ModelParams(max_tokens=chance.randrange(1, 9))

        async def send() -> None:
            run = await node.runtime.send(image, "hello", session_id=session, **options)
            job = await run.accepted()
            self.accepted.add(job)
            async for _ in run:
                pass
            self.results.setdefault(job, set()).add((await run).status)

        self.call(node, "send and watch", send())

    def interrupts(self, node: Node) -> None:
        image, session = self._image()
        self.call(node, "interrupt", node.runtime.interrupt(image, session_id=session))

    def cancels(self, node: Node) -> None:
        job = self.world.chance.choice(sorted(self.accepted)) if self.accepted else "job_none"
        self.call(node, "cancel", node.runtime.cancel(self._session(), job))

    def stops(self, node: Node) -> None:
        self.call(node, "stop", node.runtime.stop_image(self._image()[0]))

    def wakes(self, node: Node) -> None:
        self.call(node, "wake", node.runtime.wake(*self._image()))

    def resolves(self, node: Node) -> None:
        chance = self.world.chance
        session, tools = self._session(), ["t1", "t2", "t3", "t99"]
        outcome = chance.choice(["ok", "error", "retry"])
        doubts = self.doubts()
        if doubts and chance.random() < 0.8:
            session, tool = chance.choice(doubts)
        else:
            tool = chance.choice(tools)
        self.call(node, "resolve", node.runtime.resolve(session, tool, outcome, "so it is said"))

    def answers(self, node: Node) -> None:
        """Some question that waits, or one that does not: allowed, refused, changed, for good, taken back; or an agent
        that would like to be asked."""
        chance = self.world.chance
        asked = self.asked()
        session, action, digest = chance.choice(asked) if asked else (self._session(), "a1", None)
        action_id, fate, runtime = f"{session}:{action}", chance.random(), node.runtime
        if fate < 0.1:
            self.call(node, "take back", runtime.cancel_action(action_id, cancel_job=chance.random() < 0.3))
            return
        if fate < 0.25:
            self.call(node, "an agent approves", self._as_agent(runtime, action_id))
            return
        more: dict[str, Any] = {}
        approved = chance.random() < 0.75
        if approved and fate < 0.4:
            more["arguments"] = {"n": 7}
        elif approved and fate < 0.65:
            more["always"] = "exact" if fate < 0.6 else "class"
        if chance.random() < 0.5:
            more["digest"] = digest if chance.random() < 0.6 else "sha256:another"
        for _ in range(1 + (chance.random() < 0.3)):
            self.call(node, "answer", runtime.resolve_action(action_id, approved, **more))

    async def _as_agent(self, runtime: Any, action_id: str) -> None:
        with acting("agent:agent_of_the_world"):
            await runtime.resolve_action(action_id, True)

    def asked(self) -> list[tuple[str, str, str | None]]:
        """(session, action, digest) of every question that waits, as the log has it."""
        found = []
        for stream in self._streams():
            _, _, asking = self._states(stream)
            found += [(stream.removeprefix("session-"), each.id, each.digest) for each in asking.pending]
        return found

    def changes(self, node: Node) -> None:
        chance = self.world.chance
        image, _ = self._image()

        async def change() -> None:
            state = await node.runtime.image_state(image)
            config = state.config.__class__(
                name=chance.choice(["one", "two"]),
                model=chance.choice(["scripted:sim", "scripted:other"]),
                max_steps=chance.choice([1, 3, 6]),
                tools=chance.choice([None, None, ("look", "pay")]),
            )
            await node.runtime.update_image(image, config)

        self.call(node, "change", change())

    def forks_off(self, node: Node) -> None:
        image, _ = self._image()
        alias = self.world.chance.choice([None, "second"])

        def made(session: str) -> None:
            if (image, session) not in self.images:
                self.images.append((image, session))

        self.call(node, "new session", node.runtime.new_session(image, alias=alias), made)

    def deletes(self, node: Node) -> None:
        self.call(node, "delete", node.runtime.delete_image(self._image()[0]))

    def closes(self, node: Node) -> None:
        self.call(node, "close", node.close())

    def asks_otherwise(self, node: Node) -> None:
        """A key that was used comes with other words: it is refused, whatever became of the first."""
        sure = [sent for sent in self.sent if sent.sure]
        if not sure:
            return
        sent = self.world.chance.choice(sure)

        async def send() -> None:
            run = await node.runtime.send(sent.image, "other words", session_id=sent.session, key=sent.key)
            job = await run.accepted()
            self.world.fail(f"{sent.key} came with other words and was accepted as {job}")

        self.call(node, f"other words for {sent.key}", send())

    def requests(self, node: Node) -> None:
        """By name, over the bus, with data that may fit."""
        chance = self.world.chance
        image, _ = self._image()
        data = {
            "containerId": chance.choice("ab"),
            "imageId": chance.choice([image, "img_none"]),
            "agentId": "agent_none",
            "content": "by name",
            "config": {"maxSteps": 2, "model": "scripted:sim"},
            "updates": {"name": chance.choice(["three", "four"])},
        }
        name = chance.choice([name for name in sorted(NAMES) if "delete" not in name and "create" not in name])
        self.call(node, name, node.runtime.request(name, data, timeout_s=PATIENCE_S))

    def reads(self, node: Node) -> None:
        session = self._session()

        def same(verdict: Any) -> None:
            if not verdict.identical:
                self.world.fail(f"{session}: {verdict.summary}")

        self.call(node, "replay", node.runtime.replay(session), same)
        self.call(node, "messages", node.runtime.messages(session))

    def talks_nonsense(self, node: Node) -> None:
        """Any command to any stream: late, doubled, for the wrong noun. Nothing untrue is said of what is under way."""
        chance = self.world.chance
        session, (image, _) = self._session(), self._image()
        failure = Failure(code="late", message="late")
        late = [
            AnswerModel(call="m99", answer=ModelAnswer(parts=(), stop_reason="end_turn")),
            FailModel(call="m1", attempt=99, failure=failure),
            SettleTool(tool="t99", outcome="ok", output="late"),
            ProveTool(tool="t99", happened=True),
            RecoverEffect(effect="t1", attempt=99),
            RecoverEffect(effect="m1", attempt=99),
            ResolveTool(tool="t1", outcome="shrug"),
            ResolveTool(tool="t99", outcome="ok"),
            CancelJob(job_id="job_none"),
            ExpireJob(job_id="job_none"),
            CreateSession(session_id=session, image_id="img_other", container_id="a", created_at=1),
            Send(job_id=f"job_bare_{self.left}", content=()),
            Interrupt(),
            StopAgent(),
            AttachSession(session_id="sess_none"),
            RemoveImage(image_id="img_none"),
        ]
        stream = chance.choice([f"session-{session}", f"session-{session}", f"image-{image}", "container-a"])
        command = chance.choice(late)
        if isinstance(command, AttachSession) and stream.startswith("image-"):
            return
        if self.world.said and chance.random() < 0.5:
            stream, command = chance.choice(self.world.said)
        self.call(node, f"nonsense {command.type}", node.runtime.ask(stream, command))

    # -- after the storm --

    def doubts(self) -> list[tuple[str, str]]:
        """(session, call) of what only a person can settle, as the log has it."""
        found = []
        for stream in self._streams():
            _, agent, _ = self._states(stream)
            found += [(stream.removeprefix("session-"), tool.id) for tool in agent.open if tool.status == "unproved"]
        return found

    def _streams(self) -> list[str]:
        return [name for name in self.world.disk.by_stream if name.startswith("session-")]

    def _states(self, stream: str) -> Any:
        cell = Cell(stream)
        for stored in self.world.disk.by_stream[stream]:
            cell.take(stored)
        return cell.states

    def reply(self, node: Node) -> bool:
        """Everything but time rests: answer most of what is asked, each question once. True where any was."""
        did = False
        for session, action, _ in self.asked():
            fate = self.world.chance.random()
            if (session, action) not in self.replied and fate < 0.8:
                always = "exact" if fate < 0.4 else None
                self.call(node, "answer", node.runtime.resolve_action(f"{session}:{action}", fate < 0.7, always=always))
                did = True
            self.replied.add((session, action))
        return did

    def settle(self, node: Node) -> bool:
        """Everything rests: answer what waits for a person, and wake whom queued messages wait for. True if any did."""
        did = False
        for sent in self.sent:
            if not sent.sure and not sent.refused:
                self.send(node, sent)
                sent.refused = True  # the last time
                did = True
        for session, tool in self.doubts():
            outcome = self.world.chance.choice(["ok", "error", "retry"])
            self.call(node, "resolve", node.runtime.resolve(session, tool, outcome, "so it is said"))
            did = True
        for stream in self._streams():
            session, agent, _ = self._states(stream)
            if session.queue and agent.agent_id is None and not session.closed:
                [image] = self._states(f"image-{session.image_id}")
                if image.deleted:  # and whoever deleted it was cut short
                    self.call(node, "delete", node.runtime.delete_image(session.image_id))
                else:
                    self.call(node, "wake", node.runtime.wake(session.image_id, session.session_id))
                did = True
        return did


__all__ = ["FINAL", "People", "Sent", "WakeAgent"]
