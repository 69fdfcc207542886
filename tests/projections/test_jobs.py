"""The jobs board: how far every accepted input is, and what it took."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given

from reenact.events import codec
from reenact.events.content import Usage
from reenact.events.log import Batch, MemoryLog, Row, Transaction
from reenact.events.message import Recorded
from reenact.projections.jobs import ACTIVE, OVER, Jobs
from reenact.projections.projection import catch_up, catch_up_stream
from tests.histories import START, STEP, History, call, erase, histories, turns, usage


def board(*histories: Iterable[Recorded]) -> Jobs:
    jobs = Jobs()
    for history in histories:
        for recorded in history:
            jobs.apply(recorded)
    return jobs


def state_of(history: History, job_id: str = "job_1") -> str:
    job = board(history).get(job_id)
    assert job is not None
    return job.state


# -- the life of a job --


def test_a_job_is_queued_then_runs_then_has_succeeded() -> None:
    history = History().send("one").send("two")
    assert (state_of(history), state_of(history, "job_2")) == ("running", "queued")
    history.answers("1")
    assert (state_of(history), state_of(history, "job_2")) == ("succeeded", "running")


def test_a_job_waits_for_a_person_and_goes_on() -> None:
    history = History().send("pay").answers(call()).doubts()
    job = board(history).get("job_1")
    assert job is not None and (job.state, job.reason) == ("waiting", "outcome unknown")
    history.resolves()
    job = board(history).get("job_1")
    assert job is not None and (job.state, job.reason) == ("running", None)


def test_a_job_ends_as_it_ended() -> None:
    assert state_of(History().send("go").fails("auth")) == "failed"
    assert state_of(History().send("go").interrupt().fails("cancelled")) == "cancelled"
    assert state_of(History().send("go").interrupt("timeout", asked="expire_job").fails("cancelled")) == "timed_out"
    assert state_of(History().send("one").send("two").cancels("job_2"), "job_2") == "cancelled"


def test_a_failed_job_says_why() -> None:
    job = board(History().send("go").fails("auth", message="The key is not valid.")).get("job_1")
    assert job is not None and job.failure is not None
    assert (job.failure.code, job.failure.message) == ("auth", "The key is not valid.")


def test_a_job_has_its_times() -> None:
    job = board(History().send("one").send("two").later(60).answers("1").answers("2")).get("job_2")
    assert job is not None
    at = (START + 3 * STEP) // 1000
    assert (job.queued_at, job.started_at, job.ended_at) == (at, at + 61_000, at + 62_000)


def test_a_job_counts_what_it_took_and_nothing_of_the_next() -> None:
    history = History().send("one").send("two")
    history.fails("overloaded", retry_in_ms=10, usage=usage(1, 0)).answers(call(id="a"), call(id="b"), usage=usage())
    history.settles().settles().answers("1", usage=usage()).answers("2")
    first, second = board(history).get("job_1"), board(history).get("job_2")
    assert first is not None and second is not None
    assert (first.turns, first.attempts, first.tool_runs) == (1, 3, 2)
    assert first.usage == Usage(input_tokens=21, output_tokens=10)
    assert (second.turns, second.attempts, second.tool_runs, second.usage) == (1, 1, 0, None)


def test_a_job_is_known_by_the_head_of_its_text() -> None:
    job = board(History().send("Refund\n  order 42 " + "x" * 100)).get("job_1")
    assert job is not None
    assert job.title.startswith("Refund order 42 x") and job.title.endswith("…") and len(job.title) == 80


def test_a_job_whose_text_was_erased_is_still_on_the_board() -> None:
    history = History().send("my name is Ann").answers("ok")
    job = board(erase(history.events, 2)).get("job_1")
    assert job is not None and (job.state, job.title) == ("succeeded", "")


def test_sessions_that_run_at_the_same_time_are_told_apart() -> None:
    one = History("sess_1").send("a").answers(call(), usage=usage(1, 1))
    two = History("sess_2", jobs=1).send("b").answers("1", usage=usage(2, 2))
    both = sorted((*one, *two), key=lambda recorded: recorded.at)
    jobs = board(both)
    assert [(job.id, job.session_id, job.state, job.tool_runs) for job in jobs.query()] == [
        ("job_2", "sess_2", "succeeded", 0),
        ("job_1", "sess_1", "running", 1),
    ]
    assert [job.usage for job in jobs.query()] == [usage(2, 2), usage(1, 1)]


# -- asking --


def test_jobs_come_most_recent_first() -> None:
    jobs = board(History().send("a").send("b").send("c"))
    assert [job.title for job in jobs.query()] == ["c", "b", "a"]
    assert [job.title for job in jobs.query(limit=2)] == ["c", "b"]


def test_jobs_are_found_by_state_session_scope_and_time() -> None:
    jobs = board(History().send("a").answers("1").send("b").send("c"))
    assert [job.title for job in jobs.query(state="running")] == ["b"]
    assert [job.title for job in jobs.query(state=ACTIVE)] == ["c", "b"]
    assert [job.title for job in jobs.query(state=OVER)] == ["a"]
    assert [job.title for job in jobs.query(session_id="sess_1", state="queued")] == ["c"]
    assert jobs.query(session_id="sess_2") == [] == jobs.query(container_id="other") == jobs.query(scope="other")
    middle = jobs.query()[1].queued_at
    assert [job.title for job in jobs.query(since_ms=middle)] == ["c", "b"]
    assert [job.title for job in jobs.query(until_ms=middle)] == ["a"]
    assert jobs.counts() == {"succeeded": 1, "running": 1, "queued": 1}


@given(turns())
def test_a_finished_conversation_has_no_job_that_runs_and_an_open_one_has_at_most_one(history: History) -> None:
    jobs = board(history)
    running = jobs.query(state=("running", "waiting"))
    assert [job.id for job in running] == ([history.job] if history.job else [])
    assert {job.id for job in jobs.query(state="queued")} == set(history.queue)
    assert all(job.ended_at is not None for job in jobs.query(state=OVER))
    assert len(jobs) == sum(recorded.type == "job_queued" for recorded in history)


@given(histories())
def test_no_history_is_too_strange_for_the_board(history: History) -> None:
    jobs = board(history)
    assert sum(jobs.counts().values()) == len(jobs)


# -- from the log --


def logged(history: History) -> MemoryLog:
    log, version = MemoryLog(), 0
    stored: dict[str, list[Recorded]] = {}
    for recorded in history:
        stored.setdefault(recorded.head.id, []).append(recorded)
    for batch in stored.values():
        rows: tuple[Row, ...] = tuple(codec.row(recorded.data) for recorded in batch)
        log.commit([Transaction((Batch(batch[0].stream, version, batch[0].head, rows),))])
        version += len(batch)
    return log


def test_a_board_catches_up_with_the_log_and_goes_on_from_where_it_is() -> None:
    history = History().send("a").answers("1").send("b").answers(call())
    log, jobs = logged(history), Jobs()
    after = catch_up(log, jobs, page=2)
    assert after == log.position == history.version
    assert jobs.query() == board(history).query()
    assert catch_up(log, jobs, after) == after


def test_one_stream_is_read_from_any_version() -> None:
    history = History().send("a").answers("1").send("b")
    log = logged(history)

    class Versions:
        def __init__(self) -> None:
            self.seen: list[int] = []

        def apply(self, recorded: Recorded) -> None:
            self.seen.append(recorded.version)

    for after in range(history.version + 1):
        view = Versions()
        assert catch_up_stream(log, "session-sess_1", view, after, page=1) == history.version
        assert view.seen == list(range(after + 1, history.version + 1))
