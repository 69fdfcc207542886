"""What every log promises, one clause a function; and the machine that holds any log against `MemoryLog`.

A test file names its log by a `World`, and runs `CLAUSES` over it. A clause fails with an AssertionError, so that a
broken log can be shown to be caught.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from reenact.events.errors import BadInput, Closed, Conflict, Fenced, KeyReused, ReenactError
from reenact.events.log import Batch, Duplicate, Keyed, Log, MemoryLog, MemoryStore, Row, Stored, Transaction
from reenact.events.message import Context, Head

from .batches import batch, one, stored


class World(Protocol):
    """One store, and the owners that come and go over it."""

    def own(self) -> Log:
        """A new owner, as after a crash. Earlier ones were not asked to stop and still believe they own the store."""
        ...

    def close(self) -> None: ...


class MemoryWorld:
    def __init__(self, kind: type[MemoryLog] = MemoryLog) -> None:
        self._kind = kind
        self._store = MemoryStore()

    def own(self) -> Log:
        return self._kind(self._store)

    def close(self) -> None:
        pass


def raises(kind: type[Exception], action: Callable[[], object]) -> None:
    try:
        action()
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was not raised")


# -- appending and reading


def what_is_appended_is_read_back_byte_for_byte(world: World) -> None:
    log = world.own()
    every_byte = bytes(range(256))
    first, second = batch("a", 0, every_byte, b"", b"\0"), batch("a", 3, b"4", owes=("call-1", "call-2"))
    written = [stored(result)[0] for result in log.commit([Transaction((first,)), Transaction((second,))])]
    assert [(s.position, s.epoch, s.batch) for s in written] == [(1, log.epoch, first), (4, log.epoch, second)]
    assert log.read("a") == written
    assert log.read_all() == written
    assert (log.head("a"), log.position) == (4, 4)
    later = world.own()
    assert later.read("a") == written
    assert (later.head("a"), later.position) == (4, 4)


def every_head_is_read_back_alike(world: World) -> None:
    digits = "0123456789abcdef" * 2
    ids = (
        digits,
        digits.upper(),
        digits * 2,
        digits[:-1],
        f"job_{digits}",
        f"{digits}-12",
        "naïve \0 ☃",
        "",
        f"[{digits}]",
    )
    log = world.own()
    written: list[Stored] = []
    for n, text in enumerate(ids):
        for head in (
            Head(id=text, at=n, asked=text, correlation=text, writer=text),
            Head(
                id=digits,
                at=2**63,
                asked="a",
                cause=text,
                correlation=text,
                trace=text,
                job=text,
                context=Context(text, text, text, text, text, text),
                owes=(text, text),
                chain=text.encode(),
                writer=log.writer,
            ),
        ):
            batch = Batch("s", len(written), head, (Row(text or "t", n, b""),))
            written += stored(log.commit([Transaction((batch,))])[0])
    assert log.read("s") == written
    assert world.own().read("s") == written


def a_stream_is_read_from_after_a_version(world: World) -> None:
    log = world.own()
    log.commit([one("a", 0, b"1", b"2"), one("b", 0), one("a", 2, b"3", b"4", b"5"), one("a", 5, b"6")])

    def versions(after: int, limit: int | None = None) -> list[int]:
        return [s.batch.version for s in log.read("a", after=after, limit=limit)]

    assert versions(0) == [0, 2, 5]
    assert versions(1) == [0, 2, 5], "a batch is given whole, also when only its last event is after"
    assert versions(2) == [2, 5]
    assert versions(4) == [2, 5]
    assert versions(5) == [5]
    assert versions(6) == versions(99) == []
    assert versions(0, 1) == [0]
    assert versions(0, 2) == [0, 2]
    assert versions(3, 1) == [2]
    assert versions(0, 0) == []
    assert log.read("nothing") == [] and log.head("nothing") == 0


def the_whole_is_read_in_order_of_position(world: World) -> None:
    log = world.own()
    log.commit([one("b", 0, b"1", b"2"), one("a", 0)])
    log.commit([one("b", 2), one("c", 0, b"1", b"2", b"3"), one("a", 1)])
    everything = log.read_all()
    assert [(s.position, s.batch.stream) for s in everything] == [(1, "b"), (3, "a"), (4, "b"), (5, "c"), (8, "a")]
    assert log.position == 8
    assert log.read_all(after=1) == everything[1:], "a batch that began before is not given again"
    assert log.read_all(after=3) == everything[2:]
    assert log.read_all(after=5) == log.read_all(after=7) == everything[4:]
    assert log.read_all(after=8) == []
    assert log.read_all(limit=2) == everything[:2]
    assert log.read_all(after=2, limit=2) == everything[1:3]


def many_batches_are_read_in_pages_without_gap_or_double(world: World) -> None:
    log = world.own()
    pages = [Transaction((batch("a", 7 * n, *([b"x"] * 7)), batch("b", n, b"y" * 100))) for n in range(1_500)]
    written = [s for result in log.commit(pages) for s in stored(result)]
    assert log.read("a") + log.read("b") == written[::2] + written[1::2]
    assert log.read_all(limit=10_000) == written
    seen: list[Stored] = []
    while page := log.read_all(after=seen[-1].position if seen else 0, limit=401):
        seen += page
    assert seen == written


def an_event_may_have_ten_megabytes(world: World) -> None:
    log = world.own()
    large = random.Random(1).randbytes(10_000_000)
    log.commit([one("a", 0, large, b"small", large[::-1]), one("a", 3, b"next")])
    rows = [row.data for s in world.own().read("a") for row in s.batch.rows]
    assert rows == [large, b"small", large[::-1], b"next"]


def events_of_any_size_and_kind_of_text_are_read_back(world: World) -> None:
    log = world.own()
    said = b'{"city": "Paris", "temp_c": 21, "sky": "clear"} '
    datas = [(said * (size // len(said) + 1))[:size] for size in (0, 1, 1023, 1024, 1025, 50_000, 2**20, 2**20 + 1)]
    datas += [random.Random(size).randbytes(size) for size in (1024, 5000)]
    log.commit([one("a", 0, *datas)])
    assert [row.data for s in world.own().read("a") for row in s.batch.rows] == datas


def rows_keep_the_id_of_their_key(world: World) -> None:
    log = world.own()
    sealed = Batch(
        "a", 0, batch("a", 0, b"").head, (Row("t", 1, b"1", "key-1"), Row("t", 1, b"2"), Row("t", 1, b"3", "k"))
    )
    log.commit([Transaction((sealed,))])
    assert log.read("a")[0].batch == sealed


def nothing_to_commit_is_nothing(world: World) -> None:
    log = world.own()
    assert log.commit([]) == []
    assert (log.position, log.streams()) == (0, [])


# -- at an expected version


def a_conflict_writes_nothing_and_leaves_the_others_be(world: World) -> None:
    log = world.own()
    log.commit([one("a", 0, b"1", b"2")])
    results = log.commit([one("b", 0), one("a", 1), one("a", 3), one("a", 2, b"3"), one("a", 2), one("b", 1)])
    assert [type(result) is Conflict for result in results] == [False, True, True, False, True, False]
    assert [s.position for n in (0, 3, 5) for s in stored(results[n])] == [3, 4, 5]
    assert (log.head("a"), log.head("b"), log.position) == (3, 2, 5)
    assert [row.data for s in log.read("a") for row in s.batch.rows] == [b"1", b"2", b"3"]
    assert stored(log.commit([one("a", 3)])[0])[0].position == 6, "the log goes on after conflicts"


def versions_have_no_gap(world: World) -> None:
    log = world.own()
    results = log.commit([one("a", 1), one("a", 7), Transaction((batch("b", 0, b"1"), batch("a", 2, b"1")))])
    assert all(isinstance(result, Conflict) for result in results)
    assert (log.head("a"), log.head("b"), log.streams(), log.read_all()) == (0, 0, [], [])


def streams_are_appended_together_or_not_at_all(world: World) -> None:
    log = world.own()
    log.commit([one("c", 0)])
    both = Transaction((batch("a", 0, b"1", b"2"), batch("b", 0, b"1")))
    half = Transaction((batch("a", 2, b"3"), batch("c", 0, b"1"), batch("d", 0, b"1")))
    first, second = log.commit([both, half])
    assert [s.position for s in stored(first)] == [2, 4]
    assert isinstance(second, Conflict)
    assert (log.head("a"), log.head("b"), log.head("c"), log.head("d")) == (2, 1, 1, 0)
    assert log.streams() == ["c", "a", "b"]


def what_makes_no_sense_is_refused(world: World) -> None:
    log = world.own()
    twice = Transaction((batch("a", 0, b"1"), batch("a", 0, b"2")))
    results = log.commit([one("b", 0), twice, Transaction((batch("c", 0),)), one("b", 1)])
    assert [isinstance(result, BadInput) for result in results] == [False, True, True, False]
    assert log.streams() == ["b"] and log.head("b") == 2


# -- idempotent commands


def a_key_stands_for_its_first_command(world: World) -> None:
    log = world.own()
    keyed = Keyed("acme", "order-1", b"digest", "a", 0)
    stored(log.commit([one("a", 0, keyed=keyed)])[0])
    again = Keyed("acme", "order-1", b"digest", "a", 1)
    other_scope = Keyed("other", "order-1", b"another", "b", 0)
    results = log.commit(
        [
            one("a", 1, keyed=again),
            one("a", 1, keyed=Keyed("acme", "order-1", b"another", "a", 1)),
            one("b", 0, keyed=other_scope),
        ]
    )
    assert results[0] == Duplicate(keyed), "also when the version it expects is of today"
    assert isinstance(results[1], KeyReused)
    assert stored(results[2])
    assert (log.head("a"), log.head("b")) == (1, 1)
    later = world.own()
    assert later.keyed("acme", "order-1") == keyed
    assert later.keyed("other", "order-1") == other_scope
    assert later.keyed("acme", "order-2") is None
    assert later.commit([one("a", 0, keyed=again)]) == [Duplicate(keyed)], "also when its version is long gone"


def a_key_counts_within_one_commit_too(world: World) -> None:
    log = world.own()
    keyed = Keyed("acme", "k", b"digest", "a", 0)
    first, second, third = log.commit(
        [one("a", 0, keyed=keyed), one("a", 1, keyed=keyed), one("a", 1, keyed=Keyed("acme", "k", b"no", "a", 1))]
    )
    assert stored(first) and second == Duplicate(keyed) and isinstance(third, KeyReused)
    assert log.head("a") == 1


def a_refused_command_leaves_no_key(world: World) -> None:
    log = world.own()
    keyed = Keyed("acme", "k", b"digest", "a", 5)
    assert isinstance(log.commit([one("a", 5, keyed=keyed)])[0], Conflict)
    assert log.keyed("acme", "k") is None
    assert stored(log.commit([one("a", 0, keyed=keyed)])[0])


def a_command_that_decided_nothing_keeps_its_key(world: World) -> None:
    log = world.own()
    keyed = Keyed("acme", "k", b"digest", "a", 0)
    assert stored(log.commit([Transaction((), keyed)])[0]) == []
    assert world.own().commit([one("a", 0, keyed=keyed)]) == [Duplicate(keyed)]


# -- owners


def a_higher_epoch_fences_the_older_owner(world: World) -> None:
    first = world.own()
    first.commit([one("a", 0)])
    second = world.own()
    assert second.epoch > first.epoch
    raises(Fenced, lambda: first.commit([one("a", 1)]))
    written = stored(second.commit([one("a", 1, b"2")])[0])
    assert (written[0].epoch, written[0].position) == (second.epoch, 2)
    raises(Fenced, lambda: first.commit([one("a", 2), one("b", 0)]))
    raises(Fenced, lambda: first.commit([one("a", 2)]))
    assert second.head("a") == 2 and second.streams() == ["a"]
    assert [s.epoch for s in second.read("a")] == [first.epoch, second.epoch]
    assert stored(second.commit([one("a", 2)])[0])


def a_closed_log_takes_nothing_and_closes_again(world: World) -> None:
    log = world.own()
    log.commit([one("a", 0)])
    log.close()
    log.close()
    raises(Closed, lambda: log.commit([one("a", 1)]))
    assert world.own().head("a") == 1


# -- listing


def streams_are_listed_in_order_of_creation(world: World) -> None:
    log = world.own()
    log.commit([one("session-2", 0), one("image-1", 0)])
    log.commit([one("session-1", 0), one("session-2", 1), one("séance-1", 0)])
    for owner in (log, world.own()):
        assert owner.streams() == ["session-2", "image-1", "session-1", "séance-1"]
        assert owner.streams("session-") == ["session-2", "session-1"]
        assert owner.streams("s") == ["session-2", "session-1", "séance-1"]
        assert owner.streams("nothing") == owner.streams("session-11") == []


def a_stream_owes_what_its_last_batch_says(world: World) -> None:
    log = world.own()
    log.commit([one("a", 0, owes=("1",)), one("b", 0), one("c", 0, owes=("2",)), one("ab", 0, owes=("3",))])
    assert log.streams(owing=True) == ["a", "c", "ab"]
    assert log.streams("a", owing=True) == ["a", "ab"]
    log.commit(
        [one("a", 1), one("b", 1, owes=("4",)), one("c", 1, owes=("5",)), one("c", 2), one("ab", 1, owes=("6",))]
    )
    assert log.streams(owing=True) == ["b", "ab"]
    log.commit([one("c", 99, owes=("7",)), one("a", 2), one("a", 3, owes=("8",))])
    assert log.streams(owing=True) == world.own().streams(owing=True) == ["a", "b", "ab"]


CLAUSES: list[Callable[[World], None]] = [
    what_is_appended_is_read_back_byte_for_byte,
    every_head_is_read_back_alike,
    a_stream_is_read_from_after_a_version,
    the_whole_is_read_in_order_of_position,
    many_batches_are_read_in_pages_without_gap_or_double,
    an_event_may_have_ten_megabytes,
    events_of_any_size_and_kind_of_text_are_read_back,
    rows_keep_the_id_of_their_key,
    nothing_to_commit_is_nothing,
    a_conflict_writes_nothing_and_leaves_the_others_be,
    versions_have_no_gap,
    streams_are_appended_together_or_not_at_all,
    what_makes_no_sense_is_refused,
    a_key_stands_for_its_first_command,
    a_key_counts_within_one_commit_too,
    a_refused_command_leaves_no_key,
    a_command_that_decided_nothing_keeps_its_key,
    a_higher_epoch_fences_the_older_owner,
    a_closed_log_takes_nothing_and_closes_again,
    streams_are_listed_in_order_of_creation,
    a_stream_owes_what_its_last_batch_says,
]


# -- any history: the log is what the reference is

STREAMS = ("a", "ab", "b")
KEYS = ("k1", "k2")


class LogMachine(RuleBasedStateMachine):
    """Drives a log and `MemoryLog` alike, with right and wrong versions, keys, owners that were replaced."""

    world: Callable[[], World]

    def __init__(self) -> None:
        super().__init__()
        self.here = type(self).world()
        self.there = MemoryWorld()
        self.owners: list[tuple[Log, Log]] = []
        self.count = 0

    @initialize()
    def the_first_owner(self) -> None:
        self.a_new_owner()

    @rule()
    def a_new_owner(self) -> None:
        if len(self.owners) < 4:
            self.owners.append((self.here.own(), self.there.own()))

    @rule(data=st.data())
    def a_commit(self, data: st.DataObject) -> None:
        log, reference = self.owners[data.draw(st.sampled_from([-1, -1, -1, 0]))]
        transactions = [self._transaction(data, reference) for _ in range(data.draw(st.integers(0, 4)))]
        assert _outcome(log, transactions) == _outcome(reference, transactions)

    def _transaction(self, data: st.DataObject, reference: Log) -> Transaction:
        streams = data.draw(st.lists(st.sampled_from(STREAMS), min_size=0, max_size=3))
        batches = []
        for stream in streams:
            self.count += 1
            version = max(reference.head(stream) + data.draw(st.sampled_from([0, 0, 0, 0, 1, -1])), 0)
            rows = data.draw(st.lists(st.binary(max_size=12), min_size=0 if self.count % 9 == 0 else 1, max_size=4))
            owes = data.draw(st.sampled_from([(), ("call-1",)]))
            batches.append(batch(stream, version, *rows, id=f"{self.count:032x}", owes=owes))
        keyed = None
        if data.draw(st.integers(0, 3)) == 0:
            digest = data.draw(st.sampled_from([b"1", b"2"]))
            keyed = Keyed("scope", data.draw(st.sampled_from(KEYS)), digest, "a", self.count)
        return Transaction(tuple(batches), keyed)

    @rule(after=st.integers(0, 30), limit=st.integers(0, 6))
    def a_page(self, after: int, limit: int) -> None:
        log, reference = self.owners[-1]
        assert log.read_all(after=after, limit=limit) == reference.read_all(after=after, limit=limit)
        for stream in STREAMS:
            assert log.read(stream, after=after, limit=limit) == reference.read(stream, after=after, limit=limit)

    @invariant()
    def both_say_the_same(self) -> None:
        for log, reference in self.owners[-1:]:
            assert (log.position, log.epoch) == (reference.position, reference.epoch)
            assert log.read_all() == reference.read_all()
            for owing in (False, True):
                assert log.streams(owing=owing) == reference.streams(owing=owing)
                assert log.streams("a", owing=owing) == reference.streams("a", owing=owing)
            for stream in STREAMS:
                assert log.head(stream) == reference.head(stream)
                assert log.read(stream) == reference.read(stream)
            for key in KEYS:
                assert log.keyed("scope", key) == reference.keyed("scope", key)

    def teardown(self) -> None:
        for owner, _ in self.owners:
            owner.close()
        self.here.close()


def machine(world: Callable[[], World]) -> type[LogMachine]:
    """The machine over the logs of this world."""
    return type("Machine", (LogMachine,), {"world": staticmethod(world)})


def _outcome(log: Log, transactions: list[Transaction]) -> object:
    try:
        results = log.commit(transactions)
    except ReenactError as error:
        return type(error)
    return [type(result) if isinstance(result, ReenactError) else result for result in results]
