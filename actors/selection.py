"""Which model answers: the chain that a turn may use, and what is in force of it. Pure.

A conversation asks the first of its chain until that does not answer, and then stays with what did, and with the key
that it was asked with: the selection is sticky. What is selected first, and every change of it, is a `model_selected`,
where there is anything to select from. A job that names a model is held to it, unless it names fallbacks.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msgspec import Struct

from ..events.agent import ModelSelected
from ..events.content import Failure, Tried
from ..events.session import Definition, Overrides

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS = 253_402_300_799_999  # of the year 9999
_UNASKED = {
    "attempts": "not asked, all attempts were used up",
    "budget_exceeded": "not asked, a limit was in the way",
    "policy_denied": "not asked, a rule was in the way",
    "unpriced": "not asked, what it costs is not known",
}

REFUSED = ("budget_exceeded", "policy_denied", "unpriced")
"""Why another model is selected than was to be asked: what may be in the way of one and not of another."""

_LASTING = frozenset(("auth", "billing", "permission", "model_not_found", *REFUSED))

SHOWN_MAX = 12
"""Attempts that the failure of a turn tells of one by one."""

KEYS_MAX = 32
"""Providers of which a session's own key is remembered; the one that was selected longest ago goes first."""


class Selected(Struct, frozen=True, gc=False):
    """What was selected last. head: the first of the chain it was selected from; it holds while that is the first.

    job: the only one it holds for, as a budget would have it; None for all. chosen: by the budget, which this may be in
    the place of.
    """

    model: str
    reason: str
    head: str
    job: str | None = None
    chosen: str = ""


def chain_of(definition: Definition, overrides: Overrides | None) -> tuple[str, ...]:
    """The models that may be asked, each once, the first one first; never empty.

    Where a job names a model, that and the fallbacks it names are all there are: nothing of the definition's is asked.
    """
    own = fallbacks = None
    if overrides is not None:
        own, fallbacks = overrides.model, overrides.fallbacks
    if own is None:
        wanted = (definition.model, *(definition.fallbacks if fallbacks is None else fallbacks))
    else:
        wanted = (own, *(fallbacks or ()))
    return tuple(dict.fromkeys(wanted))


def due(
    selected: Selected | None, definition: Definition, overrides: Overrides | None, job: str | None
) -> ModelSelected | None:
    """The selection to be made before a model is called, None where the one in force will do."""
    if selected is None and (overrides is None or overrides.model is None):
        return None
    chain = chain_of(definition, overrides)
    head = chain[0]
    current = definition.model if selected is None else selected.model
    if current == head:
        return None
    if selected is not None and _holds(selected, chain, job):
        return None
    reason = "primary" if overrides is None or overrides.model is None else "pinned"
    return ModelSelected(model=head, provider=provider_of(head), reason=reason)


def _holds(selected: Selected, chain: tuple[str, ...], job: str | None) -> bool:
    if selected.job is not None:
        return selected.job == job
    return selected.head == chain[0] and selected.model in chain


def after(
    event: ModelSelected, definition: Definition, overrides: Overrides | None, job: str | None, before: Selected | None
) -> Selected:
    """What is in force after a selection. before: what was."""
    head = chain_of(definition, overrides)[0]
    if event.degraded:
        return Selected(event.model, event.reason, head, job, chosen_by_budget(before) or event.model)
    if event.reason == "budget":
        return Selected(event.model, event.reason, head, job, event.model)
    return Selected(event.model, event.reason, head)


def chosen_by_budget(selected: Selected | None) -> str | None:
    """The model that a budget chose, also where another is asked in its place; None where none did."""
    return None if selected is None or selected.job is None else selected.chosen


def begun(selected: Selected | None, definition: Definition, overrides: Overrides | None) -> Selected | None:
    """As `selected`, when another job begins: what held for one job, and is the first of this one's chain, is no choice
    of a budget any more. What is not is changed before it is called, see `due`."""
    if selected is None or selected.job is None or selected.model != chain_of(definition, overrides)[0]:
        return selected
    return Selected(selected.model, "primary", selected.model)


def is_degraded(selected: Selected | None) -> bool:
    """Whether a budget chose what is asked, or that in whose place it is."""
    return selected is not None and selected.job is not None


def settled(selected: Selected) -> Selected:
    """As `selected`, when the call that it was a probe for is over."""
    if selected.reason != "probe":
        return selected
    reason = "primary" if selected.model == selected.head else "fallback"
    return Selected(selected.model, reason, selected.head, selected.job, selected.chosen)


def keys_after(event: ModelSelected, keys: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """The session's own keys, by provider, after a selection."""
    if event.key is None:
        return keys
    others = [each for each in keys if each[0] != event.provider]
    return (*others[-(KEYS_MAX - 1) :], (event.provider, event.key))


def provider_of(model: str) -> str:
    return model.partition(":")[0]


def tried(model: str, failure: Failure, key: str | None) -> Tried:
    """A failed attempt as it is remembered."""
    provider, _, name = model.partition(":")
    return Tried(provider=provider, model=name, reason=failure.code, status=failure.status, key=key)


def unasked(model: str, reason: str) -> Tried:
    """A model that was not asked, and why not."""
    provider, _, name = model.partition(":")
    return Tried(provider=provider, model=name, reason=reason)


def name_of(attempt: Tried) -> str:
    """The name of the model that was asked."""
    return f"{attempt.provider}:{attempt.model}"


def summary(attempts: tuple[Tried, ...], last: Failure, refused: tuple[Tried, ...] = ()) -> Failure:
    """Why nobody answered: every attempt, and when the first model may be asked again.

    attempts: in order, the last one included. last: how that failed; what it names as tried was not asked at all, nor
    was what is refused.
    """
    everything = (*attempts, *refused, *(last.tried or ()))
    return Failure(
        code="models_exhausted",
        message=f"No model answered: {_told(everything)}.{_again(last.available_at)}",
        retryable=any(each.reason not in _LASTING for each in everything),
        status=last.status,
        tried=everything,
        available_at=last.available_at,
    )


def _told(attempts: tuple[Tried, ...]) -> str:
    """Each model once a reason, with how often."""
    counts: dict[str, int] = {}
    for each in attempts:
        why = each.reason if each.status is None else f"{each.reason}, {each.status}"
        key = "" if each.key is None else f", key {each.key}"
        told = f"{each.provider}:{each.model} ({_UNASKED.get(why, why)}{key})"
        counts[told] = counts.get(told, 0) + 1
    said = [told if count == 1 else f"{told[:-1]}, {count} times)" for told, count in counts.items()]
    more = len(said) - SHOWN_MAX
    return ", ".join(said[:SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")


def _again(available_at: int | None) -> str:
    if available_at is None:
        return ""
    when = _EPOCH + timedelta(milliseconds=min(max(available_at, 0), _LAST_MS))
    return f" One may be asked again at {when.isoformat(timespec='seconds').replace('+00:00', 'Z')}."
