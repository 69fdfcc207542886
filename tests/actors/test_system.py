"""The actor system: one command at a time in each stream, told in the order of the log, asleep when there are many."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from reenact.actors import session, system
from reenact.actors.cell import Cell
from reenact.actors.system import RETRIES_MAX, ActorSystem, Ask, Committed, Peek, Reply
from reenact.events.container import AddImage, CreateContainer
from reenact.events.errors import (
    BadInput,
    Busy,
    Closed,
    Conflict,
    DiskFull,
    Fenced,
    KeyReused,
    NotFound,
    ReenactError,
    UnknownOutcome,
)
from reenact.events.image import CreateImage, ImageConfig
from reenact.events.log import Log, MemoryLog, MemoryStore, Result, Transaction
from reenact.events.message import Asked, Command
from reenact.events.session import CloseSession, CreateSession
from tests.actors.words import CREATE, asks, says, send
from tests.faults.test_poison import DAMAGED, append

WAIT_S = 10.0
SESSION = "session-sess_1"


class Office:
    """An actor system of two threads. Everything it publishes is kept in the order in which it came."""

    def __init__(self, log: Log | None = None, **options: Any) -> None:
        self.log = log or MemoryLog()
        self.groups: list[list[Committed]] = []
        self.asleep: list[str] = []
        self.on_publish: Callable[[list[Committed]], None] = lambda group: None
        self.count = 0
        self.system = ActorSystem(self.log, self.publish, threads=2, on_sleep=self.asleep.append, **options)

    def publish(self, group: list[Committed]) -> None:
        self.groups.append(group)
        self.on_publish(group)
        for committed in group:
            if committed.told is not None:
                committed.told(committed.reply)

    def asked(self, command: Command, **fields: Any) -> Asked:
        self.count += 1
        return Asked(id=f"{self.count:032x}", at=self.count, command=command, **fields)

    def put(self, stream: str, command: Command, *, companions: Any = (), body: bytes = b"", **fields: Any) -> Answer:
        answer = Answer()
        beside = tuple((name, self.asked(each)) for name, each in companions)
        self.system.put(stream, Ask(self.asked(command, **fields), answer, beside, body))
        return answer

    def ask(self, stream: str, command: Command, **options: Any) -> Reply:
        return self.put(stream, command, **options).wait()

    def rest(self) -> None:
        """Wait until both workers sleep: every lane is at rest then."""
        until = time.monotonic() + WAIT_S
        while self.system._pool.idle_workers < 2 or self.system._pool.ready:
            assert time.monotonic() < until, "the workers never rest"
            time.sleep(0.001)

    def peek(self, stream: str, *, owing: bool = False) -> Reply:
        answer = Answer()
        self.system.put(stream, Peek(answer, owing))
        return answer.wait()

    def look(self, stream: str, scope: str) -> Reply:
        answer = Answer()
        self.system.put(stream, Peek(answer, scope=scope))
        return answer.wait()


class Answer:
    """Somebody who waits for a reply."""

    def __init__(self) -> None:
        self.heard = threading.Event()
        self.reply: Reply | None = None

    def __call__(self, reply: Reply) -> None:
        assert self.reply is None, "told twice"
        self.reply = reply
        self.heard.set()

    def wait(self) -> Reply:
        assert self.heard.wait(WAIT_S), "nobody answered"
        assert self.reply is not None
        return self.reply


@pytest.fixture
def office() -> Iterator[Office]:
    office = Office()
    yield office
    office.system.close()


def container(n: int) -> tuple[str, Command]:
    return f"container-{n}", CreateContainer(container_id=str(n), created_at=n)


def add(n: int) -> AddImage:
    return AddImage(container_id="acme", image_id=f"img_{n}", created_at=1)


def newborn(n: int) -> list[tuple[str, Command]]:
    config = ImageConfig(name=f"{n}")
    image = CreateImage(image_id=f"img_{n}", container_id="acme", session_id=f"s{n}", created_at=1, config=config)
    born = CreateSession(session_id=f"s{n}", image_id=f"img_{n}", container_id="acme", created_at=1)
    return [(f"image-img_{n}", image), (f"session-s{n}", born)]


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


# -- sleep --


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


# -- reading --


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


# -- keys --


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


# -- when the log says no --


class Sour(MemoryLog):
    """A log that answers with these errors, one a commit, before it takes anything."""

    def __init__(self, *errors: Exception, store: MemoryStore | None = None) -> None:
        super().__init__(store)
        self.errors = list(errors)
        self.commits = 0

    def commit(self, transactions: Sequence[Transaction]) -> list[Result]:
        self.commits += 1
        if self.errors:
            error = self.errors.pop(0)
            if isinstance(error, Conflict):
                return [error] * len(transactions)
            raise error
        return super().commit(transactions)


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
