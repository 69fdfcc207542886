"""The options that several commands share, each with its help."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Group, Parameter, Token

from .front import Front, Reading
from .output import Output

DATABASE = "sqlite:///reenact.db"
DATABASE_VARIABLE = "REENACT_DATABASE_URL"

STDIN = "\0stdin"
"""What a lone `-` is replaced with before the options are read, for they would take it for one of theirs."""

_MODEL = Group("Model", sort_key=2)
_PLACE = Group("Where and how", sort_key=3)


def whole(_: object, tokens: Sequence[Token]) -> int:
    """A whole number as people write it: of the digits 0 to 9, at most 18 of them."""
    text = tokens[0].value.strip()
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise ValueError(f"{text[:60]!a} is no whole number.")
    return int(text)


def check_scope(_: object, scope: str | None) -> None:
    """Raises ValueError for what is no scope."""
    if scope is not None and (not scope.strip() or len(scope) > 256 or not scope.isprintable()):
        raise ValueError(f"A scope is a text of 1 to 256 printable characters, not {scope[:60]!a}.")


@Parameter(name="*", group=_PLACE)
@dataclass(frozen=True)
class Common:
    db: Annotated[
        str,
        Parameter(env_var=DATABASE_VARIABLE, help="The log: sqlite:///file.db, sqlite:////folder/file.db, memory://"),
    ] = DATABASE
    scope: Annotated[
        str | None,
        Parameter(
            validator=check_scope,
            help="One tenant of the log. Without it reading commands show all, and `run`, `chat` and `resume` work in"
            " `default`: whoever has the file has all of it.",
        ),
    ] = None
    json: Annotated[
        bool,
        Parameter(
            negative="", show_default=False, help="One JSON object a line on stdout; everything else goes to stderr."
        ),
    ] = False

    def reading(self, front: Front, output: Output) -> AbstractContextManager[Reading]:
        """The log to be read, with its answers as they are wanted."""
        output.json = self.json
        return front.reading(self.db, scope=self.scope)


Policies = Annotated[
    tuple[str, ...],
    Parameter(
        name="--policy",
        negative="",
        show_default=False,
        help="A file of TOML with rules for what may be done, see `reenact policy check`. Again for more: none can give"
        " back what another takes. Without it a session keeps the policy that it was last run with; an empty file lifts"
        " that.",
    ),
]


FailoverFile = Annotated[
    str | None,
    Parameter(
        name="--failover",
        help="A file of TOML or JSON that says how long a model is waited for and how the next one is asked, with the"
        " keys timeout_s, silence_s, retries, rotations, attempts, stop_on, key_order, cooldowns. It holds for this"
        " command only.",
    ),
]


@Parameter(name="*", group=_MODEL)
@dataclass(frozen=True)
class Asking:
    model: Annotated[
        str | None,
        Parameter(
            name=["-m", "--model"],
            help="provider:model, with provider anthropic, openai (Responses), openai-chat (Chat Completions and"
            " compatible servers), google or scripted. Without it: the last model of the session, else the named"
            " image's, else $REENACT_MODEL, else the first of ANTHROPIC_API_KEY, OPENAI_API_KEY, GOOGLE_API_KEY that"
            " is set, else scripted:hello.",
        ),
    ] = None
    provider: Annotated[
        str | None, Parameter(name=["-p", "--provider"], help="-p openai -m gpt-5.5 is -m openai:gpt-5.5.")
    ] = None
    fallback: Annotated[
        tuple[str, ...],
        Parameter(
            negative="",
            show_default=False,
            help="provider:model to ask when the model does not answer. Again for more, in this order. What is named"
            " here and by --model is in the place of what the image names: nobody else is asked.",
        ),
    ] = ()
    failover: FailoverFile = None
    image: Annotated[
        str | None,
        Parameter(help="A name or an id. A new name makes an image, which keeps the model and the settings given."),
    ] = None
    session: Annotated[
        str | None,
        Parameter(
            name=["-s", "--session"],
            help="A name, an id, its beginning or its end, or `last`. A new name makes a session; without it the"
            " session is new and has no name.",
        ),
    ] = None
    tools: Annotated[
        tuple[str, ...],
        Parameter(
            name=["-t", "--tools"],
            negative="",
            show_default=False,
            help="A file of Python with @tool functions. It is run. Again for more files.",
        ),
    ] = ()
    policy: Policies = ()
    system: Annotated[str | None, Parameter(help="Instructions. The image of the session keeps them.")] = None
    max_tokens: Annotated[int | None, Parameter(converter=whole, help="Most tokens of an answer.")] = None
    temperature: Annotated[float | None, Parameter(help="0 to 2.")] = None
    thinking: Annotated[Literal["off", "low", "medium", "high"] | None, Parameter(help="How much to reason.")] = None

    @property
    def params(self) -> dict[str, object]:
        return {"maxTokens": self.max_tokens, "temperature": self.temperature, "thinking": self.thinking}
