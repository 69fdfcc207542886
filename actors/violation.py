"""A promise that a log does not keep, and the names of all that are checked."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

INVARIANTS: Mapping[str, str] = {
    "atomic": "every batch is there whole, its events side by side",
    "order": "positions rise by one over the log, versions by one within a stream, and nothing is missing",
    "writer": "epochs never fall, and one epoch has one writer",
    "chain": "the digests of every stream hold from its first batch to its last",
    "ids": "no two batches have the same id",
    "replay": "every batch, decided again, is the batch that is stored",
    "effects": "a call ends once at most, a tool starts before it ends, and none is repeated that may not be",
    "budget": "nothing is allotted past a limit that denies, no model called without money set aside for it, no"
    " session goes on with what was allotted before a limit was changed; what was used before it was set is counted",
    "owing": "the log lists as owing the streams whose last batch owes, and no other",
    "keys": "every idempotency key stands for a batch that is there",
    "file": "the file itself is sound",
    "tables": "the tables for SQL beside it are those that the log gives when it is laid out anew",
    "durable": "what a history says was stored is there, byte for byte, at its place",
    "phantom": "nothing is there that a history says was refused, or that nobody handed in while it was written",
}
"""What is checked, by the name it has in a `Violation`."""


class Violation(Struct, frozen=True, kw_only=True, rename="camel"):
    """One promise that the log does not keep. invariant: a name of `INVARIANTS`; the rest says where, if known."""

    invariant: str
    what: str
    stream: str | None = None
    version: int | None = None
    position: int | None = None

    def __str__(self) -> str:
        where = self.stream or "log"
        if self.version is not None:
            where += f" version {self.version}"
        elif self.position is not None:
            where += f" position {self.position}"
        return f"{self.invariant}: {where}: {self.what}"
