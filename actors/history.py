"""What was asked of a log and answered, as somebody else wrote it down, against what is there. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..events.history import Answered, Began, Entry, Handed, Piece, Raised, Torn, piece
from ..events.log import Stored
from .violation import Violation


class History:
    """`see` takes every batch that is there, in order; then `compare` tells what is not as it was written down."""

    def __init__(self, entries: Iterable[Entry | Torn]) -> None:
        self.promised = 0
        self.torn = 0
        self._writers: dict[int, list[str]] = {}
        self._handed: dict[str, Piece] = {}
        self._whole: list[tuple[str, ...]] = []  # ids that are there together or not at all
        self._stored: dict[str, int] = {}  # id -> position
        self._doubtful: set[str] = set()
        self._there: dict[str, tuple[int, Piece]] = {}
        self._strange: list[Stored] = []
        self._last: dict[int, int] = {}  # of each epoch, the newest position: the lines after it may be lost
        open_: dict[tuple[int, int], Handed] = {}
        for entry in entries:
            match entry:
                case Began():
                    self._writers.setdefault(entry.epoch, []).append(entry.writer)
                case Handed():
                    open_[entry.epoch, entry.call] = entry
                    for transaction in entry.transactions:
                        self._handed.update((each.id, each) for each in transaction)
                        self._whole.append(tuple(each.id for each in transaction))
                case Answered():
                    for transaction, result in zip(_call(open_, entry), entry.results, strict=False):
                        for each, position in zip(transaction, () if isinstance(result, str) else result, strict=False):
                            self._stored[each.id] = position
                            self._last[entry.epoch] = max(self._last.get(entry.epoch, 0), position)
                case Raised():
                    transactions = _call(open_, entry)
                    if entry.written is None:
                        self._doubt(transactions)
                case Torn():
                    self.torn += 1
        for handed in open_.values():  # nobody lived to write down the answer
            self._doubt(handed.transactions)

    def _doubt(self, transactions: Iterable[Iterable[Piece]]) -> None:
        self._doubtful.update(each.id for transaction in transactions for each in transaction)

    def see(self, stored: Stored) -> None:
        """A batch that is there."""
        if stored.batch.head.id in self._handed:
            self._there[stored.batch.head.id] = stored.position, piece(stored.batch)
        elif stored.epoch in self._writers and stored.position < self._last.get(stored.epoch, 0):
            self._strange.append(stored)

    def compare(self) -> Iterator[Violation]:
        for id_, position in self._stored.items():
            handed = self._handed[id_]
            if self._there.get(id_) == (position, handed):
                self.promised += 1
            else:
                at = self._there.get(id_)
                now = "lost" if at is None else "not the same" if at[1] != handed else f"at {at[0]}"
                what = f"the batch {id_} was stored at {position}, and is {now}"
                yield Violation(
                    invariant="durable", what=what, stream=handed.stream, version=handed.version + 1, position=position
                )
        for id_, (position, found) in self._there.items():
            if id_ not in self._stored and id_ not in self._doubtful:
                what = f"the batch {id_} was refused, and is there"
                yield Violation(
                    invariant="phantom", what=what, stream=found.stream, version=found.version + 1, position=position
                )
        for ids in self._whole:
            there = [id_ for id_ in ids if id_ in self._there]
            if 0 < len(there) < len(ids):
                yield Violation(
                    invariant="atomic", what=f"of the batches {', '.join(ids)} only {', '.join(there)} are there"
                )
        for stored in self._strange:
            what = f"nobody handed in the batch {stored.batch.head.id}"
            yield Violation(invariant="phantom", what=what, stream=stored.batch.stream, position=stored.position)
        for epoch, writers in self._writers.items():
            if len(writers) > 1:
                yield Violation(invariant="writer", what=f"{' and '.join(writers)} all began epoch {epoch}")


def _call(open_: dict[tuple[int, int], Handed], end: Answered | Raised) -> tuple[tuple[Piece, ...], ...]:
    """What was handed in with the call that ended. A history that begins in the middle may not have it."""
    handed = open_.pop((end.epoch, end.call), None)
    return () if handed is None else handed.transactions
