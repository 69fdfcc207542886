"""What is owed is begun once, let go of when it is settled, and asked about when its runner is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from reenact.actors.clock import ManualClock
from reenact.actors.dispatch import Dispatch, Origin
from reenact.events import codec
from reenact.events.agent import (
    AnswerModel,
    CallModel,
    CancelEffect,
    ModelCalled,
    ProbeTool,
    ProveTool,
    RecoverEffect,
    RunTool,
    SettleTool,
    ToolStarted,
    WakeAt,
)
from reenact.events.ledger import RecallAllotments
from reenact.events.message import Command, Context, Effect, Event, Head, Recorded
from reenact.events.model import ModelAnswer, ModelParams
from reenact.events.session import ExpireJob, JobStopping
from tests.simulation.loop import VirtualLoop

EPOCH = 2


class World:
    """A performer whose work is done when the test says so. It stops when it is told to, and tells of it."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, str, int]] = []
        self.stopped: list[str] = []
        self.ends: dict[str, asyncio.Future[Command]] = {}

    async def perform(self, stream: str, effect: Any) -> Command:
        self.begun.append((stream, effect.id, getattr(effect, "attempt", 0)))
        end = self.ends[effect.id] = asyncio.get_running_loop().create_future()
        try:
            return await end
        except asyncio.CancelledError:
            self.stopped.append(effect.id)
            return SettleTool(tool=effect.id, outcome="error", output="stopped")

    def gone(self, effect: CancelEffect, *, begun: bool) -> Command:
        output = "nobody is at it" if begun else "it never began"
        return SettleTool(tool=effect.target, outcome="unknown" if begun else "skipped", output=output)

    def failed(self, effect: Any, error: BaseException) -> Command:
        return SettleTool(tool=effect.id, outcome="error", output=repr(error))


class Desk:
    """A dispatch on a loop in virtual time, and what it told."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.clock = ManualClock()
        self.world = World()
        self.told: list[tuple[str, Command]] = []
        self.origins: list[Origin | None] = []
        self.dispatch = Dispatch(self.world, self.tell, clock=self.clock)

    def tell(self, stream: str, command: Command, origin: Origin | None, otherwise: Command | None) -> None:
        self.told.append((stream, command))
        self.origins.append(origin)

    def owed(self, *effects: Effect, events: Sequence[Recorded] | None = None, stream: str = "session-s") -> Desk:
        """A batch was stored after which this is owed: by default the one that holds the starts of all of it."""
        if events is None:
            events = started(*effects, at=self.clock.now())
        self.loop.within(self.dispatch.owed, stream, effects, events)
        self.loop.drain()
        return self

    def left(self, *effects: Effect) -> Desk:
        """A stream is taken up that owes this."""
        return self.owed(*effects, events=())

    def ends(self, effect: str, command: Command | None = None) -> Desk:
        self.world.ends[effect].set_result(command or SettleTool(tool=effect, outcome="ok", output=""))
        self.loop.drain()
        return self

    def passes(self, seconds: float) -> Desk:
        self.loop.advance(seconds)
        self.loop.drain()
        return self

    @property
    def begun(self) -> list[str]:
        return [effect for _, effect, _ in self.world.begun]

    @property
    def commands(self) -> list[Command]:
        return [command for _, command in self.told]


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    assert not desk.loop.raised, desk.loop.raised
    desk.loop.close()


def runs(tool: str = "t1", attempt: int = 1, effect: Any = "unsafe") -> RunTool:
    return RunTool(
        id=tool,
        name="pay",
        call_id="c",
        input={},
        key=f"s:{tool}",
        attempt=attempt,
        effect=effect,
        timeout_s=60.0,
        epoch=EPOCH,
    )


def calls(call: str = "m1", attempt: int = 1) -> CallModel:
    return CallModel(
        id=call, model="scripted:x", upto=1, image_version=1, attempt=attempt, epoch=EPOCH, params=ModelParams()
    )


def stops(target: str = "t1", attempt: int = 1, tool: bool = True) -> CancelEffect:
    return CancelEffect(id=f"stop-{target}", target=target, attempt=attempt, tool=tool)


def probes(tool: str = "t1", attempt: int = 1) -> ProbeTool:
    return ProbeTool(id=f"probe-{tool}", name="pay", call_id="c", input={}, key=f"s:{tool}", attempt=attempt)


def recalls(version: int) -> RecallAllotments:
    return RecallAllotments(id=f"recall:{version}", due={"s": "w1"})


def recorded(event: Event, part: int, head: Head) -> Recorded:
    return Recorded(part + 1, "session-s", part + 1, part, EPOCH, event, head, codec.row_digest(codec.row(event)))


def started(*effects: Effect, at: int = 1) -> tuple[Recorded, ...]:
    """The batch in which these were started."""
    head = Head(id="a" * 32, at=at, asked="answer_model")
    events: list[Event] = [JobStopping(job_id="job_1", reason="of other things")]
    for effect in effects:
        if isinstance(effect, RunTool):
            events.append(ToolStarted(tool=effect.id, attempt=effect.attempt, arguments=""))
        elif isinstance(effect, CallModel):
            events.append(
                ModelCalled(
                    call=effect.id, attempt=effect.attempt, upto=1, image_version=1, model=effect.model, context=""
                )
            )
    return tuple(recorded(event, part, head) for part, event in enumerate(events))


# -- the table --


def test_what_is_owed_is_begun_and_its_end_comes_back_as_a_command(desk: Desk) -> None:
    answer = AnswerModel(call="m1", answer=ModelAnswer(parts=(), stop_reason="end_turn"))
    desk.owed(calls()).ends("m1", answer)
    assert desk.told == [("session-s", answer)]


def test_what_is_owed_again_is_not_begun_again(desk: Desk) -> None:
    desk.owed(runs()).owed(runs()).owed(runs(), runs("t2"))
    assert desk.begun == ["t1", "t2"]


def test_nor_when_it_has_ended_and_its_end_is_not_stored_yet(desk: Desk) -> None:
    desk.owed(runs(), runs("t2")).ends("t1").owed(runs(), runs("t2"))
    assert desk.begun == ["t1", "t2"] and desk.dispatch.under_way == 2


def test_it_leaves_the_table_when_it_is_no_longer_owed(desk: Desk) -> None:
    desk.owed(runs(), runs("t2")).ends("t1").owed(runs("t2"))
    assert desk.dispatch.under_way == 1
    desk.ends("t2").owed()
    assert desk.dispatch.under_way == 0 and desk.world.stopped == []
    assert not desk.dispatch._flights, "and nothing is kept of a stream that owes nothing"


def test_another_attempt_is_another_effect(desk: Desk) -> None:
    desk.owed(runs()).ends("t1").owed(runs(attempt=2))
    assert desk.world.begun == [("session-s", "t1", 1), ("session-s", "t1", 2)]


def test_what_is_settled_by_somebody_else_is_stopped(desk: Desk) -> None:
    desk.owed(runs(), runs("t2")).owed(runs("t2"))
    assert desk.world.stopped == ["t1"]
    desk.owed()
    assert desk.world.stopped == ["t1", "t2"] and desk.dispatch.under_way == 0


def test_streams_have_tables_of_their_own(desk: Desk) -> None:
    desk.owed(runs(), stream="session-a").owed(runs(), stream="session-b").owed(stream="session-a")
    assert [stream for stream, _, _ in desk.world.begun] == ["session-a", "session-b"]
    assert desk.dispatch.under_way == 1


# -- what is called back, and called back again --


@given(then=st.lists(st.sampled_from(["changes", "stays", "ends first", "ends last"]), max_size=8))
def test_given_limits_that_change_again_and_again_each_change_is_seen_to_to_its_end(then: list[str]) -> None:
    """Whoever changed them waits until it is; what an earlier change called back is not left in the middle."""
    desk = Desk()
    changes, waiting, under_way = 0, dict[str, asyncio.Task[None]](), list[str]()
    for step in ["changes", *then]:
        if step == "changes":
            changes += 1
            under_way.append(f"recall:{changes}")
            desk.owed(recalls(changes))
            performed = desk.dispatch.performed("session-s", lambda effect: isinstance(effect, RecallAllotments))
            waiting[under_way[-1]] = desk.loop.create_task(performed)
            desk.loop.drain()
        elif step == "stays":
            desk.owed(recalls(changes))
        elif under_way:
            desk.ends(under_way.pop(0 if step == "ends first" else -1))
        assert [name for name, setting in waiting.items() if setting.done() and name in under_way] == []
    assert desk.begun == [f"recall:{each}" for each in range(1, changes + 1)] and desk.world.stopped == []
    desk.owed(recalls(changes))
    assert desk.dispatch.under_way == len({*under_way, f"recall:{changes}"}), "what has ended is let go of"
    desk.loop.run_until_complete(desk.dispatch.close())
    desk.loop.drain()
    assert sorted(desk.world.stopped) == sorted(under_way) and desk.dispatch.under_way == 0
    assert all(setting.done() for setting in waiting.values()), "and nobody waits for what was closed"
    assert not desk.loop.raised, desk.loop.raised
    desk.loop.close()


def test_given_two_changes_and_a_call_between_them_told_at_once_the_call_begins_after_the_first(desk: Desk) -> None:
    """So it hears of it: else its session could go on, and make another, before the second change reaches it."""
    for stream, effect in (("ledger-a", recalls(1)), ("session-s", calls()), ("ledger-a", recalls(2))):
        desk.loop.within(desk.dispatch.owed, stream, [effect], started(effect))
    desk.loop.drain()
    assert desk.begun == ["recall:1", "m1", "recall:2"]


def test_when_all_of_it_came_back_and_nothing_is_owed_nobody_is_asked_any_more(desk: Desk) -> None:
    desk.owed(recalls(1)).owed(recalls(2)).owed()
    assert desk.world.stopped == ["recall:1", "recall:2"] and desk.dispatch.under_way == 0


# -- the morning after --


@pytest.mark.parametrize("effect", [runs(), calls()], ids=["a tool", "a model"])
def test_what_an_earlier_owner_began_is_asked_about_once_and_not_begun(desk: Desk, effect: Any) -> None:
    desk.left(effect).left(effect)
    assert desk.commands == [RecoverEffect(effect=effect.id, attempt=1)] and desk.begun == []


def test_also_when_the_stream_was_never_taken_up_and_is_asked_something_else(desk: Desk) -> None:
    desk.owed(runs(), runs("t2"), events=started(runs("t2"), runs(attempt=2)))
    assert desk.commands == [RecoverEffect(effect="t1", attempt=1)] and desk.begun == ["t2"]


def test_what_its_stream_then_wants_run_is_run(desk: Desk) -> None:
    desk.left(runs()).owed(runs(attempt=2))
    assert desk.world.begun == [("session-s", "t1", 2)]


def test_a_probe_may_be_repeated_by_the_next_owner(desk: Desk) -> None:
    desk.left(probes()).ends("probe-t1", ProveTool(tool="t1", happened=True))
    assert desk.commands == [ProveTool(tool="t1", happened=True)]


# -- stopping --


def test_a_stop_stops_what_runs_and_its_own_end_is_told(desk: Desk) -> None:
    desk.owed(runs()).owed(stops())
    assert desk.world.stopped == ["t1"]
    assert desk.commands == [SettleTool(tool="t1", outcome="error", output="stopped")]
    desk.owed(stops())
    assert len(desk.told) == 1, "and asked for again it is not stopped again"


def test_a_stop_of_what_nobody_is_at_is_answered_at_once(desk: Desk) -> None:
    desk.owed(stops())
    assert desk.commands == [SettleTool(tool="t1", outcome="unknown", output="nobody is at it")]
    desk.owed(stops())
    assert len(desk.told) == 1


def test_a_stop_of_what_was_only_asked_about_is_answered_at_once(desk: Desk) -> None:
    desk.left(runs()).owed(stops())
    assert desk.commands[1:] == [SettleTool(tool="t1", outcome="unknown", output="nobody is at it")]


def test_a_stop_that_comes_after_the_end_changes_nothing(desk: Desk) -> None:
    desk.owed(runs()).ends("t1").owed(stops())
    assert desk.commands == [SettleTool(tool="t1", outcome="ok", output="")] and desk.world.stopped == []


# -- timers --


def due(desk: Desk, *, s: float, job: str = "job_1") -> WakeAt:
    return WakeAt(id=f"deadline-{job}", job_id=job, at=desk.clock.now() + int(s * 1_000_000))


def test_a_deadline_is_told_when_it_comes_and_once(desk: Desk) -> None:
    effect = due(desk, s=60)
    desk.owed(effect).passes(59)
    assert desk.told == []
    desk.owed(effect).passes(2).passes(100)
    assert desk.commands == [ExpireJob(job_id="job_1")]


def test_a_deadline_that_passed_while_nobody_was_there_is_told_at_once(desk: Desk) -> None:
    desk.owed(due(desk, s=-3600)).passes(0)
    assert desk.commands == [ExpireJob(job_id="job_1")]


def test_a_deadline_has_no_more_time_than_it_had_where_the_clock_is_set_back_over_a_restart(desk: Desk) -> None:
    effect = replace(due(desk, s=60), since=desk.clock.now())
    desk.clock.move(s=-3600)
    desk.owed(effect).passes(59)
    assert desk.told == []
    desk.passes(2)
    assert desk.commands == [ExpireJob(job_id="job_1")]


def test_a_deadline_of_a_job_that_has_ended_is_forgotten(desk: Desk) -> None:
    desk.owed(due(desk, s=60), due(desk, s=90, job="job_2")).owed(due(desk, s=90, job="job_2")).passes(100)
    assert desk.commands == [ExpireJob(job_id="job_2")]


# -- whose doing it is --


def test_an_end_is_caused_by_the_event_that_owed_it_on_behalf_of_who_asked(desk: Desk) -> None:
    head = Head(
        id="f" * 32,
        at=desk.clock.now(),
        asked="x",
        correlation="c" * 32,
        trace="00-ab",
        context=Context(scope="acme", principal="eve"),
    )
    events = (
        recorded(ModelCalled(call="m1", attempt=1, upto=1, image_version=1, model="x", context=""), 0, head),
        recorded(ToolStarted(tool="t1", attempt=1, arguments=""), 1, head),
        recorded(ToolStarted(tool="t2", attempt=1, arguments=""), 2, head),
    )
    desk.owed(runs(), runs("t2"), due(desk, s=0), events=events).ends("t1").passes(0)
    of_t1, of_deadline = desk.origins
    assert of_t1 == Origin("acme", "eve", f"{'f' * 32}-1", "c" * 32, "00-ab")
    assert of_deadline is not None and of_deadline.cause == f"{'f' * 32}-2", "else the batch's last"


def test_what_is_taken_up_after_a_start_has_no_cause(desk: Desk) -> None:
    desk.left(runs())
    assert desk.origins == [None]


# -- the end --


def test_closing_stops_everything_and_tells_nothing(desk: Desk) -> None:
    desk.owed(runs(), calls(), due(desk, s=1))
    desk.loop.run_until_complete(desk.dispatch.close())
    assert sorted(desk.world.stopped) == ["m1", "t1"] and desk.dispatch.under_way == 0
    desk.owed(runs("t9")).passes(10)
    assert desk.told == [] and "t9" not in desk.begun


def test_closing_waits_for_what_is_slow_to_stop_and_not_for_ever(desk: Desk) -> None:
    class Deaf(World):
        async def perform(self, stream: str, effect: Any) -> Command:
            while True:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    self.stopped.append(effect.id)

    desk.dispatch._performer = Deaf()
    desk.owed(runs())
    before = desk.loop.time()
    desk.loop.run_until_complete(desk.dispatch.close())
    assert 0 < desk.loop.time() - before <= 10
    for task in asyncio.all_tasks(desk.loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_a_performer_that_raises_breaks_no_other_effect(desk: Desk) -> None:
    desk.owed(runs(), runs("t2"))
    desk.world.ends["t1"].set_exception(RuntimeError("a flaw of the performer"))
    desk.loop.drain()
    desk.ends("t2")
    assert [(each.tool, each.outcome) for each in desk.commands] == [("t1", "error"), ("t2", "ok")]
    assert "a flaw of the performer" in desk.commands[0].output
    desk.loop.raised.clear()


def test_a_stop_that_comes_before_the_first_step_is_told_as_never_begun(desk: Desk) -> None:
    """Fails where the task is only cancelled: a coroutine that never ran tells nothing, its stream waits for ever."""

    def both() -> None:
        desk.dispatch.owed("session-s", [runs()], started(runs()))
        stop = CancelEffect(id="stop-t1", target="t1", attempt=1, tool=True, effect="unsafe")
        desk.dispatch.owed("session-s", [stop], ())

    desk.loop.within(both)
    desk.loop.drain()
    assert desk.world.begun == []
    assert desk.commands == [SettleTool(tool="t1", outcome="skipped", output="it never began")]
