"""Texts: which fields of a command hold what somebody wrote, and which are names that somebody chose.

Only texts are masked: messages, instructions, arguments, outputs, answers, comments, payloads, and words for what
became of something, unless they are reenact's own. Names decide: rules, patterns, models, tools, principals, limits.
They are stored as they are, and one that a caller asks with is refused where a secret stands in it. Every other field
is made here, out of what was looked at before, and is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import Any

from msgspec import Struct

from ..actors.failover import NEVER, STOP_ON
from ..actors.purse import UNBILLED
from ..adapters.models.failures import RETRYABLE
from ..adapters.models.providers import PROVIDERS
from ..events import (
    action,
    agent,
    budget,
    container,
    content,
    cooldown,
    errors,
    image,
    ledger,
    model,
    policy,
    session,
    stream,
    tool,
)
from ..events.message import Command


class Kind(Enum):
    """What a field holds. In any of them a struct is looked at field by field."""

    TEXT = "what somebody wrote: masked, the keys of objects too"
    VALUES = "an object whose keys are names of fields: its values are masked"
    WORD = "a word, or words by their counts: masked where it is none of WORDS, and numbers never"
    NAME = "a name that somebody chose: refused where a secret stands in it, and never rewritten"
    WHO = "a name of somebody or something that there is: refused where a secret of the runtime's own is a part of it"
    MADE = "made here: left alone"


Kinds = dict[str, Kind]


def _are(texts: str = "", names: str = "", values: str = "", words: str = "", who: str = "") -> Kinds:
    every = ((Kind.TEXT, texts), (Kind.NAME, names), (Kind.VALUES, values), (Kind.WORD, words), (Kind.WHO, who))
    return {field: kind for kind, fields in every for field in fields.split()}


KINDS: dict[type[Struct], Kinds] = {
    # what a message is made of
    content.Text: _are("text extra"),
    content.Thinking: _are("thinking signature extra", words="provider"),
    content.Image: _are("media_type data url"),
    content.File: _are("media_type name data url file_id"),
    content.ToolCall: _are("id invalid extra", values="input"),
    content.Native: _are("block text", words="provider"),
    content.Usage: _are(words="extra"),
    content.Failure: _are("message", words="code"),
    model.ModelAnswer: _are("parts model response_id stop_sequence request_id", words="stop_reason"),
    stream.MessageStop: _are("stop_sequence", words="stop_reason"),
    # what structures it
    model.ModelParams: _are(names="thinking stop_sequences tool_choice"),
    tool.ToolSpec: _are("description parameters"),
    tool.CallCheck: _are("problem"),
    image.ImageConfig: _are(
        "name description system_prompt metadata",
        names="model fallbacks tools params workspace policy budget degrade_to",
    ),
    policy.Policy: _are(names="name version rules profile allow also_allow deny profiles profile_tools"),
    policy.ToolPolicy: _are("reason", names="tool_patterns name", who="allowed_scopes allowed_principals"),
    policy.ModelPolicy: _are("reason", names="model_patterns name", who="allowed_scopes"),
    policy.ConstraintPolicy: _are("reason", names="name"),
    policy.Profile: _are(names="name tools"),
    budget.Budget: _are(names="degrade_to", who="scope_id principal_id session_id"),
    session.Overrides: _are(names="model params policy fallbacks"),
    # asked of a session and its agent
    session.CreateSession: _are(names="session_id alias"),
    session.Send: _are("content", names="overrides"),
    session.CancelJob: _are("reason"),
    session.CloseSession: _are("reason"),
    agent.StopAgent: _are("reason"),
    agent.Interrupt: _are("reason"),
    agent.FailModel: _are("partial"),
    agent.SettleTool: _are("output", words="error_type"),
    agent.ProveTool: _are("output"),
    agent.StartTool: _are("problem"),
    agent.ResolveTool: _are("output"),
    # asked of a person, and what they say
    action.RequireAction: _are("metadata", names="key", values="payload"),
    action.ResolveAction: _are(values="resolution"),
    action.CancelAction: _are("reason"),
    # asked of images, containers and ledgers
    image.CreateImage: _are(names="session_id alias config"),
    image.AttachSession: _are(names="session_id"),
    container.SetPolicy: _are(names="policy"),
    ledger.SetBudget: _are(names="budget"),
    ledger.RecordUsage: _are(
        "metadata", names="entry kind run_id job_id provider model tool holder", who="principal_id session_id"
    ),
}
"""By the type of a command, or of what it holds. What is not named is made here."""

FIELDS = frozenset(
    (
        *("message", "options", "multiple", "min_length", "max_length", "max_files", "secret", "changes"),
        *("approved", "comment", "arguments", "always", "choice", "choices", "text", "files", "authenticated"),
    )
)
"""Fields of questions and answers: words of reenact's own, whatever somebody's secret is."""

_ERRORS = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.ReenactError)]

WORDS = frozenset(
    (
        *RETRYABLE | UNBILLED | {*NEVER, *STOP_ON, "internal", "crashed", "bad_response", "unpriced"},
        *("end_turn", "tool_use", "max_tokens", "stop_sequence", "refusal", "pause_turn", "context_exceeded"),
        *(
            "UnknownTool",
            "Interrupted",
            "BadArguments",
            "Timeout",
            "NotStarted",
            "Unshowable",
            "CancelledError",
            "SystemExit",
        ),
        *PROVIDERS,
        *(word for error in _ERRORS for word in (error.code, error.__name__)),
    )
)
"""Codes of failures, reasons of stops, types of errors and providers that are reenact's own, whatever somebody's secret
is: they decide what is done next."""

_CHOICES = ("choice", "choices", "secret", "changes")
"""What of an answer is compared with its question."""


def kinds_of(value: Struct) -> Callable[[str], Kind]:
    """What each field of a command, or of a struct in one, holds. Of any other struct every field is text."""
    kinds = KINDS.get(type(value))
    if kinds is None:
        return _made if isinstance(value, Command) or type(value) in MADE else _text
    return lambda field: kinds.get(field, Kind.MADE)


def names_within(value: Struct, field: str) -> Iterable[str]:
    """Which keys of an object of VALUES hold names again."""
    if isinstance(value, action.RequireAction):
        return {
            "choose": ("options",),
            "reauth": ("secret",),
            "input": ("min_length", "max_length"),
            "upload": ("max_files",),
        }.get(value.kind, ())
    return _CHOICES if isinstance(value, action.ResolveAction) else ()


def names_in(value: Any, kind: Kind = Kind.TEXT, field: str = "") -> Iterator[tuple[str, str, Kind]]:
    """The names that somebody chose in a command, or in a struct of one, each between the field that it stands in and
    whether it is a NAME or WHO."""
    if isinstance(value, str):
        if kind is Kind.NAME or kind is Kind.WHO:
            yield field, value, kind
    elif isinstance(value, Struct):
        kinds = kinds_of(value)
        for each in () if kind is Kind.MADE else value.__struct_fields__:
            inner, of = getattr(value, each), kinds(each)
            if of is Kind.VALUES and isinstance(inner, dict):
                within = names_within(value, each)
                for key, item in inner.items():
                    if key not in FIELDS:
                        yield from names_in(key, Kind.NAME, each)
                    yield from names_in(item, Kind.NAME if key in within else Kind.TEXT, each)
            else:
                yield from names_in(inner, of, each)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from names_in(each, kind, field)
    elif isinstance(value, dict):
        for pair in value.items():
            for each in pair:
                yield from names_in(each, kind, field)


def _made(field: str) -> Kind:
    return Kind.MADE


def _text(field: str) -> Kind:
    return Kind.TEXT


MADE: frozenset[type[Any]] = frozenset(
    (
        *(content.Cost, content.Tried, tool.Place, agent.Selection, session.Waking, session.Definition),
        *(budget.Amount, budget.Breach, budget.BudgetSpec, budget.Grant, budget.Raise, budget.Rate, budget.Terms),
        *(budget.CallLimit, budget.Price),
        *(ledger.Counted, cooldown.CooldownOpened, cooldown.CooldownEnded),
    )
)
"""What commands hold with no text of anybody's in it."""
