"""`Witnessed`: a log whose every commit is written down in a file of its own, before it begins and after its answer.

Meant for another disk than the log's: what the log acknowledged and then lost is told by `reenact verify --history`.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Sequence
from typing import Any

from ...events.errors import Busy, Closed, DiskFull, Fenced, ReenactError, StoreError, StoreFailed
from ...events.history import Answered, Began, Handed, Raised, ending, line, pieces, result
from ...events.log import Log, Result, Transaction

VARIABLE = "REENACT_HISTORY"
"""Names the file, where there is to be one."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_UNWRITTEN = (Busy, Closed, DiskFull, Fenced, StoreFailed)

_PAGE = 1 << 16

_log = logging.getLogger("reenact")


class Witnessed:
    """`log`, and what it is asked and answers appended to the file at `path`: a system call a commit before it, and one
    after it, not synced.

    A last line that a crash cut off stays, is ended, and counts as none: see `ending`.

    What cannot be written down is not handed in. An answer that cannot is still given: it is written down before the
    next commit, or when the log is closed. Raises `StoreError`, `DiskFull` among them, where the file takes nothing.
    """

    def __init__(self, log: Log, path: str) -> None:
        self._log = log
        self._path = path
        self._calls = 0
        self._epoch = 0
        self._late = b""
        """Of what happened, what could not be written down yet: one answer at most."""
        self._left = b""
        """The last line of the file, where it has no end: it gets one before anything else is written."""
        try:
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise StoreError(
                f"{path}: {error.strerror}. {VARIABLE} names it: it must be a file to read and write to."
            ) from error
        try:
            self._left = self._cut()
            self._write(self._owner())
        except BaseException:
            os.close(self._file)
            raise
        self._epoch = log.epoch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def commit(self, transactions: Sequence[Transaction]) -> list[Result]:
        self._calls += 1
        epoch, call = self._log.epoch, self._calls
        self._write(self._late + self._owner() + line(Handed(epoch, call, pieces(transactions))))
        self._epoch, self._late = epoch, b""
        try:
            results = self._log.commit(transactions)
        except BaseException as error:
            name = error.code if isinstance(error, ReenactError) else type(error).__name__
            self._answer(Raised(epoch, call, name, False if isinstance(error, _UNWRITTEN) else None))
            raise
        self._answer(Answered(epoch, call, tuple(map(result, results))))
        return results

    def close(self) -> None:
        self._log.close()
        if self._file < 0:
            return
        try:
            self._write(self._late)
        except StoreError as error:
            _log.warning("The history lacks the last answer of the log: %s", error)
        os.close(self._file)
        self._file = -1

    def _cut(self) -> bytes:
        """The last line of the file, where it has no end. Raises `StoreError` where it cannot be read."""
        at, cut = 0, b""
        try:
            found = os.fstat(self._file)
            if stat.S_ISFIFO(found.st_mode):  # which takes no more once it is full, and keeps nothing
                raise StoreError(
                    f"{self._path} is a pipe. {VARIABLE} names it: it must be a file to read and write to."
                )
            if stat.S_ISREG(found.st_mode):
                at = found.st_size
            while at > 0 and b"\n" not in cut:
                size = min(at, _PAGE + len(cut))
                at -= size
                cut = os.pread(self._file, size, at) + cut
        except OSError as error:
            raise StoreError(f"{self._path}, the history of the log: {error.strerror}.") from error
        return cut.rpartition(b"\n")[2]

    def _owner(self) -> bytes:
        """Who owns the log, where that is not written down: it was opened, or reopened."""
        epoch = self._log.epoch
        return b"" if epoch == self._epoch else line(Began(epoch, self._log.writer))

    def _answer(self, entry: Answered | Raised) -> None:
        text = line(entry)
        try:
            self._write(text)
        except StoreError:
            self._late = text

    def _write(self, text: bytes) -> None:
        """Append the lines, or nothing of them. Raises `DiskFull`, or `Busy` for whatever else was in the way."""
        if self._file < 0:
            return
        text = ending(self._left) + text
        done = 0
        try:
            while done < len(text):
                done += os.write(self._file, text[done:])
        except OSError as error:
            try:
                os.ftruncate(self._file, os.fstat(self._file).st_size - done)
            except OSError:
                self._left = (self._left + text[:done]).rpartition(b"\n")[2]
            kind = DiskFull if error.errno in _FULL else Busy
            raise kind(f"{self._path}, the history of the log: {error.strerror}. Nothing was written.") from error
        self._left = b""
