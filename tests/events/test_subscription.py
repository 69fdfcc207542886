"""Who hears what: by type, session, filter and priority, once or until it is given up."""

import gc
import weakref
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from reenact.events.bus import SystemBus
from reenact.events.container import ContainerCreated
from reenact.events.errors import BadInput
from reenact.events.stream import MessageStart, TextDelta
from tests.events.words import delta, note, texts

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


@pytest.mark.parametrize("kinds", [5, None, [5], ["a", None], object])
def test_what_names_no_type_is_refused(bus: SystemBus, kinds: Any) -> None:
    for subscribe in (lambda: bus.on(kinds, print), lambda: bus.once(kinds, print), lambda: bus.stream(kinds)):
        with pytest.raises(BadInput, match="named by its name or its class"):
            subscribe()
    assert bus.subscriptions == 0


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


# ---- giving up ------------------------------------------------------------------------------------------------------


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


def test_a_handler_and_its_filter_are_called_in_the_context_they_were_subscribed_in(bus: SystemBus) -> None:
    whose: ContextVar[str] = ContextVar("whose", default="nobody")
    heard: list[tuple[str, str]] = []

    def subscribed() -> None:
        whose.set("subscriber")
        bus.on(
            "text_delta",
            lambda event: heard.append(("handler", whose.get())),
            filter=lambda event: not heard.append(("filter", whose.get())),
        )

    def told() -> None:
        whose.set("teller")
        bus.emit(delta("x"))

    copy_context().run(subscribed)
    copy_context().run(told)

    assert heard == [("filter", "subscriber"), ("handler", "subscriber")]
