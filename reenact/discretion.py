"""Discretion: an error that a caller hears is without the secrets of the caller's own scope, however short they are.

Where an error is made nobody knows yet who will hear it, so only what nobody finds by guessing is taken out there.
Where a caller hears it that is known. Another scope's secrets are not looked for: it would be a way to find them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from .events.errors import ReenactError

_Class = TypeVar("_Class", bound=type)


def discreet(masked: Callable[[Any, str], str]) -> Callable[[_Class], _Class]:
    """Have every public method of a class raise its errors so. masked(self, text): what its caller may read."""

    def cover(cls: _Class) -> _Class:
        for name, method in list(vars(cls).items()):
            if inspect.isfunction(method) and name[0] != "_" and not inspect.isasyncgenfunction(method):
                setattr(cls, name, _covered(method, masked))
        return cls

    return cover


def _covered(method: Callable[..., Any], masked: Callable[[Any, str], str]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(method):

        @wraps(method)
        async def later(self: Any, *args: Any, **options: Any) -> Any:
            try:
                return await method(self, *args, **options)
            except ReenactError as error:
                mask(error, self, masked)
                raise

        return later

    @wraps(method)
    def now(self: Any, *args: Any, **options: Any) -> Any:
        try:
            return method(self, *args, **options)
        except ReenactError as error:
            mask(error, self, masked)
            raise

    return now


def mask(error: BaseException | None, told: Any, masked: Callable[[Any, str], str]) -> None:
    """The error's message, and those of what it came from: a traceback shows them all."""
    for _ in range(20):
        if error is None:
            return
        if isinstance(error, ReenactError):
            error.args = tuple(masked(told, each) if isinstance(each, str) else each for each in error.args)
        error = error.__cause__ or error.__context__
