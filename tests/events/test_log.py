"""`MemoryLog` keeps the contract of a log, and the contract catches logs that do not."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from reenact.events.errors import Conflict
from reenact.events.log import Batch, Keyed, MemoryLog, Result, Stored, Transaction
from tests.contracts import log_contract as contract


@pytest.mark.parametrize("clause", contract.CLAUSES, ids=lambda clause: clause.__name__)
def test_the_memory_log_keeps(clause: Callable[[contract.World], None]) -> None:
    clause(contract.MemoryWorld())


class NoFence(MemoryLog):
    """Never looks whether it is still the owner."""

    def commit(self, transactions: Sequence[Transaction]) -> list[Result]:
        self.epoch = self._store.epoch
        return super().commit(transactions)


class NoVersions(MemoryLog):
    """Appends at whatever version is asked for."""

    def _append(self, transaction: Transaction) -> Result:
        moved = [Batch(b.stream, self._version(b.stream), b.head, b.rows) for b in transaction.batches]
        return super()._append(Transaction(tuple(moved), transaction.keyed))


class Gaps(MemoryLog):
    """Checks only that the version was not used before, as a unique index alone would."""

    _asked = 0

    def _version(self, stream: str) -> int:
        return max(super()._version(stream), self._asked)

    def _append(self, transaction: Transaction) -> Result:
        self._asked = max([b.version for b in transaction.batches], default=0)
        try:
            return super()._append(transaction)
        finally:
            self._asked = 0


class Halves(MemoryLog):
    """Appends the batches of a transaction one by one."""

    def _append(self, transaction: Transaction) -> Result:
        written: list[Stored] = []
        for batch in transaction.batches:
            result = super()._append(Transaction((batch,)))
            if not isinstance(result, list):
                return result
            written += result
        return super()._append(Transaction((), transaction.keyed)) if transaction.keyed else written


class AllOrNone(MemoryLog):
    """Lets one conflict take the whole commit with it."""

    def commit(self, transactions: Sequence[Transaction]) -> list[Result]:
        for transaction in transactions:
            for batch in transaction.batches:
                if batch.version != self.head(batch.stream):
                    return [Conflict()] * len(transactions)
        return super().commit(transactions)


class ForgetsKeys(MemoryLog):
    """Appends a command a second time under the same key."""

    def keyed(self, scope: str, key: str) -> Keyed | None:
        return None

    def _append(self, transaction: Transaction) -> Result:
        return super()._append(Transaction(transaction.batches))


class KeyBeforeVersion(MemoryLog):
    """Keeps the key of a command that was refused."""

    def _append(self, transaction: Transaction) -> Result:
        if transaction.keyed is not None:
            super()._append(Transaction((), transaction.keyed))
        return super()._append(Transaction(transaction.batches))


class AlwaysOwing(MemoryLog):
    """Says of a stream that it owes when any of its batches did."""

    def streams(self, prefix: str = "", *, owing: bool = False) -> list[str]:
        names = super().streams(prefix)
        return [n for n in names if not owing or any(s.batch.head.owes for s in self.read(n))]


class Repeats(MemoryLog):
    """Gives the batch again that a reader has seen the beginning of."""

    def read_all(self, *, after: int = 0, limit: int = 1000) -> list[Stored]:
        found = super().read_all(limit=10**9)
        return [s for s in found if s.position + len(s.batch.rows) - 1 > after][:limit]


@pytest.mark.parametrize(
    "broken",
    [NoFence, NoVersions, Gaps, Halves, AllOrNone, ForgetsKeys, KeyBeforeVersion, AlwaysOwing, Repeats],
    ids=lambda kind: kind.__name__,
)
def test_the_contract_catches_a_log_that_breaks_it(broken: type[MemoryLog]) -> None:
    caught = []
    for clause in contract.CLAUSES:
        try:
            clause(contract.MemoryWorld(broken))
        except AssertionError:
            caught.append(clause.__name__)
    assert caught


@pytest.mark.parametrize("broken", [NoFence, NoVersions, Gaps, ForgetsKeys, AlwaysOwing, Repeats])
def test_the_machine_catches_a_log_that_breaks_the_contract(broken: type[MemoryLog]) -> None:
    machine = contract.machine(lambda: contract.MemoryWorld(broken))
    first = settings(max_examples=300, database=None, phases=[Phase.generate], report_multiple_bugs=False)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=first)
