"""The file of a log as this process has it open beside SQLite: one descriptor, closed when nobody here has the log.

POSIX drops all locks that a process has on a file as soon as it closes any descriptor of that file, and SQLite's locks
are of that kind. Without them the next program that closes the log takes it for one that nobody uses, and deletes the
write-ahead log under its owner. So whoever reads the file here shares one descriptor; and for tools, which do not, the
owner's is locked in another way, that nobody else's closing undoes.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import threading
from typing import Literal

if sys.platform == "linux":
    import fcntl

_Identity = tuple[int, int]

# What SQLite locks for as long as a connection is open: of the file its shared bytes, of the -shm file the byte that
# says that somebody uses it.
_OF_FILE = (0x40000000 + 2, 510)
_OF_SHM = (128, 1)

# Where the name of an open file can be read, the file is not asked: one that was asked for its times gets new ones at
# its next write. With three such questions a commit of 315 us took 400, with three names read 333.
_LINKS = os.path.exists("/proc/self/fd")


class Hold:
    """The file of a log, shared by all in this process who `take` it; each gives it back, once."""

    def __init__(self, identity: _Identity, fd: int) -> None:
        self._identity = identity
        self._fds = [fd]
        self._marks: list[tuple[str, int, object]] = []
        self._users = 0

    def beginning(self, size: int) -> bytes:
        """The first bytes of the file. Raises OSError."""
        with _lock:
            os.lseek(self._fds[0], 0, os.SEEK_SET)
            return os.read(self._fds[0], size)

    def lock(self, path: str) -> None:
        """Say to the SQLite of other processes that the file is in use, until `unlock`, whatever is closed meanwhile.

        Where the system has no such locks nothing is said: whoever commits asks what is `lost`. Raises OSError.
        """
        with _lock:
            names = [path + suffix for suffix in ("", "-wal", "-shm")]
            self._fds += (wal := _open(names[1]), shm := _open(names[2]))
            fds = self._fds[0], wal, shm
            self._marks = [(name, fd, _mark(name, fd)) for name, fd in zip(names, fds, strict=True)]
            with contextlib.suppress(OSError):
                _set(fds[0], "shared", *_OF_FILE)
                _set(shm, "shared", *_OF_SHM)

    def lost(self) -> str | None:
        """Which file of the log has lost its name since `lock`, None when all have theirs."""
        for name, fd, mark in self._marks:
            try:
                if _mark(name, fd) != mark:
                    return name
            except OSError:
                return name
        return None

    def is_at(self, path: str) -> bool:
        """Whether it is this file that has the name."""
        try:
            return identity(path) == self._identity
        except OSError:
            return False

    def unlock(self) -> None:
        """Let the last one that closes the file tidy up. SQLite is closed after this, and before `give_back`."""
        with contextlib.suppress(OSError), _lock:
            for fd in self._fds:
                _set(fd, "none", 0, 0)

    def give_back(self) -> None:
        """Have it no more. The last one closes it, with which SQLite's locks are gone: close its connections before."""
        with _lock:
            self._users -= 1
            if self._users == 0:
                if _holds.get(self._identity) is self:  # Not so in a fork of who took it.
                    del _holds[self._identity]
                self._close()

    def _close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())


def take(path: str) -> Hold:
    """The file at `path`. Raises OSError."""
    with _lock:
        found = identity(path)
        if found not in _holds:
            fd = _open(path)
            found = _of(os.fstat(fd))  # Another file may have the name by now, and one that is held.
            if found in _holds:
                _holds[found]._fds.append(fd)
            else:
                _holds[found] = Hold(found, fd)
        _holds[found]._users += 1
        return _holds[found]


def identity(path: str) -> _Identity:
    """Which file has the name: its device, and its number there. Raises OSError."""
    return _of(os.stat(path))


def _of(found: os.stat_result) -> _Identity:
    return found.st_dev, found.st_ino


def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))


def _mark(name: str, fd: int) -> object:
    """What is another thing when the open file has its name no more. Raises OSError."""
    if _LINKS:
        return os.readlink(f"/proc/self/fd/{fd}")
    return identity(name)


if sys.platform == "linux":

    def _set(fd: int, kind: Literal["shared", "none"], start: int, length: int) -> None:
        # Of the open file and not of the process, so only a close of this very descriptor ends it.
        wanted = fcntl.F_RDLCK if kind == "shared" else fcntl.F_UNLCK
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi0q", wanted, os.SEEK_SET, start, length, 0))

else:

    def _set(fd: int, kind: Literal["shared", "none"], start: int, length: int) -> None:
        raise OSError("no locks of an open file on this system")


_holds: dict[_Identity, Hold] = {}
_lock = threading.RLock()  # Again by the same thread, when what is collected gives a file back.


def _let_go() -> None:
    """A fork inherits the descriptors, and with them the locks: an orphan would keep a dead owner's log in use."""
    global _lock
    _lock = threading.RLock()
    for hold in _holds.values():
        hold._close()
    _holds.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
