"""Payload: a JSON object that reads like a Python one. Imports msgspec only; it is a value and does nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import msgspec

from .errors import BadInput


class Payload(dict[str, Any]):
    """The data of requests, responses and the bus's own notices: read-only, JSON values underneath, camelCase keys.

    `data["imageId"]`, `data.imageId` and `data.image_id` are the same field, at every depth. It equals the plain dict
    and is written as one by every JSON encoder. Lists are plain lists. A key that is also a method of dict (`items`,
    `keys`, `get`, ...) is read with brackets.

    Raises BadInput when `value` holds anything that has no JSON form. What it is built from is copied.
    """

    __slots__ = ()

    def __init__(self, value: Mapping[str, Any] | msgspec.Struct | None = None, /, **fields: Any) -> None:
        try:
            plain = msgspec.to_builtins({} if value is None else value, str_keys=True)
            if fields:
                plain = {**plain, **msgspec.to_builtins(fields)}
        except RecursionError:
            raise BadInput("The data is nested too deeply, or contains itself.") from None
        except (TypeError, ValueError, msgspec.MsgspecError) as error:
            raise BadInput(f"The data has no JSON form: {error}") from error
        if not isinstance(plain, dict):
            raise BadInput(f"The data must be a JSON object, not {_json_kind(plain)}.")
        super().__init__({key: item if type(item) in _FLAT else _read_only(item) for key, item in plain.items()})

    @property
    def error(self) -> str | None:
        """What went wrong, None when nothing did: so that `if response.data.error:` always reads well."""
        error: str | None = self.get("error")
        return error

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        head, *rest = name.split("_")
        camel = head + "".join(part[:1].upper() + part[1:] for part in rest)
        if head and camel in self:
            return self[camel]
        raise AttributeError(f"no field {name!r}; there are: {', '.join(self) or 'none'}")

    def __dir__(self) -> Iterator[str]:
        """The fields too, so that a shell completes them."""
        yield from super().__dir__()
        yield from self

    def __repr__(self) -> str:
        return f"Payload({super().__repr__()})"

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("a payload is read-only; build another one from dict(payload)")

    __setitem__ = __delitem__ = __setattr__ = __delattr__ = _refuse
    __ior__ = update = setdefault = pop = popitem = clear = _refuse

    def __reduce__(self) -> tuple[Callable[[dict[str, Any]], Payload], tuple[dict[str, Any]]]:
        return Payload, (dict(self),)

    def __copy__(self) -> Payload:
        return self

    def copy(self) -> dict[str, Any]:
        """A plain dict with the same fields, one level deep."""
        return dict(self)


_FLAT = frozenset({str, int, float, bool, type(None)})


def _read_only(value: Any) -> Any:
    if type(value) is dict:
        inner = Payload.__new__(Payload)
        dict.__init__(inner, {key: item if type(item) in _FLAT else _read_only(item) for key, item in value.items()})
        return inner
    if type(value) in (list, tuple):
        return [item if type(item) in _FLAT else _read_only(item) for item in value]
    return value


def _json_kind(value: Any) -> str:
    return "an array" if isinstance(value, list | tuple) else f"a value of type {type(value).__name__}"
