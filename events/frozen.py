"""JSON values that nobody changes: what an event says is decided upon, shown and run, by whoever comes to hold it."""

from __future__ import annotations

from typing import Any, NoReturn

import msgspec


class FrozenDict(dict[str, Any]):
    """A dict that is read only. Equal to, encoded and shown like a plain one; `copy.deepcopy` gives a plain one."""

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("what stands in the log does not change; copy.deepcopy() it, and change the copy")

    __setitem__ = __delitem__ = __ior__ = _refuse
    update = setdefault = pop = popitem = clear = _refuse

    def __copy__(self) -> dict[str, Any]:
        return dict(self)

    def __deepcopy__(self, _: object) -> dict[str, Any]:
        return dict(msgspec.to_builtins(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class FrozenList(list[Any]):
    """A list that is read only, likewise."""

    __slots__ = ()

    _refuse = FrozenDict._refuse
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = extend = insert = remove = pop = clear = sort = reverse = _refuse

    def __copy__(self) -> list[Any]:
        return list(self)

    def __deepcopy__(self, _: object) -> list[Any]:
        return list(msgspec.to_builtins(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)


def frozen(value: Any) -> Any:
    """A copy of an object that nobody can change, nor what is in it; anything else as it is."""
    if type(value) is not dict:
        return value
    top = FrozenDict(value)
    left: list[Any] = [top]
    while left:  # a loop: what a model writes may be nested as deeply as it can be read
        each = left.pop()
        isdict = type(each) is FrozenDict
        for key, inner in each.items() if isdict else enumerate(each):
            if type(inner) is dict:
                new: Any = FrozenDict(inner)
            elif type(inner) is list:
                new = FrozenList(inner)
            else:
                continue
            (dict if isdict else list).__setitem__(each, key, new)
            left.append(new)
    return top


def thawed(value: Any) -> Any:
    """A plain copy, which is whoever's it is given to."""
    return msgspec.to_builtins(value)


__all__ = ["FrozenDict", "FrozenList", "frozen", "thawed"]
