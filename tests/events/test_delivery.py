"""How events arrive: in one order for all, from any thread, each handler on its own, and what a fault costs."""

import asyncio
import gc
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reenact.events import delivery
from reenact.events.bus import SystemBus
from reenact.events.message import Live
from reenact.events.subscription import TASKS_LIMIT
from tests.events.model_bus import LateOnceBus, LazyBus, ModelBus, NaiveBus, StaleBus
from tests.events.words import SOON_S, delta, in_threads, note, stored

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


def test_a_batch_is_heard_in_order_with_nothing_in_between(bus: SystemBus) -> None:
    heard: list[str] = []
    bus.on("a", lambda _: bus.emit(note("nested")))
    bus.on_any(lambda event: heard.append(event.type))

    bus.emit_batch([note("a"), note("b"), note("a")])

    assert heard == ["a", "b", "a", "nested", "nested"]


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
