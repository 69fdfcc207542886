"""The bus against a model of thirty lines, under anything handlers may do: subscribe, give up, emit, raise, dispose.

The same machine is run on a bus with the usual mistakes, and must find them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from reenact.events.bus import SystemBus
from reenact.events.message import Context, Live
from tests.events.model_bus import LateOnceBus, LazyBus, ModelBus, NaiveBus, StaleBus

KINDS = ("text_delta", "message_start", "message_stop")
SESSIONS = ("s1", "s2")


class World:
    """A bus, its subscriptions in the order they were made, and what each of them heard."""

    def __init__(self, bus: Any) -> None:
        self.bus = bus
        self.subscriptions: list[Any] = []
        self.heard: list[tuple[int, object]] = []
        self.emitted = 0

    def subscribe(self, spec: dict[str, Any]) -> None:
        number = len(self.subscriptions)

        def handle(event: Live) -> None:
            said = event.data["failures"] if event.type == "subscriber_failed" else event.data["number"]
            self.heard.append((number, (event.type, said)))
            self.react(spec["reaction"], event)

        def wanted(event: Live) -> bool:
            return bool(event.data.get("number", 0) % 2 == spec["parity"])

        how = {name: spec[name] for name in ("priority", "once", "session_id")}
        how["filter"] = None if spec["parity"] is None else wanted
        if spec["kinds"] is None:
            self.subscriptions.append(self.bus.on_any(handle, **how))
        else:
            self.subscriptions.append(self.bus.on(spec["kinds"], handle, **how))

    def react(self, reaction: tuple[Any, ...], event: Live) -> None:
        match reaction:
            case ("raise",):
                raise ValueError("no")
            case ("emit", kinds) if event.data.get("nested", 0) > 0:
                self.emit(kinds, event.data["nested"] - 1, event.session_id)
            case ("unsubscribe", number):
                self.unsubscribe(number)
            case ("subscribe", spec) if len(self.subscriptions) < 12:
                self.subscribe(spec)

    def emit(self, kinds: Sequence[str], nested: int, session_id: str | None) -> None:
        events = []
        for kind in kinds:
            self.emitted += 1
            data = {"number": self.emitted, "nested": nested}
            events.append(Live(kind, data, context=Context(session_id=session_id)))
        if len(events) == 1:
            self.bus.emit(events[0])
        else:
            self.bus.emit_batch(events)

    def unsubscribe(self, number: int) -> None:
        if self.subscriptions:
            self.subscriptions[number % len(self.subscriptions)].unsubscribe()


kinds = st.lists(st.sampled_from(KINDS), min_size=1, max_size=2)
quiet = st.one_of(
    st.just(("nothing",)),
    st.just(("raise",)),
    st.tuples(st.just("emit"), kinds),
    st.tuples(st.just("unsubscribe"), st.integers(0, 11)),
)


def specs(reactions: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "kinds": st.none() | kinds,
            "priority": st.integers(-1, 1),
            "once": st.booleans(),
            "parity": st.none() | st.integers(0, 1),
            "session_id": st.none() | st.sampled_from(SESSIONS),
            "reaction": reactions,
        }
    )


subscriptions = specs(quiet | st.tuples(st.just("subscribe"), specs(quiet)))


def machine(make: Callable[[], Any]) -> type[RuleBasedStateMachine]:
    class BusMachine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.real, self.model = World(make()), World(ModelBus())
            self.worlds = (self.real, self.model)

        @precondition(lambda self: len(self.model.subscriptions) < 8)
        @rule(spec=subscriptions)
        def subscribe(self, spec: dict[str, Any]) -> None:
            for world in self.worlds:
                world.subscribe(spec)

        @rule(number=st.integers(0, 11))
        def unsubscribe(self, number: int) -> None:
            for world in self.worlds:
                world.unsubscribe(number)

        @rule(kinds=kinds, nested=st.integers(0, 2), session_id=st.none() | st.sampled_from(SESSIONS))
        def emit(self, kinds: list[str], nested: int, session_id: str | None) -> None:
            for world in self.worlds:
                world.emit(kinds, nested, session_id)

        @precondition(lambda self: len(self.model.heard) > 20)
        @rule()
        def dispose(self) -> None:
            for world in self.worlds:
                world.bus.dispose()

        @invariant()
        def everybody_heard_the_same_in_the_same_order(self) -> None:
            assert self.real.heard == self.model.heard

        @invariant()
        def the_same_subscriptions_stand(self) -> None:
            assert [one.live for one in self.real.subscriptions] == [one.live for one in self.model.subscriptions]
            assert self.real.bus.subscriptions == self.model.bus.subscriptions

        @invariant()
        def the_same_failures_are_counted(self) -> None:
            assert [one.failures for one in self.real.subscriptions] == [
                one.failures for one in self.model.subscriptions
            ]

        @invariant()
        def the_bus_knows_what_is_wanted(self) -> None:
            for kind in KINDS:
                for session_id in SESSIONS:
                    assert self.real.bus.wants(kind, session_id) == self.model.bus.wants(kind, session_id)

    return BusMachine


@pytest.fixture(autouse=True)
def _no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL", "reenact.bus")  # thousands of handlers raise here on purpose


def test_the_bus_does_what_the_model_does() -> None:
    run_state_machine_as_test(machine(SystemBus), settings=settings(stateful_step_count=25))


@pytest.mark.parametrize("broken", [NaiveBus, StaleBus, LazyBus, LateOnceBus])
def test_a_bus_with_the_usual_mistakes_is_found_out(broken: Callable[[], Any]) -> None:
    search = settings(
        max_examples=500, stateful_step_count=30, database=None, derandomize=True, phases=[Phase.generate]
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine(broken), settings=search)
