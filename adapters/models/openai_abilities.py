"""What a model of OpenAI's kind takes, as far as its name and its host tell. Pure; sends nothing."""

from __future__ import annotations

import re
from typing import Any

_REASONING = re.compile(r"o[1-9](?:-|$)|gpt-[5-9](?!\d)(?!.*-chat)|codex-|computer-use")
_CHOOSES_NONE = re.compile(r"gpt-(?:5\.[1-9]|[6-9])(?!.*-(?:codex|pro|chat))")


def reasons(model: str) -> bool:
    """One of OpenAI's own reasoning models: it has an effort, encrypted reasoning, and no temperature."""
    return _REASONING.match(_bare(model)) is not None


def effort(model: str, thinking: str | None) -> str | None:
    """The reasoning effort to send for a thinking level (`off`, `low`, `medium`, `high`), None to send none.

    `off` is the least that the model has: not every one can be kept from thinking.
    """
    name = _bare(model)
    if thinking is None or not (reasons(model) or name.startswith(("gpt-oss", "gemini-"))):
        return None
    if "-pro" in name and name.startswith("gpt-5-"):
        return None  # it has one effort only
    if thinking != "off":
        return thinking
    if _CHOOSES_NONE.match(name) or name.startswith("gemini-2.5-flash"):
        return "none"
    if re.match(r"gpt-5(?:-mini|-nano|-\d|$)", name):
        return "minimal"
    return "low"


def takes_temperature(model: str, effort: str | None) -> bool:
    """Reasoning models refuse a temperature, unless they are told not to reason."""
    return not reasons(model) or effort == "none"


def thinking_fields(model: str, host: str, thinking: str | None) -> dict[str, Any]:
    """What asks a Chat Completions server for a thinking level: each has its own words, and most have none."""
    if thinking is None:
        return {}
    if host == "openrouter.ai":
        return {"reasoning": {"enabled": False} if thinking == "off" else {"effort": thinking}}
    if host in ("api.deepseek.com", "api.z.ai", "open.bigmodel.cn"):
        return {"thinking": {"type": "disabled" if thinking == "off" else "enabled"}}
    level = effort(model, thinking)
    return {} if level is None else {"reasoning_effort": level}


def _bare(model: str) -> str:
    """`openai/gpt-5.2` and `ft:gpt-4o-mini:acme::x` without what stands around the name."""
    name = model.lower().rpartition("/")[2]
    return name.split(":")[1] if name.startswith("ft:") else name
