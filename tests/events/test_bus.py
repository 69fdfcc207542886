"""The bus as a whole: how far it has told, commands by key, the reactivex face, and its end."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from reenact.events.bus import SystemBus
from reenact.events.errors import Closed, NotFound
from reenact.events.message import Asked, Command
from tests.events.words import SOON_S, delta, in_threads, note, stored, texts


def test_the_two_views_show_half_each_and_are_the_same_each_time(bus: SystemBus) -> None:
    producer, consumer = bus.as_producer(), bus.as_consumer()
    heard: list[Any] = []

    consumer.on("text_delta", heard.append)
    producer.emit(delta("x"))

    assert texts(heard) == ["x"]
    assert bus.as_producer() is producer and bus.as_consumer() is consumer
    assert [name for name in dir(producer) if name[0] != "_"] == ["emit", "emit_batch", "emit_command"]
    assert [name for name in dir(consumer) if name[0] != "_"] == ["on", "on_any", "on_command", "once", "request"]


# ---- positions ------------------------------------------------------------------------------------------------------


def test_the_bus_knows_how_far_it_has_told_even_when_nobody_listens(bus: SystemBus) -> None:
    bus.emit(stored(3))
    bus.emit_batch([stored(4), stored(5)])
    bus.emit(delta("x"))

    assert bus.position == 5


def test_a_reader_of_the_log_is_woken_once_a_batch_after_its_subscribers(bus: SystemBus) -> None:
    heard: list[object] = []
    subscription = bus.on_position(heard.append)
    bus.on("container_created", lambda event: heard.append(f"event {event.position}"))

    bus.emit_batch([stored(1), stored(2), delta("x")])
    bus.emit(stored(3))
    bus.emit(delta("y"))
    bus.emit(stored(3))

    assert heard == ["event 1", "event 2", 2, "event 3", 3, "event 3"]
    subscription.unsubscribe()
    assert not bus.wants("text_delta") and bus.subscriptions == 1


@pytest.mark.anyio
async def test_waiting_for_a_position_sleeps_until_it_is_past(bus: SystemBus) -> None:
    waiting = asyncio.create_task(bus.past(5))
    await asyncio.sleep(0)
    bus.emit(stored(5))
    await asyncio.sleep(0)
    assert not waiting.done()

    await asyncio.to_thread(bus.emit, stored(9))

    assert await asyncio.wait_for(waiting, SOON_S) == 9
    assert await bus.past(8) == 9
    assert bus.subscriptions == 0


@pytest.mark.anyio
async def test_waiting_for_a_position_ends_with_the_bus(bus: SystemBus) -> None:
    waiting = asyncio.create_task(bus.past(0))
    await asyncio.sleep(0)
    bus.dispose()

    with pytest.raises(Closed):
        await asyncio.wait_for(waiting, SOON_S)
    with pytest.raises(Closed):
        await bus.past(0)


# ---- commands by key ------------------------------------------------------------------------------------------------


class Poke(Command, frozen=True, kw_only=True):
    type = "poke"


POKE = Asked(id="1", at=0, command=Poke())


def test_a_command_goes_to_the_one_target_of_its_key(bus: SystemBus) -> None:
    one: list[Asked] = []
    bus.register("session-1", one.append)
    bus.register("session-2", lambda asked: f"receipt {asked.id}")

    bus.tell("session-1", POKE)

    assert one == [POKE]
    assert bus.tell("session-2", POKE) == "receipt 1"


def test_a_command_for_nobody_is_refused_by_name(bus: SystemBus) -> None:
    with pytest.raises(NotFound, match="session-9"):
        bus.tell("session-9", POKE)
    bus.resolver = lambda key: None
    with pytest.raises(NotFound, match="session-9"):
        bus.tell("session-9", POKE)


def test_a_forgotten_target_hears_nothing_more_and_a_newer_one_is_not_forgotten_for_it(bus: SystemBus) -> None:
    old: list[Asked] = []
    new: list[Asked] = []
    old_target, new_target = old.append, new.append
    bus.register("k", old_target)
    bus.register("k", new_target)

    bus.unregister("k", old_target)
    bus.tell("k", POKE)
    bus.unregister("k")
    bus.unregister("k")

    assert old == [] and new == [POKE]
    with pytest.raises(NotFound):
        bus.tell("k", POKE)


def test_two_commands_for_a_sleeping_actor_wake_one(bus: SystemBus) -> None:
    made: list[list[Asked]] = []
    looked = threading.Semaphore(0)

    class Targets(dict[str, Any]):
        def get(self, *args: Any) -> Any:
            found = super().get(*args)
            looked.release()
            return found

    def wake(key: str) -> Callable[[Asked], None]:
        for _ in range(4 + 1):  # all four have found nobody, and the one that is here has looked again
            assert looked.acquire(timeout=SOON_S)
        box: list[Asked] = []
        made.append(box)
        return box.append

    bus._targets = Targets()
    bus.resolver = wake
    in_threads(*[lambda: bus.tell("image-1", POKE)] * 4)

    assert [len(box) for box in made] == [4]


# ---- the reactivex face ---------------------------------------------------------------------------------------------


def test_the_observable_is_one_and_shows_every_event(bus: SystemBus) -> None:
    from reactivex import operators as ops

    heard: list[Any] = []
    bus.observable.pipe(ops.filter(lambda e: e.type == "text_delta"), ops.map(lambda e: e.data.text)).subscribe(
        heard.append
    )

    bus.emit_batch([delta("a"), note("x"), delta("b")])

    assert heard == ["a", "b"] and bus.observable is bus.observable


def test_an_observer_that_raises_harms_neither_others_nor_the_producer_and_goes_on(bus: SystemBus) -> None:
    heard: list[Any] = []
    calls: list[Any] = []

    def broken(event: Any) -> None:
        calls.append(event)
        raise ValueError

    bus.observable.subscribe(broken)
    bus.observable.subscribe(heard.append)
    reports: list[Any] = []
    bus.on("subscriber_failed", reports.append)

    bus.emit(note("x"))
    bus.emit(note("y"))

    assert [event.type for event in heard if event.type != "subscriber_failed"] == ["x", "y"]
    assert [event.type for event in calls if event.type != "subscriber_failed"] == ["x", "y"]
    assert len(reports) == 2 and "broken" in reports[0].data.handler


def test_an_operator_that_raises_ends_its_own_pipeline_only(bus: SystemBus) -> None:
    from reactivex import operators as ops

    errors: list[Exception] = []
    heard: list[Any] = []
    bus.observable.pipe(ops.map(lambda event: 1 / 0)).subscribe(on_error=errors.append)
    bus.observable.subscribe(heard.append)

    bus.emit(note("x"))
    bus.emit(note("y"))

    assert len(errors) == 1 and isinstance(errors[0], ZeroDivisionError)
    assert [event.type for event in heard] == ["x", "y"]
    assert bus.subscriptions == 1, "the pipeline that ended has let go of the bus"


def test_an_observer_that_lets_go_hears_no_more_and_is_not_completed(bus: SystemBus) -> None:
    heard: list[Any] = []
    ends: list[str] = []
    handle = bus.observable.subscribe(heard.append, on_completed=lambda: ends.append("end"))
    handle.dispose()
    bus.emit(note("x"))
    bus.dispose()

    assert heard == [] and ends == []


def test_taking_two_takes_two(bus: SystemBus) -> None:
    from reactivex import operators as ops

    heard: list[Any] = []
    bus.observable.pipe(ops.take(2)).subscribe(heard.append, on_completed=lambda: heard.append("end"))
    for kind in "abc":
        bus.emit(note(kind))

    assert [getattr(one, "type", one) for one in heard] == ["a", "b", "end"]
    assert bus.subscriptions == 0


def test_observables_complete_with_the_bus(bus: SystemBus) -> None:
    ends: list[str] = []
    bus.observable.subscribe(on_completed=lambda: ends.append("early"))

    bus.dispose()
    bus.observable.subscribe(on_completed=lambda: ends.append("late"))

    assert ends == ["early", "late"]


# ---- the end --------------------------------------------------------------------------------------------------------


def test_after_dispose_nothing_is_heard_and_subscribing_is_harmless(bus: SystemBus) -> None:
    heard: list[Any] = []
    before = bus.on_any(heard.append)

    bus.dispose()
    bus.emit(note("x"))
    bus.emit_batch([note("x")])
    after = [bus.on("x", heard.append), bus.on_any(heard.append), bus.once("x", heard.append), bus.on_position(print)]
    after.append(bus.on_command("x_request", lambda data, request: None))
    bus.emit(note("x"))

    assert heard == [] and bus.disposed
    assert not before.live and not any(one.live for one in after)
    for one in (before, *after):
        one.unsubscribe()
    assert bus.subscriptions == 0
    with pytest.raises(Closed):
        bus.tell("k", POKE)
    with pytest.raises(Closed):
        bus.register("k", print)
    with pytest.raises(Closed):
        bus.emit_command("x_request")


def test_dispose_is_quick_and_quicker_the_second_time(bus: SystemBus) -> None:
    for n in range(1000):
        bus.on(f"type_{n % 50}", print)
        bus.on("x", print, session_id=f"s{n}")

    began = time.monotonic()
    bus.dispose()
    once = time.monotonic()
    bus.dispose()
    twice = time.monotonic()

    assert once - began < 2.0 and twice - once < 0.1
    assert bus._subscriptions.sessions == {} and bus.subscriptions == 0


def test_a_handler_may_dispose_of_the_bus(bus: SystemBus) -> None:
    heard: list[str] = []
    bus.on("x", lambda _: (bus.emit(note("nested")), bus.dispose()))
    bus.on_any(lambda event: heard.append(event.type), priority=-1)

    bus.emit_batch([note("x"), note("y")])

    assert heard == []


@pytest.mark.anyio
async def test_coroutine_handlers_that_run_are_cancelled_at_the_end(bus: SystemBus) -> None:
    cancelled = asyncio.Event()
    running = asyncio.Event()

    async def handle(_: object) -> None:
        running.set()
        try:
            await asyncio.sleep(SOON_S * 10)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    bus.on("x", handle)
    bus.emit(note("x"))
    await running.wait()
    bus.dispose()

    await asyncio.wait_for(cancelled.wait(), SOON_S)


@pytest.mark.anyio
async def test_a_coroutine_handler_that_disposes_of_the_bus_is_not_cancelled_by_it(bus: SystemBus) -> None:
    ended = asyncio.Event()

    async def handle(_: object) -> None:
        bus.dispose()
        await asyncio.sleep(0)
        ended.set()

    bus.on("x", handle)
    bus.emit(note("x"))

    await asyncio.wait_for(ended.wait(), SOON_S)


def test_an_end_that_raises_does_not_keep_others_from_ending(bus: SystemBus) -> None:
    def broken() -> None:
        raise ValueError

    ends: list[str] = []
    bus.observable.subscribe(on_completed=broken)
    bus.observable.subscribe(on_completed=lambda: ends.append("end"))

    bus.dispose()

    assert ends == ["end"]
