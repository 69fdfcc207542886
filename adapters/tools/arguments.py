"""The arguments a model sends, as plain JSON values, checked into what a function takes.

Everything a model emits is untrusted. What is wrong comes back as a value, `BadArguments`, with words for the model.

Nothing is coerced: `"3"` is no int and `"true"` no bool. What the provider is told, what a person approves, what the
digest in the log covers and what runs are then one and the same. The one freedom is JSON's own: `3.0` is an integer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, Struct

if TYPE_CHECKING:
    from .parameters import Parameters

MAX_ARGUMENTS_BYTES = 1024 * 1024
MAX_DEPTH = 64
MAX_REASON_CHARS = 300
# What 64 bits hold, signed or not. Wider ones lose digits in most readers of JSON.
MIN_INT, MAX_INT = -(2**63), 2**64 - 1

Flaw = tuple[str, str]
"""Where, as a JSON path below the value looked at, and what."""


class BadArguments(Struct, frozen=True, kw_only=True):
    """Why a call cannot be run. message: for the model. path: the place, as a JSON path. reason: what is wrong."""

    message: str
    reason: str
    path: str = "$"


def check_arguments(
    arguments: object, parameters: Parameters, *, name: str, max_bytes: int = MAX_ARGUMENTS_BYTES
) -> dict[str, Any] | BadArguments:
    """Check plain JSON values against a tool's parameters; return the keyword arguments to call it with.

    The values returned are fresh copies: a tool that changes them changes nothing that was recorded. Parameters that
    were not sent are left out, so the function's own defaults hold.
    """
    if not isinstance(arguments, dict):
        return _bad(name, parameters, "$", f"expected an object, got {_kind(arguments)}")
    if found := flaw(arguments, max_chars=max_bytes):
        return _bad(name, parameters, "$" + found[0], found[1])
    raw = msgspec.json.encode(arguments)
    if len(raw) > max_bytes:
        return _bad(name, parameters, "$", f"they are larger than {max_bytes} bytes")
    if not (parameters.required <= arguments.keys() <= parameters.known):
        missing = [each for each in parameters.names if each in parameters.required and each not in arguments]
        unknown = [each for each in arguments if each not in parameters.known]
        wrong = [f"missing {_listed(missing)}"] if missing else []
        wrong += [f"unknown {_listed(unknown)}"] if unknown else []
        return _bad(name, parameters, "$", "; ".join(wrong))
    try:
        decoded = parameters.decode(raw)
    except Exception as error:  # a type's own __post_init__ may raise anything
        try:
            decoded = parameters.decode(msgspec.json.encode(_whole(arguments)))
        except Exception:
            return _bad(name, parameters, *_located(error, arguments))
    return {each: value for each in parameters.names if (value := getattr(decoded, each)) is not UNSET}


def unreadable(reason: str, *, path: str = "$") -> BadArguments:
    """What to tell a model whose arguments are no JSON object, or not one that can be kept."""
    where = "" if path == "$" else f" at {path}"
    return BadArguments(
        message=f"The arguments cannot be read: {reason}{where}. Send one JSON object. Nothing was run.",
        reason=reason,
        path=path,
    )


def flaw(value: Any, depth: int = 1, max_chars: int = MAX_ARGUMENTS_BYTES) -> Flaw | None:
    """The first thing in a value that plain JSON in UTF-8 cannot hold, or that is beyond our bounds, or None."""
    kind = type(value)
    if kind is str:
        return _text_flaw(value, max_chars)
    if value is None or kind is bool:
        return None
    if kind is int:
        return None if MIN_INT <= value <= MAX_INT else ("", "an integer beyond 64 bits")
    if kind is float:
        return None if value - value == 0 else ("", f"{value} is no JSON number")
    if isinstance(value, dict):
        if depth > MAX_DEPTH:
            return "", f"nested deeper than {MAX_DEPTH} levels"
        for key, item in value.items():
            if type(key) is not str:
                return "", f"a key is {_kind(key)}, not a string"
            if found := _text_flaw(key, max_chars):
                return "", f"a key holds {found[1]}"
            if below := flaw(item, depth + 1, max_chars):
                return _step(key) + below[0], below[1]
        return None
    if isinstance(value, list | tuple):
        if depth > MAX_DEPTH:
            return "", f"nested deeper than {MAX_DEPTH} levels"
        for index, item in enumerate(value):
            if below := flaw(item, depth + 1, max_chars):
                return f"[{index}]{below[0]}", below[1]
        return None
    return "", f"{kind.__name__} is no JSON value"


def _text_flaw(text: str, max_chars: int) -> Flaw | None:
    if len(text) > max_chars:
        return "", f"text of more than {max_chars} bytes"
    if "\0" in text:
        return "", "U+0000"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return "", f"the lone surrogate U+{ord(text[error.start]):04X}"
    return None


def _whole(value: Any) -> Any:
    """The value with integral floats as ints: to JSON Schema, `3.0` is an integer."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and MIN_INT <= value <= MAX_INT else value
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_whole(item) for item in value]
    return value


def _bad(name: str, parameters: Parameters, path: str, reason: str) -> BadArguments:
    reason = reason if len(reason) <= MAX_REASON_CHARS else reason[:MAX_REASON_CHARS] + "…"
    return BadArguments(
        message=f"Bad arguments for {name}: at {path}: {reason}. {parameters.summary} Nothing was run.",
        reason=reason,
        path=path,
    )


def _located(error: Exception, arguments: dict[str, Any]) -> Flaw:
    """Split msgspec's `Expected …, got … - at `$.path``, and add the value that came if it is a plain one."""
    reason, at, place = str(error).rpartition(" - at ")
    if not at or not isinstance(error, msgspec.ValidationError):
        return "$", str(error) or type(error).__name__
    path = place.replace("`", "")
    value = _value_at(arguments, path)
    if isinstance(value, str | int | float):
        shown = _quoted(value)
        if shown not in reason and f"'{value}'" not in reason:
            reason += f" {shown}" if ", got " in reason else f", got {shown}"
    return path, reason


def _value_at(value: Any, path: str) -> Any:
    for key, index in re.findall(r"\.([^.\[\]]+)|\[(\d+)\]", path):
        try:
            value = value[key] if key else value[int(index)]
        except (KeyError, IndexError, TypeError):
            return None
    return None if "..." in path or " in " in path else value


def _kind(value: object) -> str:
    if value is None:
        return "null"
    kinds = {
        bool: "boolean",
        int: "integer",
        float: "number",
        str: "string",
        list: "array",
        tuple: "array",
        dict: "object",
    }
    return kinds.get(type(value), type(value).__name__)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(_quoted(name) for name in names)


def _step(key: str) -> str:
    return f".{key}" if key.isidentifier() and key.isascii() and len(key) <= 64 else f"[{_quoted(key)}]"


def _quoted(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False).encode(errors="replace").decode()
    return text if len(text) <= 64 else text[:63] + "…"
