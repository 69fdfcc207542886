"""Who owns a log file: one process at a time, by a lock of the operating system on a file beside it.

The lock is free the moment its process is gone, however it went. The file itself stays, and says who holds it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import weakref

import msgspec
from msgspec import Struct

from ...events.errors import NoAccess, Owned, StoreError
from ...events.shape import json_decoder

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

TRIES = 5
"""How often the lock of a log is asked for: whoever looks who owns it holds it for a moment."""

_PAUSE_S = 0.01
_SAYS_BYTES = 65536


class Owner(Struct, frozen=True):
    """What the lock file says. pid: the process that holds it. socket: where it takes commands, None when nowhere."""

    pid: int
    socket: str | None = None


class Ownership:
    """The lock on one log, held from `Ownership(path)` to `release()`, or to the end of the process.

    Raises `Owned` when another process, or this one, holds it already; `NoAccess` when the lock file cannot be made.
    A fork of this process does not hold it, and does not keep it alive.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.pid = os.getpid()
        try:
            # Close-on-exec, as Python opens everything; never unlinked, for a new file could be locked a second time.
            self._fd = os.open(lock_path(path), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise NoAccess(
                f"{lock_path(path)}: {error.strerror}. The owner of a log needs the right to write in its folder."
            ) from error
        try:
            for tries_left in reversed(range(TRIES)):
                if _lock(self._fd):
                    break
                if tries_left == 0:
                    raise Owned(_owned(path))
                time.sleep(_PAUSE_S)  # It may be `is_owned` looking, which takes microseconds.
        except BaseException:
            os.close(self._fd)
            raise
        _held.add(self)
        with contextlib.suppress(StoreError):
            self.announce(None)  # The lock counts, not what is said of it: a log is owned on a full disk too.

    def announce(self, socket: str | None) -> None:
        """Say in the lock file that this process owns the log and where it takes commands. Raises `StoreError`."""
        says = msgspec.json.encode(Owner(self.pid, socket))
        try:
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)
            os.write(self._fd, says)
        except OSError as error:
            raise StoreError(f"{lock_path(self.path)}: {error.strerror}. Other processes cannot find it.") from error

    def release(self) -> None:
        """Give the lock up. Idempotent. In a fork of the process that took it: forget it, which leaves it held."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            if os.getpid() == self.pid:
                with contextlib.suppress(OSError):
                    os.ftruncate(fd, 0)
            os.close(fd)  # The last copy of the descriptor: this unlocks.


def lock_path(path: str) -> str:
    """The lock file of a log: one, by whatever name the log is opened. Symbolic links to it are followed."""
    return os.path.realpath(path) + ".lock"


def owner_of(path: str) -> Owner | None:
    """What the lock file of a log says, None when it says nothing. A killed owner is still named: try its socket."""
    try:
        with open(lock_path(path), "rb") as file:
            says: Owner = json_decoder(Owner)(file.read(_SAYS_BYTES))
            return says
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def is_owned(path: str) -> bool:
    """Whether a living process owns the log now."""
    try:
        fd = os.open(lock_path(path), os.O_RDWR)
    except OSError:
        return False
    try:
        return not _lock(fd)
    finally:
        os.close(fd)


def _owned(path: str) -> str:
    owner = owner_of(path)
    if owner is None:
        who = "Another process"
    elif owner.pid == os.getpid():
        who = f"This process ({owner.pid})"
    else:
        who = f"Process {owner.pid}"
    return f"{who} owns {path}. Stop it, send it your commands, or read the log beside it with open_reader()."


if sys.platform == "win32":

    def _lock(fd: int) -> bool:
        # A byte far behind the text: a locked byte could not be read.
        os.lseek(fd, 1 << 30, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:  # Windows does not tell "taken" from other errors.
            return False
        finally:
            os.lseek(fd, 0, os.SEEK_SET)
        return True

else:

    def _lock(fd: int) -> bool:
        # Not fcntl's lockf: that one is lost when anything in the process closes the file, and SQLite needs its own.
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise NoAccess(f"This file system cannot lock files: {error.strerror}. Keep the log on another.") from error
        return True


# A fork inherits the descriptor, and with it the lock: an orphaned child would keep a dead owner's log closed.
_held: weakref.WeakSet[Ownership] = weakref.WeakSet()


def _let_go() -> None:
    for ownership in _held:
        ownership.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
