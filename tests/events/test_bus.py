"""What observers of the bus can rely on: who hears what, in which order, from which thread, and what a fault costs."""

import asyncio
import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact.events import delivery
from reenact.events.bus import SystemBus
from reenact.events.container import ContainerCreated
from reenact.events.errors import BadInput, Closed, NotFound
from reenact.events.message import Asked, Command, Context, Head, Live, Recorded, live
from reenact.events.stream import MessageStart, TextDelta
from reenact.events.subscription import TASKS_LIMIT
from tests.events.model_bus import LateOnceBus, LazyBus, ModelBus, NaiveBus, StaleBus

SOON_S = 10.0  # only a broken build waits that long


def delta(text: str = "", session_id: str | None = None) -> Live:
    return live(TextDelta(text=text), at=0, context=Context(session_id=session_id))


def note(kind: str, n: int = 0) -> Live:
    return Live(kind, {"n": n})


def stored(position: int) -> Recorded:
    event = ContainerCreated(container_id="c", created_at=1)
    return Recorded(position, "container-c", position, 0, 1, event, Head(id="0", at=1, asked="create_container"))


def texts(heard: list[Any]) -> list[str]:
    return [event.data.text for event in heard]


@pytest.fixture
def bus() -> Iterator[SystemBus]:
    bus = SystemBus()
    yield bus
    bus.dispose()


# ---- who hears what -------------------------------------------------------------------------------------------------


def test_a_handler_hears_the_types_it_named_and_no_other(bus: SystemBus) -> None:
    one: list[Any] = []
    two: list[Any] = []
    every: list[Any] = []
    bus.on("a", one.append)
    bus.on(["a", "b"], two.append)
    bus.on_any(every.append)

    for kind in ("a", "b", "c"):
        bus.emit(note(kind))

    assert [event.type for event in one] == ["a"]
    assert [event.type for event in two] == ["a", "b"]
    assert [event.type for event in every] == ["a", "b", "c"]


def test_a_type_may_be_named_by_its_class(bus: SystemBus) -> None:
    heard: list[Any] = []
    bus.on((TextDelta, MessageStart), heard.append)

    bus.emit(delta("x"))

    assert texts(heard) == ["x"]
    assert bus.wants(TextDelta) and bus.wants("message_start") and not bus.wants(ContainerCreated)


def test_a_type_named_twice_is_heard_once(bus: SystemBus) -> None:
    heard: list[Any] = []
    bus.on(["a", "a"], heard.append)

    bus.emit(note("a"))

    assert len(heard) == 1


def test_naming_no_type_is_refused(bus: SystemBus) -> None:
    with pytest.raises(BadInput, match="on_any"):
        bus.on([], print)
    with pytest.raises(BadInput, match="cannot be called"):
        bus.on("a", None)  # type: ignore[arg-type]


def test_higher_priority_hears_first_and_equals_in_the_order_they_came(bus: SystemBus) -> None:
    heard: list[str] = []
    for name, priority in (("a", 0), ("b", 10), ("c", 0), ("d", -5), ("e", 10)):
        bus.on("x", lambda _, name=name: heard.append(name), priority=priority)
    bus.on_any(lambda _: heard.append("any"), priority=5)

    bus.emit(note("x"))

    assert heard == ["b", "e", "any", "a", "c", "d"]


def test_a_filter_lets_through_what_it_likes(bus: SystemBus) -> None:
    heard: list[Any] = []
    bus.on("text_delta", heard.append, filter=lambda event: event.data.text > "a")

    for text in "abc":
        bus.emit(delta(text))

    assert texts(heard) == ["b", "c"]


def test_once_is_once_over_all_its_types_and_waits_for_its_filter(bus: SystemBus) -> None:
    heard: list[Any] = []
    subscription = bus.once(["a", "b"], heard.append, filter=lambda event: event.data["n"] == 1)

    bus.emit_batch([note("a", 0), note("b", 1), note("a", 1), note("b", 1)])

    assert [(event.type, event.data["n"]) for event in heard] == [("b", 1)]
    assert not subscription.live and bus.subscriptions == 0


def test_a_session_is_found_by_key(bus: SystemBus) -> None:
    heard: dict[str, list[Any]] = {f"s{n}": [] for n in range(1000)}
    asked = 0

    def wanted(_: object) -> bool:
        nonlocal asked
        asked += 1
        return True

    for session_id, events in heard.items():
        bus.on("text_delta", events.append, session_id=session_id, filter=wanted)
    every: list[Any] = []
    bus.on("text_delta", every.append, priority=-1)

    bus.emit(delta("x", "s7"))
    bus.emit(delta("y", "elsewhere"))

    assert texts(heard.pop("s7")) == ["x"] and texts(every) == ["x", "y"]
    assert not any(heard.values())
    assert asked == 1, "999 others were not even asked"


def test_a_batch_is_heard_in_order_with_nothing_in_between(bus: SystemBus) -> None:
    heard: list[str] = []
    bus.on("a", lambda _: bus.emit(note("nested")))
    bus.on_any(lambda event: heard.append(event.type))

    bus.emit_batch([note("a"), note("b"), note("a")])

    assert heard == ["a", "b", "a", "nested", "nested"]


def test_a_producer_can_ask_whether_anybody_wants_what_it_would_build(bus: SystemBus) -> None:
    assert not bus.wants("a")
    with bus.on("a", print):
        assert bus.wants("a") and not bus.wants("b")
        with bus.on_any(print):
            assert bus.wants("b")
        with bus.on("b", print, session_id="s1"):
            assert bus.wants("b", "s1") and not bus.wants("b", "s2")
            assert bus.wants("b"), "somebody may: no session was named"
    assert not bus.wants("a")


def test_the_two_views_show_half_each_and_are_the_same_each_time(bus: SystemBus) -> None:
    producer, consumer = bus.as_producer(), bus.as_consumer()
    heard: list[Any] = []

    consumer.on("text_delta", heard.append)
    producer.emit(delta("x"))

    assert texts(heard) == ["x"]
    assert bus.as_producer() is producer and bus.as_consumer() is consumer
    assert [name for name in dir(producer) if name[0] != "_"] == ["emit", "emit_batch", "emit_command"]
    assert [name for name in dir(consumer) if name[0] != "_"] == ["on", "on_any", "on_command", "once", "request"]


# ---- one order, and no call that should not be ----------------------------------------------------------------------
# The laws take any bus, so that the broken ones below can be shown to break them.


def nested_events_come_in_one_order_to_all(bus: Any) -> None:
    first: list[str] = []
    second: list[str] = []

    def answer(event: Live) -> None:
        first.append(event.type)
        if event.type == "question":
            bus.emit(note("answer"))

    how: dict[str, Any] = {"priority": 0, "filter": None, "once": False, "session_id": None}
    bus.on_any(answer, **how)
    bus.on_any(lambda event: second.append(event.type), **how)

    bus.emit(note("question"))

    assert first == second == ["question", "answer"]


def nobody_is_called_after_giving_up(bus: Any) -> None:
    heard: list[str] = []
    how: dict[str, Any] = {"filter": None, "once": False, "session_id": None}
    bus.on(["x"], lambda _: late.unsubscribe(), priority=1, **how)
    late = bus.on(["x"], lambda _: heard.append("late"), priority=0, **how)

    bus.emit(note("x"))

    assert heard == []


def once_is_once_even_when_its_handler_emits_the_like(bus: Any) -> None:
    calls: list[int] = []

    def again(event: Live) -> None:
        calls.append(event.data["n"])
        if len(calls) < 5:
            bus.emit(note("x", event.data["n"] + 1))

    bus.on(["x"], again, once=True, priority=0, filter=None, session_id=None)

    bus.emit(note("x", 0))
    bus.emit(note("x", 100))

    assert calls == [0]


def newcomers_hear_only_what_is_emitted_after_they_came(bus: Any) -> None:
    heard: list[Any] = []
    how: dict[str, Any] = {"filter": None, "session_id": None}

    def invite(_: Live) -> None:
        bus.emit(note("x", 1))  # queued, but emitted before the newcomer is there
        bus.on(["x"], lambda event: heard.append(event.data["n"]), priority=9, once=False, **how)
        bus.emit(note("x", 2))

    bus.on(["x"], invite, priority=0, once=True, **how)
    bus.emit(note("x", 0))

    assert heard == [2]


LAWS = [
    nested_events_come_in_one_order_to_all,
    nobody_is_called_after_giving_up,
    once_is_once_even_when_its_handler_emits_the_like,
    newcomers_hear_only_what_is_emitted_after_they_came,
]


BROKEN = {
    nested_events_come_in_one_order_to_all: NaiveBus,
    nobody_is_called_after_giving_up: StaleBus,
    once_is_once_even_when_its_handler_emits_the_like: LateOnceBus,
    newcomers_hear_only_what_is_emitted_after_they_came: LazyBus,
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("make", [SystemBus, ModelBus])
def test_the_bus_keeps_the_laws_of_order(law: Callable[[Any], None], make: Callable[[], Any]) -> None:
    law(make())


@pytest.mark.parametrize("law", LAWS)
def test_a_bus_that_breaks_a_law_is_found_out(law: Callable[[Any], None]) -> None:
    with pytest.raises(AssertionError):
        law(BROKEN[law]())


def test_giving_up_may_be_done_in_three_ways_and_repeated(bus: SystemBus) -> None:
    heard: list[Any] = []
    by_call, by_name = bus.on("x", heard.append), bus.on_any(heard.append)

    by_call()
    by_call()
    by_name.unsubscribe()
    by_name.unsubscribe()
    with bus.on("x", heard.append) as within:
        assert within.live
    within.unsubscribe()
    bus.emit(note("x"))

    assert heard == [] and bus.subscriptions == 0


@pytest.mark.parametrize("once", [False, True])
def test_a_filter_that_gives_its_subscription_up_is_the_last_to_hear(bus: SystemBus, once: bool) -> None:
    heard: list[Any] = []
    subscription = bus.on("x", heard.append, once=once, filter=lambda _: subscription.unsubscribe() or True)

    bus.emit(note("x"))

    assert heard == []


def test_who_gave_up_leaves_nothing_behind(bus: SystemBus) -> None:
    class Watcher:
        def hear(self, _: object) -> None: ...

    watcher = Watcher()
    gone = weakref.ref(watcher)
    subscriptions = [
        bus.on(["a", "b"], watcher.hear),
        bus.on_any(watcher.hear, filter=lambda _: True),
        bus.on("a", watcher.hear, session_id="s"),
        bus.once("a", watcher.hear),
        bus.on_position(watcher.hear),
    ]
    bus.emit(note("b"))

    for subscription in subscriptions:
        subscription.unsubscribe()
    del watcher, subscription

    tables = bus._subscriptions
    assert (tables.common.any, tables.common.by_kind, tables.sessions, tables.watchers) == ({}, {}, {}, ())
    assert not any(tables.common.routes.values())
    gc.collect()
    assert gone() is None, "not even a subscription that somebody keeps holds its handler"


def test_types_without_end_do_not_fill_the_memory(bus: SystemBus) -> None:
    bus.on("x", print)
    for n in range(10_000):
        bus.emit(note(f"type_{n}"))

    assert len(bus._subscriptions.common.routes) <= 4097


def test_handlers_that_answer_each_other_for_ever_are_stopped(bus: SystemBus) -> None:
    reports: list[Any] = []
    ping = bus.on("ping", lambda _: bus.emit(note("pong")))
    bus.on("pong", lambda _: bus.emit(note("ping")))
    bus.on("subscriber_failed", reports.append)

    bus.emit(note("ping"))  # would never return

    assert len(reports) == 1 and "circles" in reports[0].data.error
    bus.emit(note("other"))
    assert ping.live


def test_a_long_chain_of_answers_is_no_circle(bus: SystemBus) -> None:
    heard: list[int] = []

    def count_down(event: Live) -> None:
        heard.append(event.data["n"])
        if event.data["n"]:
            bus.emit(note("x", event.data["n"] - 1))

    bus.on("x", count_down)
    bus.emit(note("x", 900))

    assert heard == list(range(900, -1, -1))


def test_a_burst_reaches_fifty_subscribers_without_loss(bus: SystemBus) -> None:
    heard: list[list[str]] = [[] for _ in range(50)]
    for mine in heard:
        bus.on("text_delta", lambda event, mine=mine: mine.append(event.data.text))

    for n in range(1000):
        bus.emit(delta(str(n)))

    assert heard == [[str(n) for n in range(1000)]] * 50


# ---- faults ---------------------------------------------------------------------------------------------------------


def test_a_raising_handler_costs_nobody_else_anything(bus: SystemBus, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Any] = []
    reports: list[Any] = []

    def broken(_: object) -> None:
        raise ValueError("no more paper")

    subscription = bus.on("container_created", broken, priority=1)
    bus.on("container_created", heard.append)
    bus.on("subscriber_failed", reports.append)

    bus.emit(stored(7))

    assert len(heard) == 1 and subscription.failures == 1 and subscription.live
    (report,) = reports
    assert report.category == "error"
    assert report.data.handler.endswith("broken")
    assert report.data == {
        "handler": report.data.handler,
        "type": "container_created",
        "error": "ValueError: no more paper",
        "position": 7,
        "failures": 1,
        "muted": False,
    }
    assert "no more paper" in caplog.text, "who listens to no report still reads it in the log"


def test_a_raising_filter_is_its_subscribers_failure(bus: SystemBus) -> None:
    heard: list[Any] = []
    subscription = bus.on("x", heard.append, filter=lambda event: event.data["missing"])

    bus.emit(note("x"))

    assert heard == [] and subscription.failures == 1


def test_a_handler_that_always_fails_is_muted_but_still_called_and_counted(bus: SystemBus) -> None:
    reports: list[Any] = []
    subscription = bus.on("x", lambda _: 1 / 0)
    bus.on("subscriber_failed", reports.append)

    for _ in range(25):
        bus.emit(note("x"))

    assert subscription.failures == 25
    assert [report.data.muted for report in reports] == [False] * 9 + [True]


def test_failing_at_the_report_of_a_failure_is_only_counted(bus: SystemBus) -> None:
    told = 0

    def broken(event: Live) -> None:
        nonlocal told
        told += 1
        raise ValueError

    subscriptions = [bus.on_any(broken), bus.on("subscriber_failed", broken)]

    bus.emit(note("x"))

    assert told == 3 and [one.failures for one in subscriptions] == [2, 1]


def test_an_error_that_cannot_even_be_printed_is_isolated(bus: SystemBus) -> None:
    class Nasty(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def broken(_: object) -> None:
        raise Nasty

    reports: list[Any] = []
    bus.on("x", broken)
    bus.on("subscriber_failed", reports.append)

    bus.emit(note("x"))

    assert "Nasty" in reports[0].data.error


def test_a_cancelled_error_out_of_a_plain_handler_does_not_cancel_the_producer(bus: SystemBus) -> None:
    def broken(_: object) -> None:
        raise asyncio.CancelledError

    subscription = bus.on("x", broken)

    bus.emit(note("x"))

    assert subscription.failures == 1


def test_an_interrupt_reaches_the_producer_and_loses_nothing(bus: SystemBus) -> None:
    heard: list[str] = []

    def interrupt(_: object) -> None:
        bus.emit(note("nested"))
        raise KeyboardInterrupt

    bus.once("x", interrupt)
    bus.on_any(lambda event: heard.append(event.type))

    with pytest.raises(KeyboardInterrupt):
        bus.emit_batch([note("x"), note("y")])
    assert heard == []

    bus.emit(note("z"))
    assert heard == ["x", "y", "nested", "z"]


@given(st.lists(st.booleans(), min_size=1, max_size=20), st.integers(1, 15))
def test_whoever_raises_all_others_hear_everything(raises: list[bool], events: int) -> None:
    logging.getLogger("reenact.bus").setLevel("CRITICAL")
    bus = SystemBus()
    heard: list[list[int]] = [[] for _ in raises]

    def handler(mine: list[int], broken: bool) -> Callable[[Any], None]:
        def hear(event: Live) -> None:
            mine.append(event.data["n"])
            if broken:
                raise ValueError

        return hear

    subscriptions = [bus.on("x", handler(mine, broken)) for mine, broken in zip(heard, raises, strict=True)]
    for n in range(events):
        bus.emit(note("x", n))

    assert heard == [list(range(events))] * len(raises)
    assert [one.failures for one in subscriptions] == [events if broken else 0 for broken in raises]
    logging.getLogger("reenact.bus").setLevel("NOTSET")


# ---- threads --------------------------------------------------------------------------------------------------------


def in_threads(*works: Callable[[], object]) -> None:
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON_S)
    assert not any(thread.is_alive() for thread in threads)


def no_two_handlers_run_at_the_same_time(bus: Any) -> None:
    """The handler waits until the other thread's emit has returned: were it delivered there, they would overlap."""
    inside: list[str] = []
    overlaps: list[str] = []
    heard: list[str] = []
    returned, entered = threading.Event(), threading.Event()

    def hear(event: Live) -> None:
        overlaps.extend(inside)
        inside.append(event.type)
        entered.set()
        if event.type == "first":
            assert returned.wait(SOON_S)
        heard.append(event.type)
        inside.remove(event.type)

    def second() -> None:
        entered.wait(SOON_S)
        bus.emit(note("second"))
        returned.set()

    bus.on_any(hear, priority=0, filter=None, once=False, session_id=None)
    in_threads(lambda: bus.emit(note("first")), second)

    assert overlaps == [] and heard == ["first", "second"]


def test_no_two_handlers_run_at_the_same_time() -> None:
    no_two_handlers_run_at_the_same_time(SystemBus())


def test_a_bus_that_lets_handlers_overlap_is_found_out() -> None:
    with pytest.raises(AssertionError):
        no_two_handlers_run_at_the_same_time(NaiveBus())


def test_four_producers_give_every_subscriber_the_same_order(bus: SystemBus) -> None:
    first: list[tuple[int, int]] = []
    second: list[tuple[int, int]] = []
    busy = 0
    overlaps = 0

    def hear(event: Live) -> None:
        nonlocal busy, overlaps
        overlaps += busy
        busy += 1
        first.append((event.data["who"], event.data["n"]))
        busy -= 1

    bus.on("x", hear)
    bus.on_any(lambda event: second.append((event.data["who"], event.data["n"])))

    def produce(who: int) -> None:
        for n in range(0, 3000, 3):
            bus.emit(Live("x", {"who": who, "n": n}))
            bus.emit_batch([Live("x", {"who": who, "n": n + 1}), Live("x", {"who": who, "n": n + 2})])

    in_threads(*(lambda who=who: produce(who) for who in range(4)))

    assert overlaps == 0 and first == second and len(first) == 12_000
    for who in range(4):
        assert [n for one, n in first if one == who] == list(range(3000)), "each producer's own order is kept"
    for at, (who, n) in enumerate(first):
        if n % 3 == 1:
            assert first[at + 1] == (who, n + 1), "a batch is whole"


def test_subscribing_and_giving_up_while_others_emit_is_safe(bus: SystemBus) -> None:
    steady: list[int] = []
    bus.on("x", lambda event: steady.append(event.data["n"]))
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            with bus.on("x", lambda _: None), bus.on_any(lambda _: None), bus.on("x", lambda _: None, session_id="s"):
                pass

    def produce() -> None:
        for n in range(5000):
            bus.emit(note("x", n))
        stop.set()

    in_threads(produce, come_and_go, come_and_go)

    assert steady == list(range(5000)) and bus.subscriptions == 1


def test_producers_wait_while_a_handler_is_far_behind(bus: SystemBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "BACKLOG_LIMIT", 10)
    most = 0
    heard: list[int] = []
    full = threading.Event()

    def slow(event: Live) -> None:
        nonlocal most
        if not heard:
            assert full.wait(SOON_S)
        most = max(most, len(bus._delivery._backlog))
        heard.append(event.data["n"])

    def produce(start: int) -> None:
        for n in range(start, start + 200):
            if len(bus._delivery._backlog) >= 10:
                full.set()
            bus.emit(note("x", n))

    bus.on("x", slow)
    in_threads(*(lambda start=start: produce(start) for start in (0, 1000, 2000)))

    assert sorted(heard) == [start + n for start in (0, 1000, 2000) for n in range(200)]
    assert most <= 10 + 3, "one more for each producer that looked just before it was full"


# ---- coroutine handlers ---------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_coroutine_handlers_start_in_bus_order_and_overlap(bus: SystemBus) -> None:
    started: list[str] = []
    ended: list[str] = []
    go = asyncio.Event()
    done = asyncio.Event()

    async def handle(event: Live) -> None:
        started.append(event.data.text)
        await go.wait()
        ended.append(event.data.text)
        if len(ended) == 3:
            done.set()

    bus.on("text_delta", handle)
    for text in "abc":
        bus.emit(delta(text))
    gc.collect()  # the bus holds what it started
    go.set()
    await asyncio.wait_for(done.wait(), SOON_S)

    assert started == ended == ["a", "b", "c"]


@pytest.mark.anyio
async def test_the_exception_of_a_coroutine_handler_is_told_like_any_other(bus: SystemBus) -> None:
    report: asyncio.Future[Live] = asyncio.get_running_loop().create_future()

    async def broken(_: object) -> None:
        await asyncio.sleep(0)
        raise ValueError("late")

    subscription = bus.on("x", broken)
    bus.once("subscriber_failed", report.set_result)

    bus.emit(note("x"))

    assert (await asyncio.wait_for(report, SOON_S)).data.error == "ValueError: late"
    assert subscription.failures == 1


@pytest.mark.anyio
async def test_a_coroutine_handler_runs_in_the_loop_it_was_subscribed_in(bus: SystemBus) -> None:
    heard: list[tuple[str, int]] = []
    done = asyncio.Event()

    async def handle(event: Live) -> None:
        heard.append((event.data.text, threading.get_ident()))
        if len(heard) == 2:
            done.set()

    bus.on("text_delta", handle)
    await asyncio.to_thread(bus.emit, delta("there"))
    bus.emit(delta("here"))
    await asyncio.wait_for(done.wait(), SOON_S)

    assert heard == [("there", threading.get_ident()), ("here", threading.get_ident())]


def test_a_coroutine_handler_without_any_loop_is_a_failure_not_silence(bus: SystemBus) -> None:
    async def handle(_: object) -> None: ...

    subscription = bus.on("x", handle)

    bus.emit(note("x"))

    assert subscription.failures == 1


@pytest.mark.anyio
async def test_a_coroutine_handler_that_falls_behind_is_bounded(bus: SystemBus) -> None:
    go = asyncio.Event()

    async def handle(_: object) -> None:
        await go.wait()

    subscription = bus.on("x", handle)
    for _ in range(TASKS_LIMIT + 5):
        bus.emit(note("x"))

    assert subscription.failures == 5
    go.set()


@pytest.mark.anyio
async def test_once_with_a_coroutine_handler_is_once(bus: SystemBus) -> None:
    calls: list[object] = []
    done = asyncio.Event()

    async def handle(event: object) -> None:
        calls.append(event)
        done.set()

    bus.once("x", handle)
    bus.emit_batch([note("x"), note("x")])
    await asyncio.wait_for(done.wait(), SOON_S)
    await asyncio.sleep(0)

    assert len(calls) == 1


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
