"""A world in one thread: real runtimes on one disk, the outside they act upon, and time, which passes when told to.

Everything that happens is one of a few moves, and chance says which: a stream takes a message, somebody commits, the
loop runs a callback, something outside ends, a timer goes off, a person asks for something, a process dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import logging
import random
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from reenact.events import codec, failpoint
from reenact.events.agent import ToolStarted
from reenact.events.log import MemoryStore, Result, Stored, Transaction
from reenact.events.message import Command, Recorded

from .faults import CALM, Died, Options, draw
from .node import Node, SimPool
from .outside import Outside
from .people import PATIENCE_S, People

STEPS_MAX = 60_000
"""Most moves of one phase. A world that needs more is stuck in a circle."""

PLACES = [
    name
    for name in failpoint.NAMES
    if name.partition(".")[0] in ("cell", "close", "effect", "group", "model", "probe", "signal", "tell", "tool")
]
"""Failpoints of what runs in a world; the others are in files and sockets."""


class World:
    """All there is in one seed."""

    current: Node | None = None

    def __init__(self, seed: int, options: Options | None = None) -> None:
        self.seed = seed
        self.asks = seed % 2 == 1  # in half of all worlds people are asked before money is wired
        self.chance = random.Random(seed)
        self.options = options or draw(self.chance)
        self.asked_for = self.options
        self.now = 0.0
        self.ids = 0
        self.disk = MemoryStore()
        self.nodes: list[Node] = []
        self.graves: list[Node] = []
        self.outside = Outside(self)
        self.handed: dict[str, tuple[int, int]] = {}  # id of a batch -> epoch, events
        self.starts: set[tuple[str, str, int]] = set()  # (session, call, attempt) that are on the disk
        self.known: dict[int, str] = {}  # position -> id, of what is on the disk
        self.said: list[tuple[str, Command]] = []  # ends of effects, to be said again
        self.deaths = self.takeovers = self.jumps = 0
        self.failures: list[str] = []
        self.steps = 0
        self.ambush = self._ambush()
        self.counts: Counter[str] = Counter()
        self._digest = hashlib.sha256()
        self.people = People(self)

    # -- what is written down --

    def note(self, *words: object) -> None:
        """One line of the trace. Its digest is the same whenever the seed is."""
        self._digest.update(repr(words).encode())

    @property
    def trace(self) -> str:
        return self._digest.hexdigest()[:16]

    def fail(self, what: str) -> None:
        self.failures.append(what)

    def handed_in(self, epoch: int, transactions: Sequence[Transaction]) -> None:
        for transaction in transactions:
            for batch in transaction.batches:
                self.handed[batch.head.id] = (epoch, len(batch.rows))

    def stored(self, results: Sequence[Result]) -> None:
        for result in results:
            if isinstance(result, list):
                for stored in result:
                    self._on_disk(stored)

    def _on_disk(self, stored: Stored) -> None:
        batch = stored.batch
        for part, row in enumerate(batch.rows):
            self.known[stored.position + part] = f"{batch.head.id}-{part}"
            if row.type == ToolStarted.type:
                event: Any = codec.decode(row.type, row.schema, row.data)
                self.starts.add((batch.stream.removeprefix("session-"), event.tool, event.attempt))

    def told(self, node: Node, event: Recorded) -> None:
        """Somebody hears of an event: it must be on the disk, and come in order."""
        self.counts[event.type] += 1
        if self.known.get(event.position) != event.id:
            self.fail(f"{node.name} told of {event.type} {event.id} at {event.position}, which is not on the disk")
        if event.position <= node.told_upto:
            self.fail(f"{node.name} told of position {event.position} after {node.told_upto}")
        node.told_upto = event.position

    # -- the moves --

    @property
    def owner(self) -> Node | None:
        """The newest process, if it lives."""
        return self.nodes[-1] if self.nodes and self.nodes[-1].log.epoch == self.disk.epoch else None

    def start(self) -> None:
        """A process starts and takes the log over; whoever owned it before is not asked."""
        self.counts["starts"] += 1
        node = Node(self, f"n{self.counts['starts']}")
        self.nodes.append(node)
        self.note("start", node.name)

    def kill(self, node: Node) -> None:
        self.note("kill", node.name, self.steps)
        node.dead = True
        if node in self.nodes:
            self.nodes.remove(node)
            self.graves.append(node)
            self.people.lost(node)

    def finish(self, node: Node) -> None:
        """A process has closed its runtime and ends. Nobody may still wait for it."""
        for what in node.calls.values():
            self.fail(f"{node.name} was closed and never answered: {what}")
        self.counts["closed"] += 1
        self.kill(node)

    def reached(self, name: str) -> None:
        """A failpoint: the process may die here."""
        node = self.current
        if node is None:
            return
        if node.dead:
            raise Died
        place, left = self.ambush
        if name != place or self.deaths >= self.options.deaths:
            return
        if left > 1:
            self.ambush = (place, left - 1)
            return
        self.ambush = self._ambush()
        self.deaths += 1
        self.counts[f"death at {name}"] += 1
        node.dead = True
        raise Died

    def _ambush(self) -> tuple[str, int]:
        """The failpoint at which the next process will die, and the how manieth time it is reached."""
        return self.chance.choice(PLACES), self.chance.choice([1, 1, 2, 3, 5, 8])

    def move(self) -> None:
        """One thing happens somewhere."""
        self.steps += 1
        chance = self.chance
        self._strike()
        if not self.nodes or self.owner is None:
            self.start()
            return
        node = chance.choice(self.nodes)
        moves = self._moves(node)
        if node.closed and not node.loop.ready:
            self.finish(node)
        elif moves:
            self._make(node, chance.choices([move for move, _ in moves], [weight for _, weight in moves])[0])

    def _moves(self, node: Node) -> list[tuple[str, float]]:
        moves: list[tuple[str, float]] = []
        if node.loop.ready:
            moves.append(("loop", 8))
        if node.lanes:
            moves.append(("lane", 6))
        if node.queued:
            moves.append(("commit", 2))
        if node.gates:
            moves.append(("gate", 3))
        if node.up and self.people.busy and not node.closing:
            moves.append(("people", 2))
        if self._timer(node) is not None:
            moves.append(("time", 0.3))
        return moves

    def _make(self, node: Node, move: str) -> None:
        chance = self.chance
        try:
            with node.running():
                match move:
                    case "loop":
                        for _ in range(min(node.loop.ready, chance.choice([1, 1, 3, 50]))):
                            node.loop.step()
                            asyncio._set_running_loop(node.loop)
                            if node.dead:
                                break
                    case "lane":
                        node.pool.step(chance.randrange(node.pool.ready))
                    case "commit":
                        node.pool.idle()
                    case "gate":
                        self.outside.open_one(node)
                    case "people":
                        self.people.act(node)
                    case "time":
                        self.pass_time(node)
            if move == "loop":
                node.opened()
        except Died:
            node.dead = True
        if node.dead:
            self.kill(node)

    def _timer(self, node: Node) -> float | None:
        """Seconds until its next timer. One that only ends a wait in which nothing came is none: see `PATIENCE_S`."""
        seconds = node.loop.next_timer
        return seconds if seconds is not None and seconds < PATIENCE_S / 2 else None

    def pass_time(self, node: Node) -> None:
        """Until the next timer of this process goes off, for everybody."""
        seconds = self._timer(node)
        if seconds is None:
            return
        self.now += seconds
        for each in self.nodes:
            each.loop.advance(self.now - each.loop.time())

    def _strike(self) -> None:
        options, chance = self.options, self.chance
        if not self.nodes:
            return
        if chance.random() < options.at_failpoint:
            self.ambush = self._ambush()  # the last one was in vain
        if self.deaths < options.deaths and chance.random() < options.at_step:
            self.deaths += 1
            self.kill(chance.choice(self.nodes))
            return
        if self.takeovers < options.takeovers and chance.random() < 0.003:
            self.takeovers += 1  # the old owner goes on and does not know
            self.start()
        if self.jumps < options.jumps and chance.random() < 0.01:
            self.jumps += 1
            chance.choice(self.nodes).clock.off += chance.choice([-1, 1]) * chance.choice([1, 60, 3600, 10**8]) * 10**6
        for node in self.nodes[:]:
            stale = node is not self.owner and chance.random() < 0.01
            if stale or (node.doomed and chance.random() < 0.02):
                self.kill(node)

    # -- the two phases --

    def rage(self) -> None:
        """Faults are on; people do all that they meant to do."""
        self.start()
        while self.people.busy and not self.failures:
            self.move()
            if self.steps > STEPS_MAX:
                self.fail(f"people are not done after {STEPS_MAX} moves")
        for _ in range(self.chance.randrange(200)):
            if self.failures:
                return
            self.move()

    def heal(self) -> None:
        """Faults are off. Everything must come to its end, or wait for a person, and people answer."""
        self.options = CALM
        for node in self.nodes[:]:
            if node is not self.owner or node.doomed:
                self.kill(node)
        if self.owner is None:
            self.start()
        began = self.steps
        while not self.failures:
            if self.steps - began > STEPS_MAX:
                self.fail(f"not at rest {STEPS_MAX} moves after the last fault")
                return
            node = self.owner
            if node is None:
                self.start()
                continue
            if node.closed and not node.loop.ready:
                self.finish(node)
                continue
            moves = self._moves(node)
            if any(move != "time" for move, _ in moves):
                moves = [(move, weight) for move, weight in moves if move != "time"]
            elif self.people.reply(node):
                continue  # before time passes, and questions expire
            if moves:
                self.steps += 1
                self._make(node, self.chance.choices([move for move, _ in moves], [each for _, each in moves])[0])
            elif not self.people.settle(node):
                return

    def bury(self) -> None:
        """Take apart what is left, without a word: processes that are gone say nothing."""
        for node in (*self.graves, *self.nodes):
            node.dead = True
            for task in asyncio.all_tasks(node.loop):
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                with contextlib.suppress(BaseException):
                    task.get_coro().close()  # type: ignore[union-attr]
            node.loop._ready.clear()  # type: ignore[attr-defined]
            node.loop._scheduled.clear()  # type: ignore[attr-defined]
            node.loop.close()
        self.graves.clear()
        self.nodes.clear()


@contextlib.contextmanager
def installed(world: World) -> Iterator[None]:
    """Make this world the one that everything runs in."""
    frozen = SimpleNamespace(perf_counter=lambda: world.now)
    logging.disable(logging.CRITICAL)
    collecting, hooks = gc.isenabled(), sys.get_asyncgen_hooks()
    gc.disable()
    sys.set_asyncgen_hooks(None, lambda left: None)  # of a process that is gone nothing is tidied up
    try:
        with (
            patch("reenact.actors.system.Pool", SimPool),
            patch("reenact.models.model_calls.time", frozen),
            patch("reenact.tools.tool_calls.time", frozen),
            patch("reenact.adapters.tools.runner.perf_counter", frozen.perf_counter),
            patch.object(failpoint, "_armed", {"in a simulation": None}),
            patch.object(failpoint, "_reached", world.reached),
            Outside.installed(world.outside),
        ):
            yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of coroutines that never ran: their process died before
            world.bury()
        logging.disable(logging.NOTSET)
        sys.set_asyncgen_hooks(*hooks)
        if collecting:
            gc.enable()
