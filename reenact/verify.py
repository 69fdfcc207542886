"""Whether the log at a URL keeps its word: read beside its owner or without one, nothing is written."""

from __future__ import annotations

from contextlib import closing

from .actors.verify import INVARIANTS, Report, Violation
from .actors.verify import verify as verify_log
from .adapters.logs import open_reader


def verify(url: str) -> Report:
    """Check a whole log: its file, its order, its chains, every batch re-driven, every call counted.

    Raises `BadInput` for a URL that names no file, and what opening raises (`NotFound`, `NotALog`, `NewerFormat`,
    `NoAccess`, `Corrupt`): a file so damaged that it cannot be opened has no report.
    """
    with closing(open_reader(url)) as reader:
        return verify_log(reader, keys=reader.commands(), flaws=reader.flaws())


__all__ = ["INVARIANTS", "Report", "Violation", "verify"]
