"""The entries of a ledger as programs write and read them: what was used, by whom, of what kind."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any, Self

from msgspec import Struct

from ..events.budget import COUNT_MAX, used_dollars
from ..events.errors import BadInput
from ..events.ledger import AHEAD_MAX_S, UsageRecorded
from ..events.visible import shown


class LedgerEventType(StrEnum):
    """What an entry is about."""

    MODEL_USAGE = "model_usage"
    TOOL_USAGE = "tool_usage"
    CONNECTOR_USAGE = "connector_usage"
    BUDGET_CHECK = "budget_check"
    QUOTA_CHECK = "quota_check"
    AUDIT = "audit"


class LedgerEvent(Struct, frozen=True, kw_only=True):
    """One entry. timestamp: seconds since 1970 UTC. cost: US dollars as an exact decimal, recorded in nano-dollars,
    rounded up. Where none is told of what a model used, it is recorded by the list price of provider and model, if
    there is one."""

    event_id: str = ""
    type: LedgerEventType = LedgerEventType.MODEL_USAGE
    timestamp: float | None = None
    job_id: str | None = None
    run_id: str | None = None
    session_id: str | None = None
    scope_id: str = "default"
    principal_id: str | None = None
    provider: str | None = None
    model: str | None = None
    tool_name: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cost: str | None = None
    duration_ms: float | None = None
    metadata: dict[str, str] = {}

    @classmethod
    def from_llm_usage(cls, usage: Any, **fields: Any) -> Self:
        """An entry of what a model used. usage: anything with input_tokens, output_tokens, total_tokens or total_cost,
        or prompt_tokens and completion_tokens, also inputTokens and so on; None where nobody counted. What Anthropic
        counts of a cache stands beside its input_tokens, and is added to them.

        Raises BadInput for what has none of these, and for counts and costs that are none."""
        told = {name: _told(usage, spelt) for name, spelt in (*_SPELT.items(), *_BESIDE.items())}
        if usage is not None and not any(told[name] for name in _SPELT):
            raise BadInput(f"usage must have {', '.join(_SPELT)}, or one of them, not be {shown(usage)}.")

        def read(name: str) -> Any:
            return next((value for value in told[name] if value is not None), None)

        def count(name: str) -> int:
            found = read(name)
            return 0 if found is None else counted_of(name, found)

        given, written = count("input_tokens") + sum(map(count, _BESIDE)), count("output_tokens")
        counted = {
            "input_tokens": given,
            "output_tokens": written,
            "total_tokens": count("total_tokens") or given + written,
            "cost": used_dollars("cost", read("cost")),
        }
        return cls(**{**counted, **fields})


class UsageRecord(Struct, frozen=True, kw_only=True):
    """What was used in all. total_cost: US dollars.

    input_tokens, output_tokens: of what programs told. What sessions of a runtime used is in the totals alone, for
    their ledger hears of it as one number.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    total_cost: Decimal = Decimal(0)
    requests: int = 0
    tool_calls: int = 0


_SPELT = {
    "input_tokens": ("input_tokens", "inputTokens", "prompt_tokens", "promptTokens"),
    "output_tokens": ("output_tokens", "outputTokens", "completion_tokens", "completionTokens"),
    "total_tokens": ("total_tokens", "totalTokens"),
    "cost": ("cost", "total_cost", "totalCost"),
}
"""What a usage tells, and the names under which libraries tell it."""


_BESIDE = {
    "cache_read_input_tokens": ("cache_read_input_tokens", "cacheReadInputTokens"),
    "cache_creation_input_tokens": ("cache_creation_input_tokens", "cacheCreationInputTokens"),
}
"""What was read too and input_tokens leaves out, in the words of Anthropic's API alone:
https://platform.claude.com/docs/en/build-with-claude/prompt-caching"""


def _told(usage: Any, spelt: tuple[str, ...]) -> list[Any]:
    """What a usage has under these names."""
    if isinstance(usage, Mapping):
        return [usage[name] for name in spelt if name in usage]
    return [getattr(usage, name) for name in spelt if hasattr(usage, name)]


_KINDS = {kind.value: kind for kind in LedgerEventType}


def kind_of(given: object, name: str = "type") -> str:
    if isinstance(given, str) and given in _KINDS:
        return _KINDS[given].value
    raise BadInput(f"{name} must be one of {', '.join(_KINDS)}, not {shown(given)}.")


def _known(kind: str) -> Any:
    """What an entry is about; as it stands in the log, where it is of no type that there is."""
    return _KINDS.get(kind, kind)


def time_of(seconds: object, heard: int) -> int:
    """Microseconds UTC of a time in seconds, as it was told at `heard`."""
    latest = heard / 1_000_000 + AHEAD_MAX_S
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= latest:
        raise BadInput(
            "timestamp must be seconds since 1970 UTC (not milliseconds), no more than"
            f" {AHEAD_MAX_S} ahead of now, not {shown(seconds)}."
        )
    return int(seconds * 1_000_000)


def counted_of(name: str, given: object) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given <= COUNT_MAX:
        raise BadInput(f"{name} must be a whole number from 0, not {shown(given)}.")
    return given


def name_of(name: str, given: object) -> str | None:
    if given is None or isinstance(given, str):
        return given
    raise BadInput(f"{name} must be a text, not {shown(given)}.")


def duration_of(given: object) -> float | None:
    """Milliseconds."""
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given < math.inf:
        raise BadInput(f"duration_ms must be milliseconds from 0, not {shown(given)}.")
    return given


def metadata_of(given: object) -> dict[str, str] | None:
    if not isinstance(given, Mapping) or not all(isinstance(each, str) for pair in given.items() for each in pair):
        raise BadInput(f"metadata must be an object of texts, not {shown(given)}.")
    return dict(given) or None


def event_of(scope_id: str, entry: UsageRecorded) -> LedgerEvent:
    return LedgerEvent(
        event_id=entry.entry,
        type=_known(entry.kind),
        timestamp=entry.at / 1_000_000,
        job_id=entry.job_id,
        run_id=entry.run_id,
        session_id=entry.session_id,
        scope_id=scope_id,
        principal_id=entry.principal_id,
        provider=entry.provider,
        model=entry.model,
        tool_name=entry.tool,
        input_tokens=entry.input_tokens,
        output_tokens=entry.output_tokens,
        total_tokens=entry.total_tokens,
        cost=entry.cost,
        duration_ms=entry.duration_ms,
        metadata=dict(entry.metadata or {}),  # whoever gets it may change it
    )
