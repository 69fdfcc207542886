"""What a person's word for a session or an image stands for: an id, its beginning or its end, a name, or `last`.

Reads a log, its owner's or a reader's, and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from ..events import codec
from ..events.errors import BadInput, Corrupt, NotFound
from ..events.image import ImageCreated
from ..events.log import Stored
from ..events.session import SessionCreated

LAST = "last"
"""The newest one in which anything was said, else the newest of all."""

SHOWN_DIGITS = 8
"""How much of an id is shown: its end, which differs where the beginnings, made of the time, do not."""

CANDIDATES_MAX = 6
"""Streams that are named where an id could be any of several."""


class Reads(Protocol):
    """The part of a log that is needed here."""

    def streams(self, prefix: str = "", *, owing: bool = False) -> list[str]: ...
    def read(self, stream: str, *, after: int = 0, limit: int | None = None) -> Sequence[Stored]: ...


def short(full: str) -> str:
    """The end of an id, as people are shown it and may type it."""
    return full[-SHOWN_DIGITS:]


def session_ids(log: Reads) -> list[str]:
    """The ids of all sessions, oldest first."""
    return [stream.removeprefix("session-") for stream in log.streams("session-")]


def session_created(log: Reads, session_id: str) -> SessionCreated | None:
    """How a session began, None where that cannot be read."""
    first = _first(log, f"session-{session_id}")
    return first if isinstance(first, SessionCreated) else None


def session_of(log: Reads, wanted: str) -> str:
    """The id of the session that `wanted` stands for.

    In this order: an id in full, `last`, a name, the only id that begins so (with or without `sess_`), the only id
    that ends so. Raises NotFound for none, BadInput with the candidates for several.
    """
    ids = session_ids(log)
    found = _exactly(log, ids, wanted) or _named_session(log, ids, wanted) or _part(log, ids, wanted)
    if found is None:
        raise NotFound(f"There is no session {_shown(wanted)}. `reenact sessions` lists those there are.")
    return found


def session_to_open(log: Reads, wanted: str) -> str | None:
    """As `session_of` for whoever makes a new session where there is none: None then.

    A word that could be a name is not taken for a part of an id unless it is long enough to be copied from one.
    """
    ids = session_ids(log)
    found = _exactly(log, ids, wanted) or _named_session(log, ids, wanted)
    if found is not None:
        return found
    if wanted.startswith("sess_"):
        return session_of(log, wanted)
    return _part(log, ids, wanted) if may_be_id(wanted, "sess") else None


def may_be_id(wanted: str, kind: str) -> bool:
    """Whether a word looks copied from an id: `kind_…`, or as many hex digits as are shown of one."""
    digits = not set(wanted) - set("0123456789abcdef")
    return wanted.startswith(kind + "_") or (len(wanted) >= SHOWN_DIGITS and digits)


def image_to_open(log: Reads, wanted: str) -> str | None:
    """As `session_to_open` for images; their names are not looked up. Raises NotFound for `img_…` that is none."""
    if not may_be_id(wanted, "img"):
        return None
    ids = [stream.removeprefix("image-") for stream in log.streams("image-")]
    found = wanted if wanted in ids else _part(log, ids, wanted)
    if found is None and wanted.startswith("img_"):
        raise NotFound(f"There is no image {_shown(wanted)}. `reenact images` lists those there are.")
    return found


def _exactly(log: Reads, ids: list[str], wanted: str) -> str | None:
    if wanted == LAST:
        if not ids:
            raise NotFound("There is no session yet.")
        return next((each for each in reversed(ids) if _begun(log, each)), ids[-1])
    return wanted if wanted in ids else None


def _begun(log: Reads, session_id: str) -> bool:
    """Whether there is more in it than its creation. One that cannot be read counts: it is told of by name."""
    try:
        return len(log.read(f"session-{session_id}", limit=2)) > 1
    except Corrupt:
        return True


def _named_session(log: Reads, ids: list[str], name: str) -> str | None:
    for session_id in reversed(ids):
        created = session_created(log, session_id)
        if created is not None and created.alias == name:
            return session_id
    return None


def _part(log: Reads, ids: list[str], wanted: str) -> str | None:
    begin = [each for each in ids if _fits(each, wanted)]
    return _one(begin or [each for each in ids if wanted and each.endswith(wanted)], log, wanted)


def _fits(full: str, wanted: str) -> bool:
    kind, _, digits = full.partition("_")
    return bool(wanted) and (full.startswith(wanted) if wanted.startswith(kind) else digits.startswith(wanted))


def _one(found: list[str], log: Reads, wanted: str) -> str | None:
    if len(found) <= 1:
        return found[0] if found else None
    shown = ", ".join(_candidate(log, each) for each in reversed(found[-CANDIDATES_MAX:]))
    more = f" and {len(found) - CANDIDATES_MAX} more" if len(found) > CANDIDATES_MAX else ""
    raise BadInput(f"{_shown(wanted)} could be any of {len(found)}: {shown}{more}. Give more of the id, or its end.")


def _candidate(log: Reads, full: str) -> str:
    if full.startswith("img_"):
        first = _first(log, f"image-{full}")
        name = first.config.name if isinstance(first, ImageCreated) else None
    else:
        created = session_created(log, full)
        name = created.alias if created else None
    return short(full) + (f" ({name})" if name else "")


def _first(log: Reads, stream: str) -> object:
    """The first event of a stream; None where it cannot be read, for that must not hide all other streams."""
    with suppress(Corrupt):
        for stored in log.read(stream, limit=1):
            return codec.unpack(stored)[0].data
    return None


def _shown(wanted: str) -> str:
    return ascii(wanted) if len(wanted) <= 60 else ascii(wanted[:60]) + "…"
