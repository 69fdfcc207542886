"""A handler on a thread of its own: it may take its time, and nobody who emits waits for it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

from reenact.events import aside
from reenact.events.bus import SystemBus
from reenact.events.errors import BadInput
from tests.events.words import SOON_S, note

HERE = ContextVar("HERE", default="nowhere")


class Slow:
    """A handler that goes on when it is let, and whatever it heard."""

    def __init__(self) -> None:
        self.entered, self.gate = threading.Event(), threading.Event()
        self.heard: list[Any] = []
        self.threads: set[int] = set()

    def __call__(self, event: Any) -> None:
        self.threads.add(threading.get_ident())
        self.entered.set()
        assert self.gate.wait(SOON_S)
        self.heard.append((event.type, event.data.count if event.type == "events_dropped" else event.data["n"]))


def until(reached: Callable[[], object]) -> None:
    ends = time.monotonic() + SOON_S
    while not reached():
        assert time.monotonic() < ends, "it did not come to that"
        time.sleep(0.001)


def asides() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("reenact-on ")]


@pytest.fixture(autouse=True)
def all_threads_end() -> Any:
    yield
    until(lambda: not asides())


def test_nobody_who_emits_waits_for_it_and_it_hears_all_in_order(bus: SystemBus) -> None:
    slow, quick = Slow(), list[Any]()
    bus.on("x", slow, priority=1, thread=True)
    bus.on("x", quick.append)

    for n in range(100):
        bus.emit(note("x", n=n))

    assert len(quick) == 100, "while the slow one is at its first"
    slow.gate.set()
    until(lambda: len(slow.heard) == 100)
    assert slow.heard == [("x", n) for n in range(100)]
    assert len(slow.threads) == 1 and threading.get_ident() not in slow.threads


def test_a_handler_on_the_writers_own_thread_would_be_waited_for(bus: SystemBus) -> None:
    """The control: without a thread of its own the same handler keeps whoever emits."""
    slow = Slow()
    bus.on("x", slow)
    emits = threading.Thread(target=lambda: bus.emit(note("x", n=0)))
    emits.start()
    assert slow.entered.wait(SOON_S) and emits.is_alive()
    slow.gate.set()
    emits.join(SOON_S)
    assert not emits.is_alive() and slow.threads == {emits.ident}


def test_what_it_is_too_far_behind_for_is_let_go_and_it_is_told_how_many(
    bus: SystemBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aside, "UNHEARD_MAX", 10)
    slow = Slow()
    bus.on_any(slow, thread=True)
    bus.emit(note("x", n=0))
    assert slow.entered.wait(SOON_S)

    for n in range(1, 101):
        bus.emit(note("x", n=n))
    slow.gate.set()

    until(lambda: slow.heard and slow.heard[-1] == ("x", 100))
    assert slow.heard == [("x", 0), ("events_dropped", 90), *(("x", n) for n in range(91, 101))]


def test_it_goes_to_sleep_and_wakes_again(bus: SystemBus) -> None:
    slow = Slow()
    slow.gate.set()
    bus.on("x", slow, thread=True)
    for n in range(200):
        bus.emit(note("x", n=n))
        if n % 3 == 0:
            until(lambda n=n: len(slow.heard) == n + 1)
    until(lambda: len(slow.heard) == 200)
    assert slow.heard == [("x", n) for n in range(200)] and len(slow.threads) == 1


@pytest.mark.parametrize("end", ["unsubscribe", "dispose"])
def test_its_end_begins_no_further_call_and_ends_the_thread(bus: SystemBus, end: str) -> None:
    slow = Slow()
    subscription = bus.on("x", slow, thread=True)
    for n in range(5):
        bus.emit(note("x", n=n))
    assert slow.entered.wait(SOON_S)

    subscription.unsubscribe() if end == "unsubscribe" else bus.dispose()
    bus.emit(note("x", n=5))
    slow.gate.set()

    until(lambda: not asides())
    assert slow.heard == [("x", 0)] and not subscription.live


def test_one_that_hears_nothing_has_no_thread(bus: SystemBus) -> None:
    bus.on("x", print, thread=True)
    bus.emit(note("y", n=0))
    assert not asides()


def test_once_is_once(bus: SystemBus) -> None:
    slow = Slow()
    slow.gate.set()
    subscription = bus.once("x", slow, thread=True, filter=lambda event: event.data["n"] > 1)
    for n in range(6):
        bus.emit(note("x", n=n))
    until(lambda: not asides())
    assert slow.heard == [("x", 2)] and not subscription.live and bus.subscriptions == 0


def test_one_that_raises_is_told_of_in_the_loop_it_was_subscribed_in_and_goes_on() -> None:
    async def main() -> None:
        bus = SystemBus()
        reports: list[Any] = []
        threads: set[int] = set()
        ended = asyncio.Event()

        def told(event: Any) -> None:
            threads.add(threading.get_ident())
            reports.append(event.data)
            if len(reports) == 3:
                ended.set()

        def broken(event: Any) -> None:
            raise SystemExit("not even this ends it")

        bus.on("subscriber_failed", told)
        subscription = bus.on("x", broken, thread=True)
        for n in range(3):
            bus.emit(note("x", n=n))
        await asyncio.wait_for(ended.wait(), SOON_S)
        assert [report.failures for report in reports] == [1, 2, 3] and subscription.failures == 3
        assert "broken" in reports[0].handler and threads == {threading.get_ident()}
        bus.dispose()

    asyncio.run(main())


def test_without_a_loop_a_failure_is_counted_too(bus: SystemBus) -> None:
    subscription = bus.on("x", lambda event: 1 / 0, thread=True)
    bus.emit(note("x", n=0))
    until(lambda: subscription.failures == 1)


def test_it_is_in_the_context_it_was_subscribed_in(bus: SystemBus) -> None:
    """What is done there is done by whoever subscribed: a tool stays a tool."""
    seen: list[str] = []
    token = HERE.set("a tool")
    bus.on("x", lambda event: seen.append(HERE.get()), thread=True)
    HERE.reset(token)
    bus.emit(note("x", n=0))
    until(lambda: seen)
    assert seen == ["a tool"]


def test_a_coroutine_function_is_refused_and_one_that_makes_a_coroutine_fails(bus: SystemBus) -> None:
    async def later(event: Any) -> None: ...

    class Later:
        async def __call__(self, event: Any) -> None: ...

    for handler in (later, Later()):
        with pytest.raises(BadInput, match="coroutine function"):
            bus.on("x", handler, thread=True)
    with pytest.raises(BadInput, match="cannot be called"):
        bus.on("x", None, thread=True)  # type: ignore[arg-type]
    subscription = bus.on("x", lambda event: later(event), thread=True)
    bus.emit(note("x", n=0))
    until(lambda: subscription.failures == 1)


# -- who holds the event loop is named --


def holds(event: Any) -> None:
    time.sleep(0.11)


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if "held the event loop" in each.getMessage()]


def emitted(bus: SystemBus, *kinds: str) -> None:
    async def main() -> None:
        for kind in kinds:
            bus.emit(note(kind, n=0))

    asyncio.run(main())


def test_a_function_that_holds_the_loop_is_named_once_with_what_to_do(
    bus: SystemBus, caplog: pytest.LogCaptureFixture
) -> None:
    bus.on("x", holds)
    emitted(bus, "x", "x")
    [said] = warned(caplog)
    assert "test_aside.holds held the event loop for 0." in said and "thread=True" in said and "coroutine" in said


def test_among_several_it_is_named_when_it_does_so_again(bus: SystemBus, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Any] = []
    bus.on_any(heard.append)
    bus.on("x", holds)
    bus.on_any(heard.append)
    emitted(bus, "x", "y", "y", "x", "x")
    [said] = warned(caplog)
    assert "test_aside.holds held" in said and len(heard) == 10


def test_nobody_is_named_who_is_quick_or_holds_no_loop(bus: SystemBus, caplog: pytest.LogCaptureFixture) -> None:
    bus.on("x", print)
    bus.on("y", holds, thread=True)
    emitted(bus, *["x"] * 50, "y")
    bus.on("z", holds)
    bus.emit(note("z", n=0))  # there is no loop in this thread
    assert warned(caplog) == []


def test_nobody_is_named_for_another_and_the_runtimes_own_never(
    bus: SystemBus, caplog: pytest.LogCaptureFixture
) -> None:
    bus.on("x", holds).named = True
    bus.on_any(print)
    emitted(bus, "x", "x", "x")
    assert warned(caplog) == []
    bus.on("x", holds)
    emitted(bus, "x")
    assert len(warned(caplog)) == 1


def test_while_calls_are_timed_nothing_else_changes(bus: SystemBus) -> None:
    """Order, failures and what no handler may swallow are as ever."""
    heard: list[str] = []

    def interrupted(event: Any) -> None:
        if event.type == "stop":
            raise KeyboardInterrupt

    bus.on("slow", holds)
    bus.on_any(lambda event: heard.append(f"1 {event.type}"))
    failing = bus.on("fails", lambda event: 1 / 0)
    bus.on_any(interrupted)
    bus.on_any(lambda event: heard.append(f"2 {event.type}"))

    async def main() -> None:
        bus.emit(note("slow", n=0))
        heard.clear()
        with pytest.raises(KeyboardInterrupt):
            bus.emit_batch([note("fails", n=0), note("stop", n=0), note("last", n=0)])
        assert heard == ["1 fails", "2 fails", "1 stop"]
        bus.emit(note("next", n=0))

    asyncio.run(main())
    assert failing.failures == 1
    kinds = [each for each in heard if "subscriber_failed" not in each]
    assert kinds == ["1 fails", "2 fails", "1 stop", "2 stop", "1 last", "2 last", "1 next", "2 next"]
