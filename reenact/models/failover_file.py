"""Settings of failover as people write them: a file of TOML or JSON, with the keys of `Failover` and `CooldownTimes`.

timeout_s = 120                     # of one whole answer
silence_s = 30                      # between two pieces of it
retries = 1
rotations = 2
attempts = 10
stop_on = ["invalid_request", "content_filter", "bad_input", "permission"]
key_order = "given"                 # or least_recently_used

[cooldowns]
transient_s = [10, 60]
auth_s = 300
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from msgspec.structs import fields

from ..actors.cooldown import CooldownTimes
from ..actors.failover import Failover
from ..adapters.plain_file import object_in
from ..events.errors import BadInput

T = TypeVar("T", Failover, CooldownTimes)


def failover_in(path: str) -> Failover:
    """The settings in a file; what it does not name is as `Failover` has it. Keys in snake_case or in camelCase.

    Raises BadInput, in one line with file and key: no such file, neither TOML nor JSON, an unknown key, one that is
    there twice, a value that there cannot be.
    """
    given = object_in(path, "settings of failover are an object.")
    settings = _table(given, path, Failover)
    if "cooldowns" in settings:
        place = f"{path}: cooldowns"
        settings["cooldowns"] = _made(CooldownTimes, _table(settings["cooldowns"], place, CooldownTimes), place)
    return _made(Failover, settings, path)


def _table(given: Any, place: str, kind: type[Failover] | type[CooldownTimes]) -> dict[str, Any]:
    """By the names of the fields, lists as tuples."""
    if not isinstance(given, Mapping):
        raise BadInput(f"{place}: must be an object, not {ascii(given)[:60]}.")
    names = {form: each.name for each in fields(kind) for form in (each.name, each.encode_name)}
    table: dict[str, Any] = {}
    for key, value in given.items():
        name = names.get(key)
        if name is None:
            there = ", ".join(dict.fromkeys(names.values()))
            raise BadInput(f"{place}: {ascii(key)[:60]}: there is no such key; there are {there}.")
        if name in table:
            raise BadInput(f"{place}: {name}: is there twice.")
        table[name] = tuple(value) if isinstance(value, list) else value
    return table


def _made(kind: type[T], table: Mapping[str, Any], place: str) -> T:
    try:
        return kind(**table)
    except BadInput as error:
        raise BadInput(f"{place}: {error}") from None
