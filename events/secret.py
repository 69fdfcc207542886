"""A secret: a text that shows itself only where it is asked to. A value; it reaches nothing and stores nothing."""

from __future__ import annotations

import hmac
from typing import Any, NoReturn, Self

from .errors import BadInput, Unrevealed

FLOOR_CHARS = 4
"""The shortest secret that can be hidden. Of one that is shorter every other text would seem to hold it."""

SHORTEST_CHARS = 8
"""The shortest value that is taken for a secret because of its name, or for the beginning of one that was cut off."""


class Secret:
    """A text that is not to be seen: a key, a password, a token.

    `reveal()` is the only way to the value. Everything else shows a mask, `[secret:name]` or `[secret]`: str, repr,
    format, a traceback, a log line. Encoding it (msgspec, JSON) and pickling it raise, so none is ever stored by
    accident; a copy is the same object. Compared in constant time, with other secrets only; it has no hash.

    Raises BadInput for a value that is no text, or holds nothing but white space.
    """

    __slots__ = ("__value", "name")

    name: str | None

    def __init__(self, value: str | Secret, *, name: str | None = None) -> None:
        if isinstance(value, Secret):
            name = value.name if name is None else name
            value = value.reveal()
        if not isinstance(value, str) or not value.strip():
            raise BadInput(f"A secret is a text that is not empty, not a value of type {type(value).__name__}.")
        object.__setattr__(self, "_Secret__value", value)
        object.__setattr__(self, "name", name)

    def reveal(self) -> str:
        """The value. Call it where it is used, as late as possible, and keep no copy."""
        value: str = self.__value  # type: ignore[attr-defined]
        return value

    def __str__(self) -> str:
        return mask(self.name)

    def __repr__(self) -> str:
        return f"Secret({mask(self.name)})"

    def __format__(self, spec: str) -> str:
        return format(mask(self.name), spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        # As bytes: compare_digest takes no other text than ASCII.
        mine, theirs = (each.reveal().encode("utf-8", "surrogatepass") for each in (self, other))
        return hmac.compare_digest(mine, theirs)

    __hash__ = None  # type: ignore[assignment]

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise Unrevealed

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a secret does not change; make another one")

    __delattr__ = __setattr__  # type: ignore[assignment]


def mask(name: str | None) -> str:
    """What is shown in the place of a secret."""
    return f"[secret:{name}]" if name else "[secret]"
