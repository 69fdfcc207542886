"""Group commit: everybody's batches in one commit, in order, and nobody left waiting."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from reenact.actors.commit import GROUP_MAX, GroupCommit
from reenact.events.errors import Busy, Conflict, DiskFull, Fenced, StoreError, UnknownOutcome
from reenact.events.log import Log, MemoryLog, MemoryStore, Result, Transaction
from tests.contracts.batches import one

WAIT_S = 10.0


class Watched(MemoryLog):
    """A log that says what was committed together, and can be held up in the middle of a commit."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        super().__init__(store)
        self.groups: list[list[str]] = []
        self.inside = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.error: Exception | None = None

    def commit(self, transactions: Sequence[Transaction]) -> list[Result]:
        self.groups.append([transaction.batches[0].stream for transaction in transactions])
        self.inside.set()
        assert self.go_on.wait(WAIT_S)
        if self.error is not None:
            raise self.error
        return super().commit(transactions)


class Office:
    """A group commit over a watched log, and everything that was said."""

    def __init__(self, kind: type[GroupCommit] = GroupCommit, log: Watched | None = None) -> None:
        self.log = log or Watched()
        self.commits = kind(self.log, self.publish)
        self.results: dict[str, Result] = {}
        self.published: list[list[Any]] = []

    def publish(self, told: list[object]) -> None:
        self.published.append(told)

    def submit(self, stream: str, version: int = 0) -> None:
        def done(result: Result) -> str:
            assert stream not in self.results, "told twice"
            self.results[stream] = result
            return stream

        self.commits.submit(one(stream, version), done)

    def stored(self, stream: str) -> bool:
        return isinstance(self.results.get(stream), list)


def in_a_thread(work: Any) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_what_is_queued_is_one_commit_told_in_the_order_of_its_positions() -> None:
    office = Office()
    for stream in "abc":
        office.submit(stream)
    assert office.published == [] and office.commits.flush() is True
    assert office.log.groups == [["a", "b", "c"]]
    assert office.published == [["a", "b", "c"]]
    assert [stored.batch.stream for stored in office.log.read_all()] == ["a", "b", "c"]


def test_with_nothing_queued_nothing_is_committed() -> None:
    office = Office()
    assert office.commits.flush() is False
    assert office.log.groups == [] and office.published == []


def test_nobody_hears_of_a_batch_before_its_commit_returned() -> None:
    office = Office()
    office.log.go_on.clear()
    office.submit("a")
    worker = in_a_thread(office.commits.flush)
    assert office.log.inside.wait(WAIT_S)
    assert office.results == {} and office.published == []
    office.log.go_on.set()
    worker.join(WAIT_S)
    assert office.stored("a") and office.published == [["a"]]


def held_up(office: Office) -> None:
    """While one commit runs, two more come from a thread that is turned away; the one that commits takes them along."""
    office.log.go_on.clear()
    office.submit("a")
    worker = in_a_thread(office.commits.flush)
    assert office.log.inside.wait(WAIT_S)
    office.submit("b")
    office.submit("c")
    assert office.commits.flush() is False, "another thread is at it"
    office.log.go_on.set()
    worker.join(WAIT_S)


def test_what_comes_while_a_commit_runs_goes_with_the_next_one_on_the_same_thread() -> None:
    office = Office()
    held_up(office)
    assert office.log.groups == [["a"], ["b", "c"]]
    assert office.published == [["a"], ["b", "c"]]


class LooksOnce(GroupCommit):
    """Broken: it does not look again after a commit."""

    def flush(self) -> bool:
        if self._queue and self._busy.acquire(blocking=False):
            try:
                return self._commit()
            finally:
                self._busy.release()
        return False


def test_a_group_commit_that_loses_a_wake_up_is_caught() -> None:
    office = Office(LooksOnce)
    held_up(office)
    assert not office.stored("b") and not office.stored("c")


def test_nobody_is_left_waiting_when_many_threads_submit_and_flush() -> None:
    office = Office()

    def work(name: str) -> None:
        for n in range(200):
            office.submit(f"{name}-{n}")
            office.commits.flush()

    threads = [in_a_thread(lambda name=name: work(name)) for name in "abcd"]
    for thread in threads:
        thread.join(WAIT_S)
    assert len(office.results) == 800 and all(map(office.stored, office.results))
    told = [stream for group in office.published for stream in group]
    assert told == [stored.batch.stream for stored in office.log.read_all(limit=1000)]


def test_a_group_has_a_bound() -> None:
    office = Office()
    for n in range(GROUP_MAX + 1):
        office.submit(f"s{n}")
    office.commits.flush()
    assert [len(group) for group in office.log.groups] == [GROUP_MAX, 1]
    assert [len(group) for group in office.published] == [GROUP_MAX, 1]


def test_one_conflict_is_told_to_its_own_and_harms_no_other() -> None:
    office = Office()
    office.submit("a", version=7)
    office.submit("b")
    office.commits.flush()
    assert isinstance(office.results["a"], Conflict) and office.stored("b")


def test_what_says_nothing_is_not_published() -> None:
    office = Office()
    office.commits.submit(one("a", 0), lambda result: None)
    office.commits.flush()
    assert office.published == [] and office.log.head("a") == 1


def test_a_batch_that_is_handed_in_again_while_it_is_told_goes_with_the_next_commit() -> None:
    office = Office()

    def again(result: Result) -> None:
        assert isinstance(result, Conflict)
        office.submit("a", version=0)

    office.commits.submit(one("a", 3), again)
    assert office.commits.flush() is True
    assert office.stored("a") and office.log.groups == [["a"], ["a"]]


# -- errors --


@pytest.mark.parametrize("error", [DiskFull(), Busy(), Fenced()])
def test_an_error_that_wrote_nothing_is_told_to_the_whole_group_and_the_next_commit_is_tried(error: StoreError) -> None:
    office = Office()
    office.log.error = error
    office.submit("a")
    office.submit("b")
    office.commits.flush()
    assert office.results == {"a": error, "b": error} and office.commits.failure is None
    office.log.error = None
    office.submit("c")
    office.commits.flush()
    assert office.stored("c")


def test_after_an_unknown_outcome_nothing_more_is_handed_to_the_log() -> None:
    office = Office()
    office.log.error = error = UnknownOutcome()
    office.submit("a")
    office.submit("b")
    office.commits.flush()
    assert office.results == {"a": error, "b": error} and office.commits.failure is error
    office.log.error = None
    office.submit("c")
    office.commits.flush()
    assert office.results["c"] is error and office.log.groups == [["a", "b"]]


def test_an_error_that_no_store_names_is_an_unknown_outcome() -> None:
    office = Office()
    office.log.error = RuntimeError("the driver gave way")
    office.submit("a")
    office.commits.flush()
    assert isinstance(office.results["a"], UnknownOutcome) and "the driver gave way" in str(office.results["a"])
    assert office.commits.failure is office.results["a"]


def test_a_log_is_all_that_it_asks_for() -> None:
    log: Log = MemoryLog()
    assert GroupCommit(log, print).log is log
