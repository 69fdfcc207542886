"""Builds with one thing wrong each. A simulator that passes one of them proves nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any
from unittest.mock import patch

from msgspec.structs import replace

from reenact.actors import action, agent, dispatch, doubt, mind, session, step, tool
from reenact.actors.cell import Cell
from reenact.actors.commit import GroupCommit
from reenact.actors.dispatch import Dispatch
from reenact.actors.system import ActorSystem, _Actor
from reenact.events.action import ActionResolved, ResolveAction
from reenact.events.agent import ProveTool, RecoverEffect, RunTool, SettleTool, ToolSettled
from reenact.events.errors import ReenactError
from reenact.events.log import MemoryLog, Result, Stored, Transaction
from reenact.events.message import Event
from reenact.flow.ends import Ends
from reenact.flow.kernel import Kernel
from reenact.identity import access
from reenact.projections.context import Context

from .world import World

Build = Callable[[], contextlib.AbstractContextManager[Any]]


def _decides(command: type, decide: Callable[[Any, Any], Sequence[Event]]) -> Build:
    return lambda: patch.dict(agent._DECIDE, {command: decide})


def _runs_again(state: mind.State, message: RecoverEffect) -> Sequence[Event]:
    found = mind.tool_of(state, message.effect)
    if found is None or found.status != "started" or found.attempt != message.attempt:
        return doubt.recover(state, message)
    return [tool.begin(found)]


def _settles_anything(state: mind.State, message: SettleTool) -> Sequence[Event]:
    found = mind.tool_of(state, message.tool)
    if found is None and not doubt._was(state, message.tool):
        return ()
    return [ToolSettled(tool=message.tool, outcome=message.outcome, output=message.output)]


def _believes_silence(state: mind.State, message: ProveTool) -> Sequence[Event]:
    return doubt.prove(state, replace(message, happened=bool(message.happened)))


@contextlib.contextmanager
def _agents_approve() -> Iterator[None]:
    """Neither the door nor the decider keeps them out: each does it alone."""
    with patch.object(access, "AGENT_PRINCIPALS", ()), patch.object(action, "AGENT_PRINCIPALS", ()):
        yield


def _no_fence(log: MemoryLog, transactions: Sequence[Transaction]) -> list[Result]:
    return [log._append(transaction) for transaction in transactions]


def _tells_early(commits: GroupCommit) -> bool:
    group = [commits._queue.popleft() for _ in range(len(commits._queue))]
    if not group:
        return False
    log: Any = commits.log
    position = log.position
    told = []
    for transaction, done in group:
        stored = []
        for batch in transaction.batches:
            stored.append(Stored(position + 1, log.epoch, batch))
            position += len(batch.rows)
        said = done(stored)
        if said is not None:
            told.append(said)
    commits._publish(told)
    with contextlib.suppress(ReenactError):
        log.commit([transaction for transaction, _ in group])
    return True


def _write_behind(world: World, node: Any) -> None:
    """What the process wrote last is gone with it, as on a disk that was never synced."""
    if node in world.nodes and world.disk.all and world.disk.all[-1].epoch == node.log.epoch:
        last = world.disk.all.pop()
        world.disk.by_stream[last.batch.stream].pop()
        if not world.disk.by_stream[last.batch.stream]:
            del world.disk.by_stream[last.batch.stream]
        world.disk.position = last.position - 1
    _kill(world, node)


_kill = World.kill


def _begins_twice(table: Dispatch, stream: str, effect: Any, *more: Any) -> Any:
    if isinstance(effect, RunTool):
        _begin(table, stream, effect, *more)
    return _begin(table, stream, effect, *more)


_begin = Dispatch._begin


def _keeps_no_table(table: Dispatch, stream: str, effects: Any, events: Any) -> None:
    table._flights.pop(stream, None)
    _owed(table, stream, effects, events)


_owed = Dispatch.owed


def _by_the_way(state: mind.State) -> Any:
    return replace(_next_call(state), model=f"scripted:{next(_numbers)}")


_next_call, _numbers = step._next_call, count()


def _forgets_to_go_on(system: ActorSystem, group: list[Any]) -> None:
    if any(committed.reply.duplicate or committed.reply.error for committed in group):
        system._parked.clear()
    _committed(system, group)


_committed = ActorSystem._committed


@contextlib.contextmanager
def _believes_itself() -> Iterator[None]:
    """The states of a batch are taken over before it is stored, and kept where it was not."""

    def prepared(cell: Cell, asked: Any, log: Any) -> Any:
        batch = _prepare(cell, asked, log)
        if batch is not None:
            cell.states = batch.decision.states
        return batch

    def told(actor: _Actor, *args: Any) -> Any:
        said = _actor_told(actor, *args)
        actor.loaded = True
        return said

    with patch.object(Cell, "prepare", prepared), patch.object(_Actor, "_told", told):
        yield


_prepare, _actor_told = Cell.prepare, _Actor._told


def _without_a_chain(cell: Cell, stored: Stored) -> Any:
    chain = cell.chain
    events = _take(cell, stored)
    cell.chain = chain
    return events


_take = Cell.take


def _without_its_end(cell: Cell, log: Any) -> Any:
    batches = log.read(cell.stream, after=cell.version)
    return [event for stored in (batches[:-1] if len(batches) > 3 else batches) for event in cell.take(stored)]


def _never_late(state: action.State, message: ResolveAction) -> Sequence[Event]:
    asked = next((each for each in state.pending if each.id == message.action), None)
    said = action._resolve(state, message if asked is None else replace(message, at=asked.asked_at))
    return [replace(each, at=message.at) if isinstance(each, ActionResolved) else each for each in said]


BROKEN: dict[str, Build] = {
    "an unsafe call runs again after a crash": _decides(RecoverEffect, _runs_again),
    "a call is settled twice": _decides(SettleTool, _settles_anything),
    "a probe that proves nothing is taken for a no": _decides(ProveTool, _believes_silence),
    "a decision depends on something outside": lambda: patch.object(step, "_next_call", _by_the_way),
    "a job that ended starts again": lambda: patch.object(session, "_without", lambda state, job_id: state.queue),
    "there is no fence": lambda: patch.object(MemoryLog, "commit", _no_fence),
    "it is told before it is committed": lambda: patch.object(GroupCommit, "_commit", _tells_early),
    "what was committed is lost with the process": lambda: patch.object(World, "kill", _write_behind),
    "keys are ignored": lambda: patch(
        "reenact.actors.system.Transaction", lambda batches, keyed: Transaction(batches, None)
    ),
    "a stream believes what was not stored": _believes_itself,
    "a stream is read without its end": lambda: patch.object(Cell, "catch_up", _without_its_end),
    "the chain begins anew with every owner": lambda: patch.object(Cell, "take", _without_a_chain),
    "a stream that was told no stands still": lambda: patch.object(ActorSystem, "_committed", _forgets_to_go_on),
    "an effect is begun twice": lambda: patch.object(Dispatch, "_begin", _begins_twice),
    "no table is kept of what is under way": lambda: patch.object(Dispatch, "owed", _keeps_no_table),
    "an earlier owner's effects are just run": lambda: patch.object(dispatch, "_starts", lambda *args: True),
    "a stop is not passed on": lambda: patch.object(Dispatch, "_cancel", lambda *args: None),
    "what was owed is forgotten by the next owner": lambda: patch.object(Kernel, "wake", lambda *args: None),
    "an end that could not be stored is lost": lambda: patch.object(Ends, "_ended", lambda *args: None),
    "nobody is asked": lambda: patch.object(tool, "why_asked", lambda *args: None),
    "agents approve": _agents_approve,
    "a question can be answered twice": lambda: patch.object(action, "_end", lambda state, *args, **how: state),
    "an approved call starts whatever became of it": lambda: patch.object(tool, "not_covered", lambda *args: None),
    "a late answer counts": lambda: patch.dict(action._DECIDE, {ResolveAction: _never_late}),
    "the model is shown open calls": lambda: patch.object(Context, "_closing", lambda *args: None),
}
"""By what is wrong with it."""


@contextlib.contextmanager
def build(name: str) -> Iterator[None]:
    """The project with this one thing wrong."""
    with BROKEN[name]():
        yield
