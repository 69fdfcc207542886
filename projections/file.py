"""The file of a view: owned by one process, readable by its user alone, and thrown away only where it is ours."""

from __future__ import annotations

import contextlib
import os

from ..events.errors import NoAccess, Owned, ViewFailed

try:
    import fcntl
except ImportError:  # Windows, where the database's own lock has to do
    fcntl = None  # type: ignore[assignment]


class ViewFile:
    """The file at `path`, which need not be there yet, with its lock held from now on until `release`.

    magic: what such a file has at offset 8. Raises `Owned` when it is open already, here or in another process;
    `NoAccess` when it may not be used; `ViewFailed` when it is a log.
    """

    def __init__(self, path: str, *, magic: bytes) -> None:
        self.path = path
        self._magic = magic
        self._fd = _lock(path)
        try:
            self.check()
        except BaseException:
            self.release()
            raise

    def check(self) -> None:
        """See that it is a file of this make. Anything else is kept aside, as `<path>.damaged`, for it may be dear."""
        try:
            with open(self.path, "rb") as file:
                start = file.read(16)
        except FileNotFoundError:
            self.remove()  # What was written ahead of a file that is gone is of no use, and does harm to the next.
            return
        except OSError as error:
            raise NoAccess(f"{self.path}: {error.strerror}.") from error
        if start.startswith(b"SQLite format 3"):
            raise ViewFailed(f"{self.path} is a SQLite file, perhaps a log. Give another path.")
        if not start:
            self.remove()
        elif start[8:] and not start[8:].startswith(self._magic) and not self._magic.startswith(start[8:]):
            try:
                os.replace(self.path, f"{self.path}.damaged")
            except OSError as error:
                raise NoAccess(f"{self.path}: {error.strerror}.") from error
            self.remove()

    def remove(self) -> None:
        """Throw it away, with what the database wrote ahead. Raises `NoAccess`."""
        for file in self._files:
            try:
                os.unlink(file)
            except FileNotFoundError:
                pass
            except OSError as error:
                raise NoAccess(f"{file}: {error.strerror}.") from error

    def keep_private(self) -> None:
        """It has what was said in it, so it is for its user's eyes, as the log is."""
        for file in self._files:
            with contextlib.suppress(OSError):
                os.chmod(file, 0o600)

    def release(self) -> None:
        """Give the lock up; the file stays. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    @property
    def _files(self) -> tuple[str, str]:
        return self.path, f"{self.path}.wal"


def _lock(path: str) -> int:
    """A lock on a file beside it: the database's own is gone once anything here opens and closes the file again."""
    if fcntl is None:
        return -1
    try:
        fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NoAccess(f"{path}.lock: {error.strerror}.") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise Owned(f"{path} is open already, here or in another process. Give another path.") from None
    return fd
