"""What the log and the models know of a tool."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import force_setattr

from .frozen import frozen
from .message import digest, show_digest

EffectClass = Literal["read", "idempotent", "probeable", "unsafe"]
"""What may be done with a call in doubt: repeat it, repeat it with the same key, ask the world, ask a person."""

Approval = Literal["never", "ask"]

APPROVAL_TIMEOUT_S = 24 * 3600.0
"""How long a person may take to approve a call, unless its image says otherwise. What was approved must begin by then
too."""


class ToolSpec(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A tool as offered to a model and recorded in its container.

    parameters: JSON schema of the arguments, an object at its root. version: digest over everything a call depends on.
    source: where it comes from (`code`, a file's name, an MCP server).
    """

    name: str
    description: str
    parameters: dict[str, Any]
    effect: EffectClass = "unsafe"
    approval: Approval = "never"
    timeout_s: float = 60.0
    version: str = ""
    source: str = "code"


class Place(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """Where and with what a call would run, as far as it is not the tool's own business: what an approval covers.

    cwd: its working folder, empty for none. env: what the variables say that the tool depends on, by its own word; of a
    long one it is a digest, of a secret its name. sandbox: digest of the walls around it; empty for none, as it is here
    until there are any.
    """

    cwd: str = ""
    env: dict[str, str] = {}
    sandbox: str = ""

    def __post_init__(self) -> None:
        force_setattr(self, "env", frozen(self.env))


class CallCheck(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """What the edge found of one call before it may run: the tool's facts, or the problem that forbids it.

    problem: told to the model as an error result; the call is then never run. place: where it would run; needed where
    a person may have to be asked. arguments: their digest, as the log has it; empty where the call is to be decided,
    which takes it of what is recorded.
    """

    name: str
    effect: EffectClass = "unsafe"
    approval: Approval = "never"
    timeout_s: float = 60.0
    version: str = ""
    arguments: str = ""
    problem: str | None = None
    place: Place | None = None


def arguments_digest(arguments: object) -> str:
    """Digest over a call's arguments, plain JSON values, whatever the order of their keys."""
    return show_digest(digest(msgspec.json.encode(arguments, order="deterministic")))
