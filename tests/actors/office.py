"""An actor system to ask, who waits for what it answers, and a few commands to ask it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from reenact.actors.system import ActorSystem, Ask, Committed, Peek, Reply
from reenact.events.container import AddImage, CreateContainer
from reenact.events.image import CreateImage, ImageConfig
from reenact.events.log import Log, MemoryLog
from reenact.events.message import Asked, Command
from reenact.events.session import CreateSession

WAIT_S = 10.0

SESSION = "session-sess_1"


class Office:
    """An actor system of two threads. Everything it publishes is kept in the order in which it came."""

    def __init__(self, log: Log | None = None, **options: Any) -> None:
        self.log = log or MemoryLog()
        self.groups: list[list[Committed]] = []
        self.asleep: list[str] = []
        self.on_publish: Callable[[list[Committed]], None] = lambda group: None
        self.count = 0
        self.system = ActorSystem(self.log, self.publish, threads=2, on_sleep=self.asleep.append, **options)

    def publish(self, group: list[Committed]) -> None:
        self.groups.append(group)
        self.on_publish(group)
        for committed in group:
            if committed.told is not None:
                committed.told(committed.reply)

    def asked(self, command: Command, **fields: Any) -> Asked:
        self.count += 1
        return Asked(id=f"{self.count:032x}", at=self.count, command=command, **fields)

    def put(self, stream: str, command: Command, *, companions: Any = (), body: bytes = b"", **fields: Any) -> Answer:
        answer = Answer()
        beside = tuple((name, self.asked(each)) for name, each in companions)
        self.system.put(stream, Ask(self.asked(command, **fields), answer, beside, body))
        return answer

    def ask(self, stream: str, command: Command, **options: Any) -> Reply:
        return self.put(stream, command, **options).wait()

    def rest(self) -> None:
        """Wait until both workers sleep: every lane is at rest then."""
        until = time.monotonic() + WAIT_S
        while self.system._pool.idle_workers < 2 or self.system._pool.ready:
            assert time.monotonic() < until, "the workers never rest"
            time.sleep(0.001)

    def peek(self, stream: str, *, owing: bool = False) -> Reply:
        answer = Answer()
        self.system.put(stream, Peek(answer, owing))
        return answer.wait()

    def look(self, stream: str, scope: str) -> Reply:
        answer = Answer()
        self.system.put(stream, Peek(answer, scope=scope))
        return answer.wait()


class Answer:
    """Somebody who waits for a reply."""

    def __init__(self) -> None:
        self.heard = threading.Event()
        self.reply: Reply | None = None

    def __call__(self, reply: Reply) -> None:
        assert self.reply is None, "told twice"
        self.reply = reply
        self.heard.set()

    def wait(self) -> Reply:
        assert self.heard.wait(WAIT_S), "nobody answered"
        assert self.reply is not None
        return self.reply


def container(n: int) -> tuple[str, Command]:
    return f"container-{n}", CreateContainer(container_id=str(n), created_at=n)


def add(n: int) -> AddImage:
    return AddImage(container_id="acme", image_id=f"img_{n}", created_at=1)


def newborn(n: int) -> list[tuple[str, Command]]:
    config = ImageConfig(name=f"{n}")
    image = CreateImage(image_id=f"img_{n}", container_id="acme", session_id=f"s{n}", created_at=1, config=config)
    born = CreateSession(session_id=f"s{n}", image_id=f"img_{n}", container_id="acme", created_at=1)
    return [(f"image-img_{n}", image), (f"session-s{n}", born)]
