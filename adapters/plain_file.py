"""Files of a user's with plain data in them: an object, in TOML or in JSON."""

from __future__ import annotations

from typing import Any

from ..events.errors import BadInput
from ..events.visible import shown

PLAIN_BYTES_MAX = 16 * 1024 * 1024
"""The longest file that is read."""


def object_in(path: str, wanted: str) -> dict[str, Any]:
    """What a file holds, read as TOML where its name ends in `.toml`, else as JSON.

    Raises BadInput, in one line that begins with the path: it cannot be read, it is too long, it is neither, it
    names something twice, or it holds something else than an object; then the line says `wanted`.
    """
    import json
    import tomllib

    try:
        with open(path, "rb") as file:
            held = file.read(PLAIN_BYTES_MAX + 1)
        if len(held) > PLAIN_BYTES_MAX:
            raise BadInput(f"{path}: is longer than {PLAIN_BYTES_MAX:,} bytes.")
        given: Any = (
            tomllib.loads(held.decode()) if path.endswith(".toml") else json.loads(held, object_pairs_hook=each_once)
        )
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: {error}.") from None
    if not isinstance(given, dict):
        raise BadInput(f"{path}: {wanted}")
    return given


def each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. What is there twice can mean either; TOML refuses it by itself."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{shown(name)} is named twice")
        found[name] = value
    return found
