"""Keys: what comes twice with one is written once, and everybody hears of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from reenact.events.errors import (
    Closed,
    KeyReused,
)
from reenact.events.log import MemoryLog, Result, Transaction
from reenact.events.session import CloseSession
from tests.actors.office import SESSION, WAIT_S, Office, add, container, newborn
from tests.actors.words import CREATE, send


def test_of_many_that_come_at_once_with_one_key_one_is_written_and_all_hear_of_it(office: Office) -> None:
    answers = [
        office.put("container-acme", add(n), companions=newborn(n), key="image:support", body=b"same")
        for n in range(20)
    ]
    replies = [answer.wait() for answer in answers]
    assert [reply.error for reply in replies] == [None] * 20
    first = [reply for reply in replies if reply.duplicate is None]
    assert len(first) == 1 and len(first[0].events) == 4
    known = {reply.duplicate for reply in replies if reply.duplicate is not None}
    assert known == {office.log.keyed("default", "image:support")} and office.log.position == 4


def test_one_key_in_two_streams_is_still_one(office: Office) -> None:
    answers = [office.put(f"container-{n % 2}", container(n % 2)[1], key="k", body=b"b") for n in range(10)]
    replies = [answer.wait() for answer in answers]
    assert sum(bool(reply.events) for reply in replies) == 1
    known = office.log.keyed("default", "k")
    assert [reply.duplicate for reply in replies if not reply.events] == [known] * 9


def test_of_several_that_are_committed_together_with_one_key_the_log_takes_the_first() -> None:
    """None of them was there when the others were decided."""

    class Held(MemoryLog):
        inside, go_on = threading.Event(), threading.Event()

        def commit(self, transactions: Sequence[Transaction]) -> list[Result]:
            self.inside.set()
            assert self.go_on.wait(WAIT_S)
            return super().commit(transactions)

    office = Office(Held())
    office.put(*container(0))
    assert Held.inside.wait(WAIT_S)  # and keeps one of the two workers; the other one decides the rest, in order
    answers = [office.put(*container(n), key="k", body=body) for n, body in ((1, b"b"), (2, b"b"), (3, b"another"))]
    until = time.monotonic() + WAIT_S
    while len(office.system.commits._queue) < 3:
        assert time.monotonic() < until
        time.sleep(0.001)
    Held.go_on.set()
    first, second, third = [answer.wait() for answer in answers]
    assert [event.type for event in first.events] == ["container_created"]
    assert second.events == () and second.duplicate == office.log.keyed("default", "k")
    assert isinstance(third.error, KeyReused)
    for n in (2, 3):
        assert office.ask(*container(n)).events, "what was not written is still to be done"
    office.system.close()


def test_a_key_with_another_body_is_refused(office: Office) -> None:
    office.ask("container-acme", add(1), key="k", body=b"1")
    assert isinstance(office.ask("container-acme", add(2), key="k", body=b"2").error, KeyReused)
    assert office.ask("container-acme", add(2), key="other", body=b"2").error is None


def test_a_key_keeps_its_answer_whatever_became_of_the_stream(office: Office) -> None:
    office.ask(SESSION, CREATE)
    first = office.ask(SESSION, send(), key="k", body=b"b")
    office.ask(SESSION, CloseSession())
    again = office.ask(SESSION, send("job_2"), key="k", body=b"b")
    assert again.error is None and again.duplicate is not None
    assert again.duplicate.version == first.events[-1].version
    assert isinstance(office.ask(SESSION, send("job_2"), key="k", body=b"x").error, KeyReused)
    assert isinstance(office.ask(SESSION, send("job_2"), key="l", body=b"b").error, Closed)
