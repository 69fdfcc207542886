"""Live views: a reader as slow as it likes, a bound that holds, and never a silent loss."""

import asyncio
import gc
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact.events.bus import SystemBus
from reenact.events.errors import BadInput
from reenact.events.message import Live
from reenact.events.queue import LiveView, Unread
from tests.events.words import SOON_S


def emit(bus: SystemBus, *numbers: int, kind: str = "x") -> None:
    for n in numbers:
        bus.emit(Live(kind, {"n": n}))


def shown(event: Any) -> object:
    """`5` for event 5, `-3` for three that were dropped, `-3, end` when the view ended with it."""
    if event.type != "events_dropped":
        return event.data["n"]
    return f"-{event.data.count}" + (", end" if event.data.get("closed") else "")


async def all_of(view: LiveView) -> list[object]:
    view.close()
    return [shown(event) async for event in view]


def read(view: LiveView) -> list[object]:
    return asyncio.run(all_of(view))


@pytest.mark.anyio
async def test_a_view_gives_what_came_since_it_was_made_in_order(bus: SystemBus) -> None:
    emit(bus, 0)
    async with bus.stream("x") as view:
        emit(bus, 1, 2)
        emit(bus, 9, kind="y")
        seen = []
        async for event in view:
            seen.append(event.data["n"])
            if len(seen) == 2:
                emit(bus, 3)
            if len(seen) == 3:
                break

    assert seen == [1, 2, 3] and bus.subscriptions == 0


@pytest.mark.anyio
async def test_a_reader_sleeps_until_something_comes(bus: SystemBus) -> None:
    view = bus.stream()
    reading = asyncio.create_task(anext(view))
    await asyncio.sleep(0)
    assert not reading.done()

    emit(bus, 1)

    assert (await asyncio.wait_for(reading, SOON_S)).data["n"] == 1


@pytest.mark.anyio
async def test_an_event_that_comes_while_the_reader_is_falling_asleep_is_not_slept_over() -> None:
    class Hasty(Unread):
        __slots__ = ()

        def take(self) -> Any:
            event = super().take()
            if event is None:
                self.push(Live("x", {"n": 1}))  # after the look, before the sleep
            return event

    view = LiveView(Hasty(limit=5, on_full="drop_oldest", keep=None, now=lambda: 0))

    assert (await asyncio.wait_for(anext(view), SOON_S)).data["n"] == 1


@pytest.mark.anyio
async def test_many_events_from_another_thread_wake_a_sleeping_reader_once(bus: SystemBus) -> None:
    loop = asyncio.get_running_loop()
    wakes = 0
    call = loop.call_soon_threadsafe

    def counted(*args: Any, **how: Any) -> Any:
        nonlocal wakes
        wakes += args[0].__name__ == "_set"
        return call(*args, **how)

    view = bus.stream()
    reading = asyncio.create_task(anext(view))
    await asyncio.sleep(0)
    loop.call_soon_threadsafe = counted  # type: ignore[method-assign] # the loop itself, listened in on
    thread = threading.Thread(target=emit, args=(bus, *range(100)))
    thread.start()
    thread.join(SOON_S)  # holds the loop still, so that all hundred come while the reader sleeps

    assert (await asyncio.wait_for(reading, SOON_S)).data["n"] == 0
    assert wakes == 1 and len(view) == 99
    del loop.call_soon_threadsafe


@pytest.mark.anyio
async def test_a_producer_thread_and_a_reader_lose_nothing_between_them(bus: SystemBus) -> None:
    view = bus.stream(limit=20_000)

    def produce() -> None:
        emit(bus, *range(20_000))
        bus.dispose()

    thread = threading.Thread(target=produce)
    thread.start()
    seen = [event.data["n"] async for event in view]
    thread.join(SOON_S)

    assert seen == list(range(20_000))


@pytest.mark.anyio
async def test_every_reader_has_a_view_of_its_own(bus: SystemBus) -> None:
    one, two = bus.stream(), bus.stream()
    emit(bus, 1, 2)
    assert await all_of(one) == await all_of(two) == [1, 2]

    shared = bus.stream()
    reading = asyncio.create_task(anext(shared))
    await asyncio.sleep(0)
    with pytest.raises(BadInput, match="of its own"):
        await anext(shared)
    emit(bus, 3)
    assert (await reading).data["n"] == 3


@pytest.mark.anyio
async def test_a_reader_that_gives_up_waiting_can_read_on(bus: SystemBus) -> None:
    view = bus.stream()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(view), 0.001)

    emit(bus, 1)

    assert (await anext(view)).data["n"] == 1


def test_a_full_view_drops_the_oldest_and_says_so_where_they_are_missing(bus: SystemBus) -> None:
    view = bus.stream(limit=3)
    emit(bus, *range(10))

    assert view.dropped == 7 and len(view) == 3
    assert read(view) == ["-7", 7, 8, 9]


@pytest.mark.anyio
async def test_a_reader_that_catches_up_sees_two_losses_as_two(bus: SystemBus) -> None:
    view = bus.stream(limit=2)
    emit(bus, 0, 1, 2)
    assert [shown(await anext(view)) for _ in range(2)] == ["-1", 1]
    emit(bus, 3, 4)

    assert await all_of(view) == ["-1", 3, 4] and view.dropped == 2


def test_a_full_view_may_drop_the_newest_instead(bus: SystemBus) -> None:
    view = bus.stream(limit=3, on_full="drop_newest")
    emit(bus, *range(10))

    assert read(view) == [0, 1, 2, "-7"] and view.dropped == 7


def test_a_full_view_may_end_instead(bus: SystemBus) -> None:
    view = bus.stream(limit=3, on_full="close")
    emit(bus, *range(10))

    assert bus.subscriptions == 0 and view.overflowed
    assert read(view) == [0, 1, 2, "-1, end"]


def test_what_is_to_be_kept_is_kept_and_stays_in_its_place(bus: SystemBus) -> None:
    view = bus.stream(limit=3, keep=lambda event: event.data["n"] in (1, 4))
    emit(bus, *range(10))

    assert read(view) == ["-1", 1, "-2", 4, "-4", 9]

    view = bus.stream(limit=3, on_full="drop_newest", keep=lambda event: event.data["n"] in (1, 7))
    emit(bus, *range(10))

    assert read(view) == [0, 1, 2, "-4", 7, "-2"]


def test_too_much_to_keep_ends_the_view_and_says_so(bus: SystemBus) -> None:
    view = bus.stream(limit=3, keep=lambda event: True)
    emit(bus, *range(10))

    assert view.overflowed and bus.subscriptions == 0
    assert read(view) == [0, 1, 2, 3, 4, 5, "-1, end"]


def test_a_slow_reader_with_much_to_keep_does_not_slow_the_bus(bus: SystemBus) -> None:
    asked = 0

    def keep(event: Any) -> bool:
        nonlocal asked
        asked += 1
        return bool(event.data["n"] < 999)

    view = bus.stream(limit=1000, keep=keep)
    emit(bus, *range(11_000))

    assert view.dropped == 10_000
    assert asked < 4 * 11_000, "what is known to be kept is not asked about at every drop"


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), max_size=20),
    st.integers(1, 4),
    st.sampled_from(["drop_oldest", "drop_newest"]),
    st.sets(st.integers(0, 100), max_size=3),
)
def test_read_and_dropped_together_are_all_there_was(
    turns: list[tuple[int, int]], limit: int, on_full: Any, kept: set[int]
) -> None:
    """Any mix of emitting and reading: what was read is in order, every gap says exactly what is missing in it."""

    async def run() -> tuple[list[Any], int, LiveView]:
        bus, n, seen = SystemBus(now=lambda: 0), 0, []
        view = bus.stream(limit=limit, on_full=on_full, keep=lambda event: event.data["n"] in kept)
        for emits, reads in turns:
            emit(bus, *range(n, n + emits))
            n += emits
            assert len(view) <= max(limit, min(limit + len(kept), 2 * limit))
            for _ in range(min(reads, len(view))):
                seen.append(await anext(view))
        view.close()
        seen += [event async for event in view]
        return seen, n, view

    seen, emitted, view = asyncio.run(run())

    at = 0
    for event in seen:
        if event.type == "events_dropped":
            assert event.data.count > 0
            at += event.data.count
        else:
            assert event.data["n"] == at
            at += 1
    if not view.overflowed:
        assert at == emitted
        assert view.dropped == sum(event.data.count for event in seen if event.type == "events_dropped")
        assert {event.data["n"] for event in seen if event.type == "x"} >= {n for n in kept if n < emitted}


def test_a_queue_that_drops_silently_is_found_out() -> None:
    class Silent(Unread):
        __slots__ = ()

        def _drop(self, index: int) -> None:
            del self._queue[index]

    unread = Silent(limit=2, on_full="drop_oldest", keep=None, now=lambda: 0)
    view = LiveView(unread)
    for n in range(5):
        unread.push(Live("x", {"n": n}))

    with pytest.raises(AssertionError):
        assert read(view) == ["-3", 3, 4]


@pytest.mark.anyio
async def test_closing_ends_a_waiting_reader_and_may_be_repeated(bus: SystemBus) -> None:
    view = bus.stream()

    async def collect() -> list[Any]:
        return [event async for event in view]

    reading = asyncio.create_task(collect())
    await asyncio.sleep(0)
    view.close()
    await view.aclose()

    assert await asyncio.wait_for(reading, SOON_S) == []


@pytest.mark.anyio
async def test_the_end_of_the_bus_is_the_end_of_its_views_after_what_they_hold(bus: SystemBus) -> None:
    view = bus.stream()
    emit(bus, 1)
    bus.dispose()

    assert [event.data["n"] async for event in view] == [1]
    assert [event async for event in bus.stream()] == []


@pytest.mark.anyio
async def test_the_end_of_the_bus_in_another_thread_ends_a_sleeping_reader(bus: SystemBus) -> None:
    view = bus.stream()
    reading = asyncio.create_task(anext(view, None))
    await asyncio.sleep(0)
    await asyncio.to_thread(bus.dispose)

    assert await asyncio.wait_for(reading, SOON_S) is None


def test_a_view_that_is_let_go_of_without_closing_leaves_the_bus(bus: SystemBus) -> None:
    view = bus.stream()
    assert bus.subscriptions == 1

    del view
    gc.collect()
    emit(bus, 1)

    assert bus.subscriptions == 0


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same thread", "another thread"])
def test_a_reader_whose_loop_was_closed_under_it_is_let_go(bus: SystemBus, elsewhere: bool) -> None:
    view = bus.stream()
    loop = asyncio.new_event_loop()
    reading = loop.create_task(anext(view))  # type: ignore[arg-type]
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()

    for n in range(2):
        thread = threading.Thread(target=emit, args=(bus, n))
        thread.run() if not elsewhere else thread.start()
        if elsewhere:
            thread.join(SOON_S)

    assert bus.subscriptions == 0
    reading._log_destroy_pending = False  # type: ignore[attr-defined] # it was abandoned on purpose


@pytest.mark.parametrize("how", [{"limit": 0}, {"on_full": "explode"}])
def test_a_bound_that_is_none_is_refused(bus: SystemBus, how: Any) -> None:
    with pytest.raises(BadInput):
        bus.stream("x", **how)


def test_a_view_may_be_of_one_session_and_filtered(bus: SystemBus) -> None:
    from reenact.events.message import Context

    view = bus.stream("x", session_id="s1", filter=lambda event: event.data["n"] > 1)
    for n in range(4):
        bus.emit(Live("x", {"n": n}, context=Context(session_id="s1")))
        bus.emit(Live("x", {"n": n}, context=Context(session_id="s2")))

    assert read(view) == [2, 3]
