"""Sleep: beyond a limit streams are put to sleep, and are read once when they wake."""

from __future__ import annotations

from typing import Any

from reenact.events.errors import (
    Closed,
    KeyReused,
)
from reenact.events.log import MemoryLog, MemoryStore
from reenact.events.session import CloseSession, CreateSession
from tests.actors.office import SESSION, Office, add, container, newborn
from tests.actors.words import CREATE, says, send

# -- who sleeps --


def test_beyond_its_limit_it_puts_the_streams_to_sleep_that_were_asked_longest_ago() -> None:
    office = Office(awake_max=3)
    for n in (0, 1, 2, 0, 3, 4, 5):
        office.ask(*container(n))
        office.rest()
    assert office.asleep == ["container-1", "container-2", "container-0"] and office.system.awake == 3
    assert office.peek("container-0").states[0].container_id == "0", "and wakes them when they are asked again"
    assert office.ask(*container(0)).events == ()
    office.system.close()


def test_streams_that_could_not_sleep_before_do_so_when_they_may() -> None:
    office = Office(awake_max=2)
    for n in range(4):
        born = CreateSession(session_id=f"s{n}", image_id="img_1", container_id="acme", created_at=1)
        office.ask(f"session-s{n}", born)
        office.ask(f"session-s{n}", send())
    assert office.asleep == [] and office.system.awake == 4, "all of them owe something"
    for n in range(4):
        office.ask(f"session-s{n}", says("m1"))
    office.rest()
    office.ask(*container(1))
    assert office.asleep == ["session-s0", "session-s1", "session-s2"] and office.system.awake == 2
    office.system.close()


def test_nobody_need_be_told_that_a_stream_sleeps() -> None:
    office = Office(awake_max=1)
    office.system._on_sleep = None
    for n in range(3):
        assert office.ask(*container(n)).error is None
        office.rest()
    assert office.system.awake == 1
    office.system.close()


def test_what_owes_something_stays_awake() -> None:
    office = Office(awake_max=2)
    office.ask(SESSION, CREATE)
    office.ask(SESSION, send())
    for n in range(6):
        office.ask(*container(n))
    assert SESSION not in office.asleep
    office.ask(SESSION, says("m1"))
    for n in range(6, 12):
        office.ask(*container(n))
    assert SESSION in office.asleep
    assert office.ask(SESSION, send("job_2")).error is None
    office.system.close()


def test_a_command_that_wrote_nothing_keeps_no_stream_awake() -> None:
    office = Office(awake_max=2)
    office.ask("container-acme", add(1), key="k", body=b"1")
    assert isinstance(office.ask("container-acme", add(2), key="k", body=b"2").error, KeyReused)
    for n in range(6):
        office.ask(*container(n))
    assert "container-acme" in office.asleep
    office.system.close()


# -- what is read --


class Read(MemoryLog):
    """A log that counts how often each stream is read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []

    def read(self, stream: str, *, after: int = 0, limit: int | None = None) -> list[Any]:
        self.reads.append(stream)
        return super().read(stream, after=after, limit=limit)


def test_a_stream_is_read_when_it_wakes_and_not_again() -> None:
    log = Read()
    office = Office(log)
    office.ask(SESSION, CREATE)
    for n in range(5):
        office.ask(SESSION, send(f"job_{n}"))
        office.peek(SESSION)
    assert log.reads == [SESSION]
    office.system.close()


def test_one_that_was_born_beside_another_is_not_read_at_all() -> None:
    log = Read()
    office = Office(log)
    reply = office.ask("container-acme", add(1), companions=newborn(1))
    log.reads.clear()
    assert office.peek("image-img_1").states[0].session_id == "s1"
    sent = office.ask("session-s1", send())
    assert sent.error is None and log.reads == []
    [committed] = office.groups[-1]
    assert list(committed.past) == [event for event in reply.events if event.stream == "session-s1"]
    office.system.close()


def test_unless_somebody_else_wrote_to_it_since() -> None:
    log = Read()
    office, other = Office(log), Office(log)
    office.ask("container-acme", add(1), companions=newborn(1))
    other.ask("session-s1", CloseSession())
    assert isinstance(office.ask("session-s1", send()).error, Closed)
    office.system.close()
    other.system.close()


def test_the_past_of_a_conversation_is_told_once_with_the_first_that_it_publishes() -> None:
    store = MemoryStore()
    office = Office(MemoryLog(store))
    office.ask(SESSION, CREATE)
    office.ask(SESSION, send())
    assert [list(group[0].past) for group in office.groups] == [[], []], "one that was never asleep has none"
    office.system.close()
    heir = Office(MemoryLog(store))
    heir.peek(SESSION)
    assert heir.groups[-1][0].past == (), "who only looks is told nothing"
    heir.ask(SESSION, says("m1"))
    [committed] = heir.groups[-1]
    assert [event.version for event in committed.past] == list(range(1, committed.events[0].version))
    heir.ask(SESSION, send("job_2"))
    assert heir.groups[-1][0].past == ()
    heir.system.close()
