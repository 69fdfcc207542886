"""Whether the log at a URL keeps its word: read beside its owner or without one, nothing is written."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing

from ..actors.verify import Readable, Report
from ..actors.verify import verify as verify_log
from ..actors.violation import INVARIANTS, Violation
from ..adapters.logs import open_reader
from ..events.errors import NotFound, ReenactError
from ..events.history import Entry, Torn, entries
from ..events.log import Stored


def verify(url: str, *, history: str | os.PathLike[str] | None = None) -> Report:
    """Check a whole log: its file, its order, its chains, every batch re-driven, every call counted, its tables.

    history: a file that `REENACT_HISTORY` named while the log was written; then also that all it promised is there.
    Raises `BadInput` for a URL that names no file, and what opening raises (`NotFound`, `NotALog`, `NewerFormat`,
    `NoAccess`, `Corrupt`): a file so damaged that it cannot be opened has no report.
    """
    told = _read(history) if history is not None else []
    with closing(open_reader(url)) as reader:
        tables = _tables(reader, f"{reader.path}.duckdb")
        return verify_log(reader, keys=reader.commands(), flaws=reader.flaws(), tables=tables, history=told)


class _Until:
    """A log as it was at a position."""

    def __init__(self, log: Readable, position: int) -> None:
        self._log = log
        self._position = position

    def read(self, stream: str, *, after: int = 0, limit: int | None = None) -> list[Stored]:
        return [each for each in self._log.read(stream, after=after, limit=limit) if each.position <= self._position]

    def read_all(self, *, after: int = 0, limit: int = 1000) -> list[Stored]:
        return [each for each in self._log.read_all(after=after, limit=limit) if each.position <= self._position]


def _tables(log: Readable, path: str) -> Iterator[str]:
    """Whether the tables in the file at `path`, if there are any, are what the log gives. Looks at a copy of it.

    A file that cannot be used is no flaw: it would be laid out anew. One that is in use now is not looked at.
    """
    if not os.path.exists(path):
        return
    from ..projections.duck import DuckProjection

    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(ReenactError, OSError):
        copy = os.path.join(folder, "tables.duckdb")
        shutil.copyfile(path, copy)
        with DuckProjection(copy) as found, DuckProjection() as anew:
            anew.catch_up(_Until(log, found.position))
            if anew.digest() != found.digest():
                yield f"{path} is not what the log gives up to position {found.position}. Delete it: it is made again"


def _read(history: str | os.PathLike[str]) -> list[Entry | Torn]:
    try:
        with open(history, "rb") as lines:
            return list(entries(lines))
    except (OSError, ValueError) as error:  # the latter where its name holds U+0000
        why = getattr(error, "strerror", None) or error
        raise NotFound(f"The history {os.fspath(history)} cannot be read: {why}.") from None


__all__ = ["INVARIANTS", "Report", "Violation", "verify"]
