"""The commands of money: what is limited and what is left of it, limits set and lifted.

A limit goes to whoever owns the log; where nobody does it is recorded here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

import msgspec
from cyclopts import Group, Parameter

from ...events.budget import LIMITS, Budget
from ...events.errors import BadInput
from ..plain_file import object_in
from .front import Front
from .look import budget_columns
from .options import Common
from .output import Output
from .table import listed

_COMMON = Common()
_LIMITS = Group("Limits", sort_key=2)

Principal = Annotated[str | None, Parameter(help="Of this principal alone.")]
Session = Annotated[
    str | None, Parameter(help="Of this session alone: a name, an id, its beginning or its end, or `last`.")
]


@Parameter(name="*", group=_LIMITS)
@dataclass(frozen=True)
class Limits:
    """Money in US dollars; a request is one call of a model; days and months are those of UTC."""

    max_tokens_per_request: str | None = None
    max_tokens_daily: str | None = None
    max_tokens_monthly: str | None = None
    max_tokens_total: str | None = None
    max_cost_per_request: str | None = None
    max_cost_daily: str | None = None
    max_cost_monthly: str | None = None
    max_cost_total: str | None = None
    max_requests_per_minute: str | None = None
    max_requests_daily: str | None = None
    max_tool_calls_per_request: str | None = None
    max_tool_calls_daily: str | None = None
    warning_threshold: Annotated[str | None, Parameter(help="The part of a limit from which on it is warned of.")] = (
        None
    )
    exceed_strategy: Annotated[
        str | None, Parameter(name=["--exceed-strategy", "--then"], help="deny, degrade or warn. Default deny.")
    ] = None
    degrade_to: Annotated[str | None, Parameter(help="The cheaper model of degrade.")] = None
    on_breach: Annotated[
        str | None,
        Parameter(
            help="deny, or ask a person to raise a limit of a day, a month or in all; of no tool calls. Default deny."
        ),
    ] = None
    unpriced: Annotated[str | None, Parameter(help="deny or allow models without a known price. Default deny.")] = None

    @property
    def given(self) -> dict[str, Any]:
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: _number(name, value) for name, value in every.items() if value is not None}


def _number(name: str, value: Any) -> Any:
    """A count as a number; what is none stays what it is, and is refused by its name."""
    counts = name.startswith("max_") and not name.startswith("max_cost")
    digits = value.removeprefix("-") if counts else ""
    if digits.isdecimal() and digits.isascii() and len(digits) <= 18:
        return int(value)
    if name == "warning_threshold" and value.isascii() and value.replace(".", "", 1).isdecimal():
        return float(value)
    return value


def _camel(name: str) -> str:
    first, *more = name.split("_")
    return first + "".join(map(str.capitalize, more))


def _limits(budget: dict[str, Any]) -> dict[str, str]:
    """The limits of a budget, named as they are shown."""
    every = {limit: budget.get(_camel(limit.name)) for limit in LIMITS}
    return {
        limit.name: f"{'$' if limit.of == 'cost' else ''}{most}" for limit, most in every.items() if most is not None
    }


def _shown(used: str | int) -> str:
    return f"${used}" if isinstance(used, str) else f"{used:,}"


def _written(limits: dict[str, str]) -> str:
    return ", ".join(f"{name} {most}" for name, most in limits.items())


_NONE = Limits()


class Budgets:
    """The commands, over what they are handed."""

    def __init__(self, front: Front, output: Output) -> None:
        self._front = front
        self._output = output

    def show(self, *, common: Common = _COMMON) -> int:
        """Show every limit: what is used of it, set aside for sessions, and left."""
        columns = budget_columns(self._front.short, bars=self._output.shows)
        with common.reading(self._front, self._output) as reading:
            none = "nothing is limited. `reenact budget set --max-cost-daily 5` does."
            rows = reading.budgets()
        said = listed(self._output, columns, rows, none=none)
        if not self._output.json:
            self._counts(rows)
        return said

    def set(
        self,
        dollars: Annotated[str | None, Parameter(help="So many dollars in all: --max-cost-total.")] = None,
        /,
        *,
        file: Annotated[str | None, Parameter(help="A file with these fields, TOML or JSON.")] = None,
        principal: Principal = None,
        session: Session = None,
        limits: Limits = _NONE,
        common: Common = _COMMON,
    ) -> int:
        """Set the limits of a scope, or of one principal or session. They replace those it had, also what is not named.

        What was used before counts: of this day, of this month, and in all. A running owner of the log holds to them
        at once, from the next call of each session on; 0 stops them all. A program that is started again with the
        budget that it had holds to them too.
        """
        self._output.json = common.json
        in_file = object_in(file, "a budget is an object of limits.") if file is not None else {}
        budget = dict(limits.given)
        if dollars is not None:
            budget["max_cost_total"] = dollars
        if principal is not None:
            budget["principal_id"] = principal
        if session is not None:
            with common.reading(self._front, self._output) as reading:
                budget["session_id"] = reading.session(session)
        spelt = {field.encode_name: field.name for field in msgspec.structs.fields(Budget)}
        budget |= {name: value for name, value in in_file.items() if spelt.get(name, name) not in budget}
        if not budget:
            raise BadInput("name a limit, such as --max-cost-daily 5; `reenact budget show` shows those there are.")
        said = self._front.set_budget(common.db, budget, scope=common.scope)
        if self._output.json:
            self._output.row(said["budget"])
            return 0
        stands, stood = _limits(said["budget"]), _limits(said.get("replaced") or {})
        lifted = {name: value for name, value in stood.items() if name not in stands}
        gone = f"; lifted, for they were not named again: {_written(lifted)}" if lifted else ""
        self._output.note(f"limited: {_written(stands)}{gone}")
        uses = said.get("limits", [])
        used = [f"{use['limit']} {_shown(use['used'])}" for use in uses if float(use["used"])]
        if used:
            self._output.note(f"used of it already: {', '.join(used)}")
        self._counts(uses)
        return 0

    def rm(self, *, principal: Principal = None, session: Session = None, common: Common = _COMMON) -> int:
        """Lift the limits of a scope, or of one principal or session. What was spent stays counted."""
        self._output.json = common.json
        session_id = None
        if session is not None:
            with common.reading(self._front, self._output) as reading:
                session_id = reading.session(session)
        removed = self._front.remove_budget(common.db, principal, session_id, scope=common.scope)["removed"]
        if self._output.json:
            self._output.row({"removed": removed})
        else:
            self._output.note("lifted." if removed else "there was no such limit.")
        return 0

    def _counts(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """What is not in these figures yet."""
        if any(row["counting"] for row in rows):
            self._output.note("what was used before is being counted; until it is, no model is called.")
        open_ones = max((row["uncounted"] for row in rows), default=0)
        if open_ones:
            calls = "a session has a call" if open_ones == 1 else f"{open_ones:,} sessions have calls"
            self._output.note(f"{calls} under way, begun before the limit: counted at the end.")
