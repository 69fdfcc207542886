"""Lanes that park: nothing is handed over until an unpark, and no unpark is lost or counted twice."""

from __future__ import annotations

import queue
import threading
from collections import deque
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reenact.actors.threads import Lane, Pool
from reenact.events.errors import Closed
from tests.actors.lanes import LONG, PATIENCE_S, Countdown, Crash, Does, hold, pool_of, settle


def parks(got: list[object]) -> Does:
    """What parks after every message, and keeps them in `got`."""

    def receive(message: object) -> bool:
        got.append(message)
        return True

    return Does(receive)


def test_a_parked_lane_hands_over_nothing_until_it_is_unparked() -> None:
    got: list[object] = []
    with pool_of(1) as pool:
        lane = pool.spawn("a", parks(got))
        for number in range(3):
            lane.tell(number)
        settle(pool)
        assert (got, lane.depth) == ([0], 2)
        lane.unpark()
        settle(pool)
        assert (got, lane.depth) == ([0, 1], 1)


def test_an_unpark_while_receive_still_runs_is_not_lost() -> None:
    got: list[object] = []

    def finished_at_once(message: object) -> bool:
        got.append(message)
        lane.unpark()
        lane.unpark()
        return True

    with pool_of(1) as pool:
        lane = pool.spawn("a", Does(finished_at_once))
        for number in range(3):
            lane.tell(number)
        settle(pool)
        assert got == [0, 1, 2]


def test_an_unpark_of_an_idle_lane_is_not_saved_for_a_later_message() -> None:
    got: list[object] = []
    with pool_of(1) as pool:
        lane = pool.spawn("a", parks(got))
        lane.unpark()
        lane.tell(0)
        lane.tell(1)
        settle(pool)
        assert got == [0]


def test_an_unpark_during_one_message_does_not_count_for_the_next() -> None:
    got: list[object] = []

    def receive(message: object) -> bool:
        got.append(message)
        if message == 0:
            lane.unpark()
        return message != 0

    with pool_of(1) as pool:
        lane = pool.spawn("a", Does(receive))
        for number in range(3):
            lane.tell(number)
        settle(pool)
        assert got == [0, 1]


def test_two_unparks_of_a_parked_lane_are_one() -> None:
    got: list[object] = []
    with pool_of(1) as pool:
        lane = pool.spawn("a", parks(got))
        for number in range(3):
            lane.tell(number)
        settle(pool)
        gate = hold(pool)
        lane.unpark()
        lane.unpark()
        gate.open()
        settle(pool)
        assert got == [0, 1]


def test_a_lane_unparked_with_nothing_queued_runs_on_the_next_message() -> None:
    got: list[object] = []
    with pool_of(1) as pool:
        lane = pool.spawn("a", parks(got))
        lane.tell(0)
        settle(pool)
        lane.unpark()
        lane.tell(1)
        settle(pool)
        assert got == [0, 1]


def test_unparks_that_race_with_receive_are_neither_lost_nor_counted_twice(restless: None) -> None:
    # Every message parks and is finished exactly once: by the handler itself, by another thread that may be faster than
    # the handler's return, or by the idle hook, as a group commit would. A lost unpark stops a lane; a message handed
    # over without one is caught by the count.
    lanes, each = 20, 2_000 if LONG else 200
    count = Countdown(lanes * each)
    to_finish: queue.SimpleQueue[tuple[Lane, Parks] | None] = queue.SimpleQueue()
    committing: deque[tuple[Lane, Parks]] = deque()

    class Parks:
        def __init__(self) -> None:
            self.lane: Lane | None = None
            self.got = self.finished = 0
            self.early = False

        def receive(self, message: object, /) -> bool:
            assert isinstance(message, int) and self.lane is not None
            self.early |= self.finished != self.got
            self.got += 1
            way = message % 3
            if way == 0:
                self.finish()
            elif way == 1:
                to_finish.put((self.lane, self))
            else:
                committing.append((self.lane, self))
            count()
            return True

        def finish(self) -> None:
            assert self.lane is not None
            self.finished += 1
            self.lane.unpark()

    def commit() -> bool:
        worked = False
        while committing:
            try:
                _, behaviour = committing.popleft()
            except IndexError:
                break
            behaviour.finish()
            worked = True
        return worked

    def finish_others() -> None:
        while (item := to_finish.get()) is not None:
            item[1].finish()

    finishers = [threading.Thread(target=finish_others) for _ in range(3)]
    for thread in finishers:
        thread.start()
    try:
        with pool_of(4, on_idle=commit) as pool:
            parks = [Parks() for _ in range(lanes)]
            for n, behaviour in enumerate(parks):
                behaviour.lane = pool.spawn(f"lane-{n}", behaviour)
            for number in range(each):
                for behaviour in parks:
                    assert behaviour.lane is not None
                    behaviour.lane.tell(number + behaviour.got % 2)
            count.wait()
    finally:
        for _ in finishers:
            to_finish.put(None)
        for thread in finishers:
            thread.join(PATIENCE_S)
    assert [behaviour.got for behaviour in parks] == [each] * lanes
    assert not any(behaviour.early for behaviour in parks)


class OneLane(RuleBasedStateMachine):
    """Any order of tell, return, crash, unpark and remove, against a model of four fields."""

    def __init__(self) -> None:
        super().__init__()
        self.crashes: list[Crash] = []
        self.pool = Pool(threads=1, on_crash=lambda key, error: self.crashes.append((key, error)))
        self.number = 0
        self.raised = 0
        self.begin()

    def begin(self) -> None:
        self.entered: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.verdicts: queue.SimpleQueue[bool | BaseException] = queue.SimpleQueue()
        entered, verdicts = self.entered, self.verdicts

        def receive(message: Any) -> bool:
            entered.put(message)
            verdict = verdicts.get(timeout=PATIENCE_S)
            if isinstance(verdict, BaseException):
                raise verdict
            return verdict

        self.lane = self.pool.spawn("a", Does(receive))
        self.queued: deque[int] = deque()
        self.handling = self.parked = self.unparked = False

    def hand_over(self) -> None:
        """What the lane must do by itself after any step: the next message, or nothing."""
        if self.handling:
            return
        if self.queued and not self.parked:
            assert self.entered.get(timeout=PATIENCE_S) == self.queued.popleft()
            self.handling, self.unparked = True, False
        else:
            settle(self.pool)
            assert self.entered.empty()

    @rule(times=st.integers(1, 3))
    def tell(self, times: int) -> None:
        for _ in range(times):
            self.number += 1
            self.lane.tell(self.number)
            self.queued.append(self.number)
        self.hand_over()

    @precondition(lambda self: self.handling)
    @rule(park=st.booleans())
    def receive_returns(self, park: bool) -> None:
        self.handling, self.parked = False, park and not self.unparked
        self.verdicts.put(park)
        self.hand_over()

    @precondition(lambda self: self.handling)
    @rule(error=st.sampled_from([ValueError, KeyboardInterrupt, SystemExit, GeneratorExit]))
    def receive_raises(self, error: type[BaseException]) -> None:
        self.handling, self.raised = False, self.raised + 1
        self.verdicts.put(error())
        self.hand_over()
        assert len(self.crashes) == self.raised

    @rule()
    def unpark(self) -> None:
        if self.handling:
            self.unparked = True
        self.parked = False
        self.lane.unpark()
        self.hand_over()

    @rule()
    def remove(self) -> None:
        assert self.pool.remove("a") == list(self.queued)
        with pytest.raises(Closed):
            self.lane.tell(0)
        self.lane.unpark()
        if self.handling:
            self.verdicts.put(False)
        settle(self.pool)
        assert self.entered.empty()
        self.begin()

    @invariant()
    def depth_is_what_waits(self) -> None:
        assert self.lane.depth == len(self.queued)

    def teardown(self) -> None:
        self.pool.remove("a")  # first, or the worker takes the next message, for which no verdict comes
        if self.handling:
            self.verdicts.put(False)
        self.pool.close()
        assert len(self.crashes) == self.raised


TestOneLane = OneLane.TestCase
TestOneLane.settings = settings(
    max_examples=500 if LONG else 40,
    stateful_step_count=30,
    deadline=None,
    # No shrinking: on a broken build each attempt waits its patience out, hundreds of times.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
