"""The actor system: one command at a time in each stream, told in the order of the log."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from reenact.actors import session, system
from reenact.actors.system import Committed, Peek, Reply
from reenact.events.container import CreateContainer
from reenact.events.errors import (
    BadInput,
    Closed,
    Conflict,
    NotFound,
)
from reenact.events.log import MemoryLog, MemoryStore
from reenact.events.session import CloseSession
from tests.actors.logs import Sour
from tests.actors.office import SESSION, WAIT_S, Answer, Office, add, container, newborn
from tests.actors.words import CREATE, asks, send

# -- replies --


def test_a_command_is_answered_with_its_events_and_the_states_after_them(office: Office) -> None:
    reply = office.ask(SESSION, CREATE)
    assert [event.type for event in reply.events] == ["session_created"] and reply.error is None
    assert reply.states[0].session_id == "sess_1"
    assert office.ask(SESSION, CREATE) == Reply(reply.states)


def test_a_refusal_says_why_and_leaves_the_stream_alive(office: Office) -> None:
    assert isinstance(office.ask(SESSION, send()).error, NotFound)
    assert office.ask(SESSION, CREATE).error is None and office.log.head(SESSION) == 1


def test_what_no_decider_should_raise_is_a_refusal_too(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    def flaw(state: Any, message: Any) -> Any:
        raise ZeroDivisionError("a flaw")

    monkeypatch.setitem(session._DECIDE, CloseSession, flaw)
    office.ask(SESSION, CREATE)
    assert isinstance(office.ask(SESSION, CloseSession()).error, ZeroDivisionError)
    assert office.ask(SESSION, send()).error is None


def test_the_commands_of_a_stream_are_decided_in_the_order_in_which_they_were_asked(office: Office) -> None:
    office.ask(SESSION, CREATE)
    for _ in range(100):
        office.put(SESSION, send(f"job_{_}"))
    state = office.peek(SESSION).states[0]
    assert [state.running.job_id, *(job.job_id for job in state.queue)] == [f"job_{n}" for n in range(100)]


def test_everybody_hears_of_events_in_the_order_of_the_log_and_replies_come_behind_them(office: Office) -> None:
    answers = [office.put(*container(n % 7)) for n in range(50)]
    answers += [office.put("container-acme", add(n)) for n in range(50)]
    for answer in answers:
        answer.wait()
    told = [event.position for group in office.groups for committed in group for event in committed.events]
    assert told == sorted(told) and len(told) == 7 + 51


def test_what_changes_nothing_is_not_answered_before_what_came_before_it_was_told() -> None:
    """Another worker is free while a commit is told; it must not overtake it in the same stream."""
    office = Office()
    order: list[str] = []

    def telling(group: list[Committed]) -> None:
        if not any(committed.events for committed in group) or order:
            return
        # The commit of CREATE is being told, on one of two workers. The other one is free to take these up, in order.
        overtaken = office.put(SESSION, CREATE)
        beside = Answer()
        office.system.put("container-beside", Peek(beside))
        beside.wait()
        order.append("overtaken" if overtaken.heard.is_set() else "in order")

    office.on_publish = telling
    office.ask(SESSION, CREATE)
    office.peek(SESSION)
    office.system.close()
    assert order == ["in order"]


# -- several streams at once --


def test_companions_are_born_in_the_same_transaction(office: Office) -> None:
    reply = office.ask("container-acme", add(1), companions=newborn(1))
    assert [event.type for event in reply.events] == [
        "container_created",
        "image_added",
        "image_created",
        "session_created",
    ]
    assert [event.position for event in reply.events] == [1, 2, 3, 4]


def test_of_those_born_beside_another_only_so_many_are_kept_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "BORN_MAX", 3)
    office = Office()
    office.ask("container-acme", CreateContainer(container_id="acme", created_at=1))
    for n in range(8):
        office.ask("container-acme", add(n), companions=newborn(n))
        assert len(office.system._born) <= 3
    assert [office.peek(f"session-s{n}").states[0].session_id for n in range(8)] == [f"s{n}" for n in range(8)]
    office.system.close()


def test_where_a_companion_exists_already_nothing_of_it_is_written(office: Office) -> None:
    office.ask("session-s1", newborn(1)[1][1])
    before = office.log.position
    reply = office.ask("container-acme", add(1), companions=newborn(1))
    assert isinstance(reply.error, Conflict) and office.log.position == before
    assert list(office.peek("container-acme").states[0].images) == []
    assert office.ask("container-acme", add(2), companions=newborn(2)).error is None


# -- what is owed --


def test_what_is_owed_is_told_with_the_events_that_owe_it_and_again_to_who_takes_over() -> None:
    store = MemoryStore()
    office = Office(MemoryLog(store))
    office.ask(SESSION, CREATE)
    office.ask(SESSION, send())
    office.ask(SESSION, asks("m1", "read", "unsafe"))
    [committed] = office.groups[-1]
    assert [effect.id for effect in committed.owed] == ["t1", "t2"]
    office.system.close()
    heir = Office(MemoryLog(store))
    heir.peek(SESSION, owing=True)
    [taken] = heir.groups[-1]
    assert taken.owed == committed.owed and taken.events == ()
    assert [event.version for event in taken.past] == list(range(1, heir.log.head(SESSION) + 1))
    heir.peek(SESSION, owing=True)
    assert heir.groups[-1][0].past == (), "its past is told once"
    heir.system.close()


# -- the end --


def test_closing_answers_everybody() -> None:
    log = Sour()
    office = Office(log)
    held, go_on = threading.Event(), threading.Event()

    def hold(group: list[Committed]) -> None:
        held.set()
        assert go_on.wait(WAIT_S)

    office.on_publish = hold
    first = office.put(SESSION, CREATE)
    assert held.wait(WAIT_S)
    office.on_publish = lambda group: None
    queued = [office.put(SESSION, send(f"job_{n}")) for n in range(5)]
    looking = Answer()
    office.system.put(SESSION, Peek(looking))
    closing = threading.Thread(target=office.system.close)
    closing.start()
    go_on.set()
    closing.join(WAIT_S)
    assert first.wait().error is None
    for answer in queued:
        reply = answer.wait()
        assert reply.error is None or isinstance(reply.error, Closed)
    error = looking.wait().error
    assert error is None or isinstance(error, Closed)
    with pytest.raises(Closed):
        office.put(SESSION, send())
    office.system.close()


def test_a_bad_command_between_good_ones_costs_only_itself(office: Office) -> None:
    office.ask(SESSION, CREATE)
    answers = [office.put(SESSION, send(f"job_{n}", waking=None) if n == 0 else send(f"job_{n}")) for n in range(4)]
    errors = [answer.wait().error for answer in answers]
    assert isinstance(errors[0], BadInput) and errors[1:] == [None, None, None]
