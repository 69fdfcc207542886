"""What cannot be read stops itself and nobody else: whoever goes through many streams passes it over, with a warning.

Who asks about such a stream by its name hears its error; nothing here is for them.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ..events.errors import Corrupt, NewerFormat, ReenactError
from ..projections.projection import Folds, catch_up, catch_up_stream

View = TypeVar("View", bound=Folds)


@contextmanager
def passed_over(stream: str) -> Iterator[None]:
    """Around what is done with one stream of many: a warning names it where it cannot be read, and the next follows."""
    try:
        yield
    except (Corrupt, NewerFormat) as error:
        logging.getLogger("reenact").warning("%s is passed over: %s", stream, error)


async def with_each(session_ids: Iterable[str], do: Callable[[str], Awaitable[object]]) -> None:
    """Do this with each of these sessions, whatever becomes of one. Raises afterwards what was raised first; of those
    that cannot be read a warning is enough, for they do nothing any more.
    """
    failed: ReenactError | None = None
    for session_id in session_ids:
        try:
            with passed_over(f"session-{session_id}"):
                await do(session_id)
        except ReenactError as error:
            failed = failed or error
    if failed is not None:
        raise failed


def view_of(log: Any, made: Callable[[], View]) -> tuple[View, set[str]]:
    """A view of a whole log, and the streams that cannot be read to their end: of these it has the beginning. Where
    there are any, it was shown one stream after the other, and not in the order of the log.
    """
    view = made()
    try:
        catch_up(log, view)
        return view, set()
    except Corrupt:
        view = made()
    streams = log.streams()
    lost = set(streams)
    for stream in streams:
        with passed_over(stream):
            catch_up_stream(log, stream, view)
            lost.discard(stream)
    return view, lost
