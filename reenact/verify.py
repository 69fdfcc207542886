"""Whether the log at a URL keeps its word: read beside its owner or without one, nothing is written."""

from __future__ import annotations

import os
from contextlib import closing

from .actors.verify import INVARIANTS, Report, Violation
from .actors.verify import verify as verify_log
from .adapters.logs import open_reader
from .events.errors import NotFound
from .events.history import Entry, entries


def verify(url: str, *, history: str | os.PathLike[str] | None = None) -> Report:
    """Check a whole log: its file, its order, its chains, every batch re-driven, every call counted.

    history: a file that `REENACT_HISTORY` named while the log was written; then also that all it promised is there.
    Raises `BadInput` for a URL that names no file, and what opening raises (`NotFound`, `NotALog`, `NewerFormat`,
    `NoAccess`, `Corrupt`): a file so damaged that it cannot be opened has no report.
    """
    told = _read(history) if history is not None else []
    with closing(open_reader(url)) as reader:
        return verify_log(reader, keys=reader.commands(), flaws=reader.flaws(), history=told)


def _read(history: str | os.PathLike[str]) -> list[Entry]:
    try:
        with open(history, "rb") as lines:
            return list(entries(lines))
    except OSError as error:
        raise NotFound(f"The history {os.fspath(history)} cannot be read: {error.strerror}.") from None


__all__ = ["INVARIANTS", "Report", "Violation", "verify"]
