"""A call that waits for a person, what they say, and what is found of it when it starts."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from reenact.actors.profiles import resolve as resolved
from reenact.events.action import ResolveAction
from reenact.events.agent import StartTool
from reenact.events.policy import ModelPolicy, Policy, ToolPolicy
from reenact.events.tool import CallCheck, EffectClass, Place
from tests.actors.words import CREATE, DEFINITION, asks, send

NOW = 1_000_000
DAY = 24 * 3600 * 1_000_000
PLACE = Place(cwd="/srv/app", env={"LANG": "C"}, sandbox="sha256:box")


def check(effect: EffectClass = "unsafe", **fields: Any) -> CallCheck:
    fields.setdefault("approval", "ask")
    fields.setdefault("version", "v1")
    fields.setdefault("place", PLACE)
    fields.setdefault("arguments", "sha256:a")
    return CallCheck(name="refund", effect=effect, **fields)


def resolve(action: str = "a1", approved: bool = True, **more: Any) -> ResolveAction:
    fields = {name: more.pop(name) for name in ("digest", "by", "at", "bound", "switched") if name in more}
    return ResolveAction(
        action=action, resolution={"approved": approved, **more}, **{"at": NOW + 1, "by": "ann", **fields}
    )


def start(tool: str = "t1", **fields: Any) -> StartTool:
    """What the edge finds of the call, nothing changed unless said."""
    same: dict[str, Any] = {
        "attempt": 0,
        "at": NOW + 2,
        "version": "v1",
        "effect": "unsafe",
        "timeout_s": 60.0,
        "place": PLACE,
    }
    return StartTool(tool=tool, **{**same, **fields})


ASKED = (CREATE, send(), asks("m1", check()))
APPROVED = (*ASKED, resolve())


def under(*rules: Any) -> Any:
    return replace(DEFINITION, policy=resolved((Policy(name="production", version="3", rules=rules),)))


ASK = ToolPolicy(tool_patterns=("refund",), decision="require_approval", reason="Money.", name="pay")
ASK_MODEL = ModelPolicy(model_patterns=("scripted:*",), require_approval=True, name="big")
