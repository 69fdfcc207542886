"""One process of a world: a runtime on the disk, with a loop, a pool and a clock in which nothing moves by itself."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Coroutine, Iterator
from typing import TYPE_CHECKING, Any

from reenact.actors import threads
from reenact.adapters.models import Models, Retries, RetryPolicy
from reenact.events.message import Command, Recorded
from reenact.runtime import Runtime

from .faults import SimLog
from .loop import VirtualLoop
from .outside import TOOLS, SimModel

if TYPE_CHECKING:
    from .world import World

START = 1_750_000_000_000_000  # microseconds


class Node:
    """One process: a runtime on the disk, its loop, and whoever waits for an answer from it."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.dead = self.up = self.doomed = self.closing = self.closed = False
        self.clock = SimClock(world)
        self.loop = VirtualLoop()
        self.loop._now = world.now
        self.gates: list[asyncio.Future[None]] = []
        self.calls: dict[asyncio.Task[Any], str] = {}
        self.told_upto = 0
        self.log = SimLog(world.disk, writer=name)
        self.log.node = self
        policy = RetryPolicy(attempts=4, wait_initial_s=0.5, wait_max_s=4.0, jitter_s=0.0)
        with self.running():
            self.runtime = Runtime(
                self.log,
                tools=TOOLS,
                models=Models({"scripted": SimModel()}),
                retries=Retries(policy),
                clock=self.clock,
                default_agent={"model": "scripted:sim", "max_steps": 4},
                threads=1,
            )
            self.runtime.on_any(self._hear)
            self._opening = self.loop.create_task(self._open())

    async def close(self) -> None:
        """End it as a program does that has no more to do."""
        self.closing = True
        await self.runtime.close()
        self.closed = True

    async def _open(self) -> None:
        await self.runtime.open()
        self.runtime._kernel.system._awake_max = self.world.options.awake
        dispatch: Any = self.runtime._kernel.dispatch
        self._told, dispatch._tell = dispatch._tell, self._tell
        self.up = True

    def _tell(self, stream: str, command: Command, *more: Any) -> None:
        """An end of an effect is on its way to its stream: at once, or behind others. People may say it again."""
        world = self.world
        world.said.append((stream, command))
        if world.chance.random() < world.options.twice:
            self.loop.call_later(world.chance.random(), self._told, stream, command, *more)
        else:
            self._told(stream, command, *more)

    @property
    def pool(self) -> SimPool:
        pool: Any = self.runtime._kernel.system._pool
        return pool

    @property
    def queued(self) -> int:
        """Batches that wait for a commit."""
        return len(self.runtime._kernel.system.commits._queue) if self.up else 0

    @property
    def lanes(self) -> int:
        """Streams with a message to take."""
        return self.pool.ready if self.up else 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """What happens in here happens in this process."""
        before, self.world.current = self.world.current, self
        asyncio._set_running_loop(self.loop)
        try:
            yield
        finally:
            asyncio._set_running_loop(None)
            self.world.current = before

    def call(self, what: str, work: Coroutine[Any, Any, Any]) -> None:
        """Somebody asks, and waits for the answer."""
        with self.running():
            task = self.loop.create_task(work)
        self.calls[task] = what
        task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[Any]) -> None:
        what = self.calls.pop(task)
        if not task.cancelled() and task.exception() is not None:
            self.world.fail(f"{what}: raised {task.exception()!r}")

    def _hear(self, event: Any) -> None:
        if isinstance(event, Recorded):
            self.world.told(self, event)

    def opened(self) -> None:
        """Raise what kept it from opening."""
        if self._opening.done():
            self._opening.result()


class SimPool(threads.Pool):
    """The pool without its threads: the world takes the place of the workers."""

    def __init__(self, *, threads: Any = None, on_crash: Any = None, on_idle: Any = None) -> None:
        self._on_crash, self._on_idle = on_crash, on_idle
        self._lanes: dict[str, Any] = {}
        self._ready: deque[Any] = deque()
        self._guard = threading.Lock()
        self._asleep: list[Any] = []
        self._waking = self._closing = False
        self._workers: list[Any] = []

    @property
    def ready(self) -> int:
        return len(self._ready)

    def step(self, which: int) -> None:
        """Have one lane handle one message, as one of many workers would."""
        lane = self._ready[which]
        del self._ready[which]
        lane._quota = 1
        with contextlib.suppress(threads._Pause):
            lane._actor_loop_running()

    def idle(self) -> None:
        """What a worker does that finds no ready lane."""
        if self._on_idle is not None:
            self._on_idle()


class SimClock:
    """A machine's clock: the world's time, and what it is off by."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.off = 0

    def now(self) -> int:
        return START + int(self.world.now * 1_000_000) + self.off

    def new_id(self) -> str:
        self.world.ids += 1
        return f"{self.world.ids:032x}"
