"""When the log says no: what is decided anew, what is told, and what ends."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from reenact.actors.cell import Cell
from reenact.actors.system import RETRIES_MAX, Reply
from reenact.events.container import CreateContainer
from reenact.events.errors import (
    Busy,
    Conflict,
    DiskFull,
    Fenced,
    NotFound,
    ReenactError,
    UnknownOutcome,
)
from reenact.events.log import MemoryLog, MemoryStore, Result, Transaction
from tests.actors.logs import Sour
from tests.actors.office import SESSION, Office, add
from tests.actors.words import CREATE, send
from tests.faults.test_poison import DAMAGED, append


def test_a_stream_that_moved_under_it_is_read_again_and_decided_anew() -> None:
    log = Sour(*[Conflict()] * RETRIES_MAX)
    office = Office(log)
    reply = office.ask(SESSION, CREATE)
    assert reply.error is None and log.commits == RETRIES_MAX + 1
    log.errors += [Conflict()] * RETRIES_MAX
    assert office.ask(SESSION, send()).error is None, "every command has as many tries"
    office.system.close()


def test_but_not_for_ever() -> None:
    log = Sour(*[Conflict()] * 100)
    office = Office(log)
    assert isinstance(office.ask(SESSION, CREATE).error, Conflict) and log.commits == RETRIES_MAX + 1
    log.errors.clear()
    assert office.ask(SESSION, CREATE).error is None, "the next one begins anew"
    office.system.close()


def test_what_moved_under_it_may_leave_nothing_to_do() -> None:
    log = Sour()
    office = Office(log)
    office.peek(SESSION)
    behind = Office(log)
    behind.ask(SESSION, CREATE)
    assert office.ask(SESSION, CREATE) == Reply(behind.peek(SESSION).states)
    assert office.ask(SESSION, send()).error is None
    office.system.close()
    behind.system.close()


def test_a_stream_that_another_scope_began_a_moment_ago_is_not_there_for_this_one() -> None:
    log = Sour()
    office, behind = Office(log), Office(log)
    office.peek(SESSION)
    assert behind.ask(SESSION, CREATE, scope="acme").error is None
    reply = office.ask(SESSION, CREATE, scope="globex")
    assert isinstance(reply.error, NotFound) and reply.states == Cell(SESSION).states and not reply.events
    office.system.close()
    behind.system.close()


def test_nor_does_it_hear_that_one_cannot_be_read() -> None:
    log = MemoryLog()
    before = Office(log)
    before.ask(SESSION, CREATE, scope="acme")
    before.system.close()
    append(log, SESSION, DAMAGED)
    office = Office(log)
    assert isinstance(office.look(SESSION, "acme").error, ReenactError), "it stops by name for whose it is"
    assert office.look(SESSION, "globex") == office.look("session-never", "globex")
    ours, never = (office.ask(stream, send(), scope="globex").error for stream in (SESSION, "session-never"))
    assert (type(ours), str(ours)) == (type(never), str(never)) and isinstance(ours, NotFound)
    office.system.close()


def test_two_that_write_to_one_stream_both_get_through() -> None:
    store = MemoryStore()
    log = MemoryLog(store)
    offices = [Office(log), Office(log)]
    offices[0].ask("container-acme", CreateContainer(container_id="acme", created_at=1))
    answers = [offices[n % 2].put("container-acme", add(n)) for n in range(40)]
    errors = [answer.wait().error for answer in answers]
    written = errors.count(None)
    assert all(error is None or isinstance(error, Conflict) for error in errors)
    third = Office(log)
    assert len(third.peek("container-acme").states[0].images) == written > 20
    for each in (*offices, third):
        each.system.close()


@pytest.mark.parametrize("error", [DiskFull(), Busy()])
def test_an_error_that_wrote_nothing_is_told_and_the_stream_goes_on_from_what_is_stored(error: Exception) -> None:
    office = Office(Sour())
    office.ask(SESSION, CREATE)
    office.log.errors.append(error)  # type: ignore[attr-defined]
    assert office.ask(SESSION, send()).error is error
    assert office.peek(SESSION).states[0].running is None
    assert office.ask(SESSION, send()).events[0].type == "job_queued"
    office.system.close()


def test_an_owner_that_was_replaced_writes_nothing_more() -> None:
    store = MemoryStore()
    office = Office(MemoryLog(store))
    office.ask(SESSION, CREATE)
    MemoryLog(store)
    assert isinstance(office.ask(SESSION, send()).error, Fenced)
    assert office.log.head(SESSION) == 1
    office.system.close()


@pytest.mark.parametrize("written", [False, True])
def test_after_an_unknown_outcome_it_decides_upon_what_is_in_the_log_and_writes_nothing(written: bool) -> None:
    class Unsure(MemoryLog):
        unsure = False

        def commit(self, transactions: Sequence[Transaction]) -> list[Result]:
            if not self.unsure:
                return super().commit(transactions)
            if written:
                super().commit(transactions)
            raise UnknownOutcome

    log = Unsure()
    office = Office(log)
    office.ask(SESSION, CREATE)
    log.unsure = True
    assert isinstance(office.ask(SESSION, send()).error, UnknownOutcome)
    log.unsure = False
    assert (office.peek(SESSION).states[0].running is not None) == written
    assert isinstance(office.ask(SESSION, send("job_2")).error, UnknownOutcome), "until the log is opened again"
    office.system.close()
