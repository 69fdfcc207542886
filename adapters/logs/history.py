"""`Witnessed`: a log whose every commit is written down in a file of its own, before it begins and after its answer.

Meant for another disk than the log's: what the log acknowledged and then lost is told by `reenact verify --history`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ...events.errors import Busy, Closed, DiskFull, Fenced, ReenactError, StoreFailed
from ...events.history import Answered, Began, Entry, Handed, Raised, line, pieces, result
from ...events.log import Log, Result, Transaction

VARIABLE = "REENACT_HISTORY"
"""Names the file, where there is to be one."""

_UNWRITTEN = (Busy, Closed, DiskFull, Fenced, StoreFailed)


class Witnessed:
    """`log`, and what it is asked and answers appended to the file at `path`: a system call a line, not synced."""

    def __init__(self, log: Log, path: str) -> None:
        self._log = log
        self._calls = 0
        self._epoch = 0
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._note_owner()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def commit(self, transactions: Sequence[Transaction]) -> list[Result]:
        self._note_owner()
        self._calls += 1
        epoch, call = self._epoch, self._calls
        self._note(Handed(epoch, call, pieces(transactions)))
        try:
            results = self._log.commit(transactions)
        except BaseException as error:
            name = error.code if isinstance(error, ReenactError) else type(error).__name__
            self._note(Raised(epoch, call, name, False if isinstance(error, _UNWRITTEN) else None))
            raise
        self._note(Answered(epoch, call, tuple(map(result, results))))
        return results

    def close(self) -> None:
        self._log.close()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _note_owner(self) -> None:
        if self._log.epoch != self._epoch:  # it was reopened
            self._epoch = self._log.epoch
            self._note(Began(self._epoch, self._log.writer))

    def _note(self, entry: Entry) -> None:
        if self._file >= 0:
            os.write(self._file, line(entry))
