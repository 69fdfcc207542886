"""What lies at a path, told from the outside before SQLite is let near it. Reads a header, writes nothing."""

from __future__ import annotations

import os
import stat
from typing import Literal

from ...events.errors import BadInput, Corrupt, NewerFormat, NoAccess, NotALog, NotFound, StoreError
from .hold import take
from .rows import APPLICATION, FORMAT

ALLOW_NETWORK = "REENACT_ALLOW_NETWORK_FS"
"""Set to 1, this environment variable lets a log lie on a network file system. Its locks are then the user's risk."""

_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smbfs", "smb2", "smb3"})
_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100


def examine(path: str) -> Literal["missing", "empty", "log"]:
    """What lies at `path`: nothing, an empty file (a log to be), or what looks like a log of this format.

    Raises `NotALog` for a folder, a device or another program's file, `Corrupt` for a file shorter than its header
    says, `NewerFormat`, `NoAccess`, `NotFound` where the folder is missing, `BadInput` for a path that cannot be one,
    and `StoreError` on a network file system.
    """
    if "\0" in path or not path:
        raise BadInput(f"{path!r} cannot be the path of a file.")
    try:
        path.encode(errors="surrogateescape")
        found = os.stat(path)
    except UnicodeEncodeError:
        raise BadInput(f"{path!r} cannot be the path of a file.") from None
    except FileNotFoundError:
        folder = os.path.dirname(os.path.abspath(path))
        if not os.path.isdir(folder):
            raise NotFound(f"{path}: the folder {folder} does not exist. Create it, or give another path.") from None
        _refuse_network(folder)
        return "missing"
    except NotADirectoryError:
        raise NotFound(f"{path}: {os.path.dirname(path)} is not a folder. Give another path.") from None
    except OSError as error:
        raise NoAccess(f"{path}: {error.strerror}. Give this user the right, or give another path.") from error
    if stat.S_ISDIR(found.st_mode):
        raise NotALog(f"{path} is a folder, not a reenact log. Give the path of a file.")
    if not stat.S_ISREG(found.st_mode):
        raise NotALog(f"{path} is not an ordinary file, so not a reenact log. Give another path.")
    _refuse_network(path)
    if found.st_size == 0:
        return "empty"
    _read_header(path, found.st_size)
    return "log"


def _read_header(path: str, size: int) -> None:
    try:
        hold = take(path)
        try:
            header = hold.beginning(_HEADER_BYTES)
        finally:
            hold.give_back()
    except OSError as error:
        raise NoAccess(f"{path}: {error.strerror}. Give this user the right, or give another path.") from error
    if _size(path + "-journal") > 0:
        return  # Its creation was cut short, and SQLite will undo it: what the file says now does not count.
    if not header.startswith(_MAGIC):
        if _MAGIC.startswith(header[: len(_MAGIC)]):
            raise Corrupt(f"{path} is cut off after {size} bytes. Restore it from a backup.")
        raise NotALog(f"{path} is not a SQLite database, so not a reenact log. Give another path.")
    if size < _HEADER_BYTES:
        raise Corrupt(f"{path} is cut off after {size} bytes. Restore it from a backup.")
    application, format_ = int.from_bytes(header[68:72], "big"), int.from_bytes(header[60:64], "big")
    if application != APPLICATION:
        raise NotALog(f"{path} is a SQLite database of another program, not a reenact log. Give another path.")
    refuse_newer(path, format_)
    page = int.from_bytes(header[16:18], "big")
    expected = (65536 if page == 1 else page) * int.from_bytes(header[28:32], "big")
    # With a write-ahead log beside it, a crash may have left the file shorter than it is about to become. Its size is
    # asked for last: an owner that closes lets the file grow, and then takes the write-ahead log away.
    if header[24:28] == header[92:96] and _size(path + "-wal") == 0 and (now := _size(path)) < expected:
        raise Corrupt(f"{path} is cut off: {now} of {expected} bytes are left. Restore it from a backup.")


def refuse_second_name(path: str) -> None:
    """Raise `StoreError` where the file has another name too, a hard link: an owner writes ahead beside one of them."""
    try:
        names = os.stat(path).st_nlink
    except OSError:
        return
    if names > 1:
        raise StoreError(
            f"{path} has {names} names (hard links), and what is written ahead lies beside one of them. When nobody has"
            " it open, keep the name with a -wal file beside it, or any where none has one, and make the others"
            " copies: cp A B.new && mv B.new B."
        )


def refuse_newer(path: str, format_: int) -> None:
    """Raise `NewerFormat` when `format_` is above ours."""
    if format_ > FORMAT:
        raise NewerFormat(
            f"{path} has format {format_}; this release of reenact knows formats up to {FORMAT}. Upgrade reenact."
        )


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _refuse_network(path: str) -> None:
    kind = filesystem(path)
    if kind in _NETWORK and os.environ.get(ALLOW_NETWORK) != "1":
        raise StoreError(
            f"{path} is on a network file system ({kind}), whose locks do not keep a log whole. Use a local disk,"
            f" or set {ALLOW_NETWORK}=1 when only one machine ever opens it."
        )


def filesystem(path: str, mounts: str = "/proc/self/mountinfo") -> str | None:
    """The type of the file system that `path` is on ("ext4", "nfs4"), None where it cannot be told (not Linux)."""
    try:
        device = os.stat(path).st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        with open(mounts, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                fields = line.split(" ")
                if fields[2] == wanted:
                    return fields[fields.index("-", 6) + 1]
    except (OSError, IndexError, ValueError):
        pass
    return None
