"""Logs: where the one log rests, named by a URL. Home of eventsourcing, which is loaded when a file is opened.

memory://              gone with the process
sqlite:///agents.db    a file, relative to the working folder
sqlite:////var/a.db    a file, absolute (four slashes); a plain path that ends in .db will do as well
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from ...events.errors import BadInput
from ...events.log import Log, MemoryLog

if TYPE_CHECKING:
    from .reader import SqliteReader

_SHAPES = "Use memory://, sqlite:///file.db (relative), sqlite:////folder/file.db (absolute), or a path ending in .db."


def open_log(url: str, *, writer: str | None = None) -> Log:
    """Own the log at `url`, created when it is not there. writer: the name of this process in it.

    Where `REENACT_HISTORY` names a file, what is asked of the log and what it answers is also written there.
    Raises `BadInput` for a URL that names no log, `StoreError` for a history that cannot be written, and what
    `SqliteLog` raises: `Owned`, `NotALog`, and so on.
    """
    log = _opened(path_of(url), writer)
    history = os.environ.get("REENACT_HISTORY")
    if not history:
        return log
    from .history import Witnessed

    try:
        return cast("Log", Witnessed(log, history))
    except BaseException:
        log.close()
        raise


def _opened(path: str | None, writer: str | None) -> Log:
    if path is None:
        return MemoryLog() if writer is None else MemoryLog(writer=writer)
    from .sqlite import SqliteLog

    return SqliteLog(path, writer=writer)


def open_reader(url: str) -> SqliteReader:
    """Read the log at `url` beside its owner, or without one. Raises `BadInput` and what `SqliteReader` raises."""
    path = path_of(url)
    if path is None:
        raise BadInput(f"{url!r} is within one process; nothing else can read it.")
    from .reader import SqliteReader

    return SqliteReader(path)


def path_of(url: str) -> str | None:
    """The file that `url` names, None for memory. Raises `BadInput` for a URL that names no log."""
    if url == "memory://":
        return None
    scheme, found, rest = url.partition("://")
    if not found:
        if url.endswith(".db") and "\0" not in url:
            return url
        raise BadInput(f"{url!r} names no log. {_SHAPES}")
    if scheme in ("postgresql", "postgres"):
        raise BadInput(f"PostgreSQL is not available in this release. {_SHAPES}")
    path = rest[1:]
    if scheme != "sqlite" or not rest.startswith("/") or path.endswith("/") or path in ("", ":memory:"):
        raise BadInput(f"{url!r} names no log. {_SHAPES}")
    if "?" in path or "#" in path or "\0" in path:
        raise BadInput(f"{url!r}: the URL of a log takes no options. {_SHAPES}")
    return path
