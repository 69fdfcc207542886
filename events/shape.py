"""The shapes of our types: how plain data and bytes become values of them. The one place that asks msgspec for a type.

It pictures a type when it first meets it, and hands the picture to other threads while it is half made, of which the
process dies. So one thread at a time has a type pictured; a decoder that is at hand is used without waiting.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from threading import RLock
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_picturing = RLock()  # what is converted may convert something itself


@cache
def decoder(kind: Any) -> Callable[[bytes], Any]:
    """How msgpack becomes a value of a type; made when the first one is read, for most are never met."""
    with _picturing:
        return msgspec.msgpack.Decoder(kind).decode


@cache
def json_decoder(kind: Any) -> Callable[[bytes | str], Any]:
    """How JSON becomes a value of a type, made when the first one is read."""
    return passing_json_decoder(kind)


def passing_json_decoder(kind: Any) -> Callable[[bytes | str], Any]:
    """The same for a type that may go before the process does: it is not kept here."""
    with _picturing:
        return msgspec.json.Decoder(kind).decode


def convert(value: object, kind: type[T], *, strict: bool = True) -> T:
    """Plain data as a value of a type. Raises `msgspec.ValidationError` for what does not fit."""
    with _picturing:
        return msgspec.convert(value, kind, strict=strict)


def _let_go() -> None:
    """Whoever converted something as a process forked is not there in the child."""
    global _picturing
    _picturing = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


__all__ = ["convert", "decoder", "json_decoder", "passing_json_decoder"]
