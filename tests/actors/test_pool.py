"""The pool of lanes: removing a lane, closing, and the hook of a worker with nothing to do."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from reenact.actors.threads import IDLE_EVERY, Lane, Pool, _Pause
from reenact.events.errors import Closed
from tests.actors.lanes import LONG, PATIENCE_S, Countdown, Crash, Does, Gate, hold, pool_of, run_threads, settle

# -- removal -----------------------------------------------------------------------------------------------------------


def test_removing_a_queued_lane_returns_its_messages_and_handles_none_of_them() -> None:
    got: list[object] = []
    with pool_of(1) as pool:
        gate = hold(pool)
        lane = pool.spawn("a", Does(got.append))
        for number in range(3):
            lane.tell(number)
        assert pool.ready == 1
        assert pool.remove("a") == [0, 1, 2]
        assert pool.get("a") is None
        with pytest.raises(Closed, match="'a'"):
            lane.tell(3)
        lane.unpark()
        assert pool.remove("a") == []
        successor = pool.spawn("a", Does(got.append))
        successor.tell("new")
        gate.open()
        settle(pool)
        assert pool.get("a") is successor
    assert got == ["new"]


def test_removing_a_busy_lane_lets_the_message_in_hand_finish_and_no_other_begin() -> None:
    got: list[object] = []
    reached, go_on = threading.Event(), threading.Event()

    def receive(message: object) -> bool:
        reached.set()
        assert go_on.wait(PATIENCE_S)
        got.append(message)
        return True

    with pool_of(1) as pool:
        lane = pool.spawn("a", Does(receive))
        for number in range(3):
            lane.tell(number)
        assert reached.wait(PATIENCE_S)
        assert pool.remove("a") == [1, 2]
        go_on.set()
        settle(pool)
        lane.unpark()
        settle(pool)
    assert got == [0]


def test_a_lane_may_remove_itself() -> None:
    left: list[object] = []
    with pool_of(1) as pool:
        gate = hold(pool)
        lane = pool.spawn("a", Does(lambda _: left.extend(pool.remove("a"))))
        for number in range(3):
            lane.tell(number)
        gate.open()
        settle(pool)
        assert pool.get("a") is None
    assert left == [1, 2]


def test_a_parked_lane_can_be_removed() -> None:
    with pool_of(1) as pool:
        lane = pool.spawn("a", Does(lambda _: True))
        lane.tell(0)
        lane.tell(1)
        settle(pool)
        assert pool.remove("a") == [1]
        lane.unpark()
        settle(pool)


class Directory(dict[str, Lane]):
    """Of lanes; `taken_out` is called whenever one was taken out of it."""

    taken_out: Callable[[], object]

    def pop(self, *args: Any) -> Any:
        lane = super().pop(*args)
        self.taken_out()
        return lane


def test_a_lane_that_is_being_used_is_found_by_whoever_unparks_it() -> None:
    found: list[Lane | None] = []
    other = threading.Thread(target=lambda: found.append(pool.get("a")))

    def look() -> None:
        other.start()
        other.join(0.05)  # it may find nothing within this time, but never that there is none

    with pool_of(1) as pool:
        lane = pool.spawn("a", Does(found.append))
        pool._lanes = lanes = Directory(pool._lanes)
        lanes.taken_out = look
        assert pool.use("a") is lane
        other.join(PATIENCE_S)
    assert found == [lane]


def test_keys_are_unique() -> None:
    with pool_of(1) as pool:
        pool.spawn("a", Gate())
        with pytest.raises(ValueError, match="'a'"):
            pool.spawn("a", Gate())
        assert len(pool) == 1


def test_a_pool_needs_a_thread() -> None:
    with pytest.raises(ValueError):
        Pool(threads=0)


def test_a_lane_removed_as_its_worker_reaches_for_the_next_message_stays_closed() -> None:
    # The worker saw the stop flag down, and then the lane was removed: what it does next, done here by hand.
    with pool_of(1) as pool:
        lane = pool.spawn("a", Does(lambda _: None))
        pool.remove("a")
        with pytest.raises(_Pause):
            lane.get()
        with pytest.raises(Closed):
            lane.tell(None)


def test_a_removed_lane_is_freed_at_once_even_if_a_worker_was_in_it_last() -> None:
    with pool_of(1) as pool:
        lane = pool.spawn("a", Does(lambda _: None))
        lane.tell(None)
        while lane.depth or not pool.idle_workers:
            time.sleep(0)
        gone = weakref.ref(lane)
        gc.disable()
        try:
            pool.remove("a")
            del lane
            assert gone() is None
        finally:
            gc.enable()


# -- closing -----------------------------------------------------------------------------------------------------------


def own_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("lanes-")}


def test_no_thread_is_left_after_close_and_closing_again_is_harmless() -> None:
    before = own_threads()
    pool = Pool(threads=4)
    lane = pool.spawn("a", Does(lambda _: None))
    assert len(own_threads() - before) == 4
    assert pool.close() == {}
    assert own_threads() == before
    assert pool.close() == {}
    assert len(pool) == 0
    with pytest.raises(Closed):
        lane.tell(None)
    with pytest.raises(Closed):
        pool.spawn("b", Gate())


def test_close_finishes_the_message_in_hand_and_returns_the_rest() -> None:
    finished: list[object] = []
    reached, go_on = threading.Event(), threading.Event()

    def receive(message: object) -> None:
        reached.set()
        assert go_on.wait(PATIENCE_S)
        waiting.tell("told by a handler that was finishing")
        finished.append(message)

    left: dict[str, list[object]] = {}
    pool = Pool(threads=1)
    waiting = pool.spawn("waiting", Does(finished.append))
    busy = pool.spawn("busy", Does(receive))
    for number in range(3):
        busy.tell(number)
    assert reached.wait(PATIENCE_S)
    closer = threading.Thread(target=lambda: left.update(pool.close(timeout_s=PATIENCE_S)))
    closer.start()
    while not pool._closing:
        time.sleep(0)
    go_on.set()
    closer.join(PATIENCE_S)
    assert finished[0] == 0
    # How far the lane came in its turn is open; that every message was finished or is returned, in order, is not.
    assert finished + left.get("busy", []) == [0, 1, 2]
    assert left["waiting"] == ["told by a handler that was finishing"] * len(finished)


def test_while_it_closes_every_message_is_handled_returned_or_refused(restless: None) -> None:
    handled, refused = [0] * 10, [0] * 4
    each = 10_000 if LONG else 1_000
    left: dict[str, list[object]] = {}

    def counts(n: int) -> Callable[[object], None]:
        def count(_: object) -> None:
            handled[n] += 1

        return count

    pool = Pool(threads=4)
    lanes = [pool.spawn(str(n), Does(counts(n))) for n in range(10)]

    def body(me: int) -> None:
        if me == 4:
            left.update(pool.close(timeout_s=PATIENCE_S))
            return
        for number in range(each):
            try:
                lanes[number % 10].tell(number)
            except Closed:
                refused[me] += 1

    run_threads(5, body)
    assert sum(handled) + sum(refused) + sum(map(len, left.values())) == 4 * each


def test_a_handler_that_does_not_end_is_named_and_left_behind() -> None:
    crashes: list[Crash] = []
    before = own_threads()
    pool = Pool(threads=1, on_crash=lambda key, error: crashes.append((key, error)))
    gate = hold(pool, "stuck")
    lane = pool.get("stuck")
    assert lane is not None
    lane.tell("behind it")
    assert pool.close(timeout_s=0.01) == {"stuck": ["behind it"]}
    assert [(key, type(error)) for key, error in crashes] == [("stuck", TimeoutError)]
    gate.open()
    for thread in own_threads() - before:
        thread.join(PATIENCE_S)
    assert own_threads() == before


def test_a_lane_may_close_the_pool() -> None:
    before = own_threads()
    left: dict[str, list[object]] = {}
    closed = threading.Event()

    def close(_: object) -> None:
        left.update(pool.close())
        closed.set()

    pool = Pool(threads=2)
    gate = hold(pool)
    lane = pool.spawn("a", Does(close))
    lane.tell(0)
    while not pool._closing:
        time.sleep(0)
    lane.tell(1)
    gate.open()
    assert closed.wait(PATIENCE_S)
    assert left == {"a": [1]}
    pool.close()
    for thread in own_threads() - before:
        thread.join(PATIENCE_S)
    assert own_threads() == before


# -- the idle hook -----------------------------------------------------------------------------------------------------


def test_the_idle_hook_comes_when_there_is_nothing_ready_and_before_the_worker_sleeps() -> None:
    order: list[str] = []
    idle = threading.Event()

    def on_idle() -> None:
        if order and order[-1] != "idle":
            order.append("idle")
            idle.set()

    with pool_of(1, on_idle=on_idle) as pool:
        gate = hold(pool)
        for n in range(3):
            pool.spawn(str(n), Does(lambda _: order.append("ran"))).tell(None)
        gate.open()
        assert idle.wait(PATIENCE_S)
    assert order == ["ran"] * 3 + ["idle"]


def test_the_idle_hook_is_not_starved_by_constant_load() -> None:
    # Twenty pairs of lanes throw a token to and fro, so the run queue is never empty; the hook comes all the same.
    pairs, throws = 20, 50
    order: list[str] = []
    count = Countdown(pairs * throws)

    def throw_to(other: int) -> Callable[[Any], None]:
        def receive(left: int) -> None:
            order.append("ran")
            if left > 1:
                lanes[other].tell(left - 1)
            count()

        return receive

    with pool_of(1, on_idle=lambda: order.append("idle")) as pool:
        gate = hold(pool)
        lanes = [pool.spawn(str(n), Does(throw_to((n + pairs) % (2 * pairs)))) for n in range(2 * pairs)]
        for lane in lanes[:pairs]:
            lane.tell(throws)
        order.clear()
        gate.open()
        count.wait()
    runs = "".join("." if word == "ran" else "|" for word in order)
    assert runs.count(".") == pairs * throws
    assert max(map(len, runs.split("|"))) <= IDLE_EVERY


def test_a_hook_that_did_work_is_called_again_before_the_worker_sleeps() -> None:
    work = [0]
    asked, slept = [0], threading.Event()

    def on_idle() -> bool:
        asked[0] += 1
        if work[0]:
            work[0] -= 1
            return True
        slept.set()
        return False

    with pool_of(1, on_idle=on_idle) as pool:
        gate = hold(pool)
        work[0], asked[0] = 3, 0
        slept.clear()
        gate.open()
        assert slept.wait(PATIENCE_S)
        assert asked[0] == 4


def test_lanes_that_the_hook_unparks_run_at_once() -> None:
    got: list[object] = []
    done = threading.Event()
    parked: list[Lane] = []

    def receive(message: object) -> bool:
        got.append(message)
        if len(got) == 3:
            done.set()
        parked.append(lane)
        return True

    def commit() -> bool:
        finished, parked[:] = list(parked), []
        for each in finished:
            each.unpark()
        return bool(finished)

    with pool_of(1, on_idle=commit) as pool:
        lane = pool.spawn("a", Does(receive))
        gate = hold(pool)
        for number in range(3):
            lane.tell(number)
        gate.open()
        assert done.wait(PATIENCE_S)
    assert got == [0, 1, 2]


def test_a_hook_that_raises_is_told_of_and_the_worker_lives() -> None:
    crashes: list[Crash] = []
    fail = [False]
    seen = threading.Event()

    def on_idle() -> None:
        if fail[0]:
            fail[0] = False
            raise SystemExit("in the hook")

    with pool_of(1, on_idle=on_idle, crashes=crashes) as pool:
        gate = hold(pool)
        fail[0] = True
        gate.open()
        settle(pool)
        settle(pool)
        pool.spawn("a", Does(lambda _: seen.set())).tell(None)
        assert seen.wait(PATIENCE_S)
    assert [(key, type(error)) for key, error in crashes] == [("on_idle", SystemExit)]


def test_each_worker_calls_the_hook_a_last_time_when_the_pool_closes() -> None:
    # What the last handler left for the group commit is committed by this call.
    left_to_commit: list[object] = []
    committed: list[object] = []
    closing = threading.Event()

    def commit() -> bool:
        mine, left_to_commit[:] = list(left_to_commit), []
        committed.extend(mine)
        return bool(mine)

    def receive(message: object) -> bool:
        assert closing.wait(PATIENCE_S)
        left_to_commit.append(message)
        return True

    pool = Pool(threads=1, on_idle=commit)
    lane = pool.spawn("a", Does(receive))
    lane.tell("last")
    lane.tell("never begun")
    while lane.depth > 1:
        time.sleep(0)
    left: dict[str, list[object]] = {}
    closer = threading.Thread(target=lambda: left.update(pool.close(timeout_s=PATIENCE_S)))
    closer.start()
    while not pool._closing:
        time.sleep(0)
    closing.set()
    closer.join(PATIENCE_S)
    assert committed == ["last"]
    assert left == {"a": ["never begun"]}
