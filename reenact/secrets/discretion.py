"""Discretion: an error that a caller hears is without the secrets of the caller's own scope, however short they are.

Where an error is made nobody knows yet who will hear it, so only what nobody finds by guessing is taken out there.
Where a caller hears it that is known. Another scope's secrets are not looked for: it would be a way to find them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from traceback import format_exception_only
from typing import Any, TypeVar

from ..events.errors import ReenactError

_Class = TypeVar("_Class", bound=type)


def discreet(cls: _Class) -> _Class:
    """Have every public method of a runtime's class raise its errors so."""
    for name, method in list(vars(cls).items()):
        if inspect.isfunction(method) and name[0] != "_" and not inspect.isasyncgenfunction(method):
            setattr(cls, name, _covered(method))
    return cls


def _covered(method: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(method):

        @wraps(method)
        async def later(self: Any, *args: Any, **options: Any) -> Any:
            try:
                return await method(self, *args, **options)
            except ReenactError as error:
                mask(error, self)
                raise

        return later

    @wraps(method)
    def now(self: Any, *args: Any, **options: Any) -> Any:
        try:
            return method(self, *args, **options)
        except ReenactError as error:
            mask(error, self)
            raise

    return now


def mask(error: BaseException | None, told: Any) -> None:
    """Leave what the caller of a runtime, or of a view of one, may read: in an error's message, and in those of what it
    came from, for a traceback shows them all. What somebody else's error says cannot be changed, so one with a secret
    in it is left out, and with it what that came from.
    """
    for _ in range(20):
        if error is None:
            return
        if isinstance(error, ReenactError):
            error.args = tuple(
                told._vault.text(each, 0, told.scope) if isinstance(each, str) else each for each in error.args
            )
        cause = error.__cause__ or error.__context__
        if cause is not None and not isinstance(cause, ReenactError):
            said = "".join(format_exception_only(cause))
            if told._vault.text(said, 0, told.scope) != said:
                error.__cause__ = error.__context__ = cause = None
        error = cause
