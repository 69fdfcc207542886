"""What is given to a runtime, as it may be stored: names, messages and their settings, definitions. Anything else is
refused by name, before anything is stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isfinite
from typing import Any

import msgspec
from msgspec import ValidationError

from .adapters.policy_file import policy_of
from .events.budget import spec_of
from .events.content import File, Image, InputPart, Text
from .events.errors import BadInput, ReenactError
from .events.image import ImageConfig
from .events.model import ModelParams
from .events.shape import convert, decoder
from .events.visible import shown

TEXT_MAX = 256
"""Most characters of a name or an id."""

FALLBACKS_MAX = 16
"""Most models that may take another's place."""

TIMEOUT_MAX_S = 366 * 24 * 3600
"""The longest time limit of a job: a year."""

CONTENT_MAX = 16 * 1024 * 1024
"""Most bytes of one input."""


def checked_text(value: object, name: str) -> str:
    """A name or an id as it may be stored. Raises BadInput, naming it, for anything else."""
    if not isinstance(value, str) or not value.strip() or len(value) > TEXT_MAX or not value.isprintable():
        raise BadInput(f"{name} must be a text of 1 to {TEXT_MAX} printable characters, not {shown(value)}.")
    return value


def check_id(value: object, name: str) -> None:
    """Raises BadInput for what is no text. Whether there is such a thing is another question."""
    if not isinstance(value, str):
        raise BadInput(f"{name} must be a text, not {shown(value)}.")


def check_wait(seconds: object, name: str) -> None:
    """Raises BadInput, naming it, for what is no time to wait: it is from 0 on, and may be without end."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not (0 <= seconds < 1e9 or seconds == inf):
        raise BadInput(f"{name} must be a number of seconds from 0 on, not {shown(seconds)}.")


def check_json(value: object, name: str, refuse: type[ReenactError] = BadInput) -> None:
    """Raises what it is told to, saying where, for what JSON has not and would be stored as something else: a number
    that is none, or a key that is no text.
    """
    try:
        left: list[tuple[str, object]] = [(name, msgspec.to_builtins(value))]
    except (TypeError, ValueError, OverflowError, RecursionError):
        return  # it cannot be stored at all, and is refused for that
    while left:
        where, each = left.pop()
        if isinstance(each, float) and not isfinite(each):
            raise refuse(f"{where} is {each}, which is no number that can be stored.")
        if isinstance(each, dict):
            for key in each:
                if not isinstance(key, str):
                    raise refuse(f"{where} has the key {shown(key)}, which is no text.")
            left += ((f"{where}[{key[:60]!r}]", inner) for key, inner in each.items())
        elif isinstance(each, list):
            left += ((f"{where}[{place}]", inner) for place, inner in enumerate(each))


def check_sending(params: object, priority: object, timeout_s: object) -> None:
    """Raises BadInput for settings of one message that cannot be stored or make no sense."""
    if isinstance(priority, bool) or not isinstance(priority, int) or not -1_000_000 <= priority <= 1_000_000:
        raise BadInput(f"priority must be a whole number from -1,000,000 to 1,000,000, not {shown(priority)}.")
    a_time = isinstance(timeout_s, int | float) and not isinstance(timeout_s, bool) and 0 < timeout_s <= TIMEOUT_MAX_S
    if timeout_s is not None and not a_time:
        raise BadInput(f"timeout_s must be above 0 and at most {TIMEOUT_MAX_S:,}, not {shown(timeout_s)}.")
    if params is not None:
        if not isinstance(params, ModelParams):
            raise BadInput(f"params must be ModelParams, not {shown(params)}.")
        check_params(params)


def fallbacks_of(given: object) -> tuple[str, ...]:
    """Models as a chain of fallbacks. Raises BadInput for what is no list of names, or too long a one."""
    if not isinstance(given, list | tuple) or not all(isinstance(model, str) for model in given):
        raise BadInput(f"fallbacks must be a list of models, not {shown(given)}.")
    if len(given) > FALLBACKS_MAX:
        raise BadInput(f"{len(given)} fallbacks are too many: at most {FALLBACKS_MAX}.")
    return tuple(dict.fromkeys(given))


def content_of(content: object) -> tuple[InputPart, ...]:
    """A message as parts: from a text, or from a list of parts (`type` text, image or file).

    Raises BadInput for anything else, for an empty message, for one of more than CONTENT_MAX bytes, and for texts that
    are no Unicode (lone surrogates) or hold U+0000.
    """
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if isinstance(content, Text | Image | File):
        content = [content]
    if not isinstance(content, list | tuple):
        raise BadInput(f"content must be a text or a list of parts, not {shown(content)}.")
    try:
        plain = [msgspec.to_builtins(part) if isinstance(part, msgspec.Struct) else part for part in content]
        parts = convert(plain, tuple[InputPart, ...])
        size = len(msgspec.json.encode(parts))
    except (ValidationError, TypeError, UnicodeEncodeError, ValueError) as error:
        raise BadInput(f"content cannot be read: {error}.") from None
    if size > CONTENT_MAX:
        raise BadInput(f"content has {size:,} bytes; at most {CONTENT_MAX:,} can be sent.")
    if not parts or all(isinstance(part, Text) and not part.text.strip() for part in parts):
        raise BadInput("content is empty.")
    for part in parts:
        if isinstance(part, Text) and "\0" in part.text:
            raise BadInput("content holds the character U+0000, which no model takes.")
    return parts


_CONFIG_NAMES = {
    "instructions": "systemPrompt",
    "system_prompt": "systemPrompt",
    "max_steps": "maxSteps",
    "approval_required": "approvalRequired",
    "approval_timeout_s": "approvalTimeoutS",
    "degrade_to": "degradeTo",
}
_PARAM_NAMES = {
    "maxTokens": "maxTokens",
    "max_tokens": "maxTokens",
    "temperature": "temperature",
    "thinking": "thinking",
    "stopSequences": "stopSequences",
    "stop_sequences": "stopSequences",
    "toolChoice": "toolChoice",
    "tool_choice": "toolChoice",
}


def config_of(changes: object, base: ImageConfig) -> ImageConfig:
    """A definition with these fields changed; the settings of a model may stand beside the others or in `params`.

    Raises BadInput for an unknown field or a value that does not fit.
    """
    if changes is None:
        return base
    if isinstance(changes, ImageConfig):
        check_config(changes)
        spec_of(changes.budget)
        return changes
    if not isinstance(changes, Mapping):
        raise BadInput(f"config must be an object, not {shown(changes)}.")
    known = {field.encode_name for field in msgspec.structs.fields(ImageConfig)} | {"mcpServers"}
    fields: dict[str, Any] = msgspec.to_builtins(base)
    params: dict[str, Any] = dict(fields["params"])
    for name, value in changes.items():
        if name in _PARAM_NAMES:
            params[_PARAM_NAMES[name]] = value
        elif name == "params":
            if not isinstance(value, Mapping):
                raise BadInput(f"params must be an object, not {shown(value)}.")
            for key, each in value.items():
                if key not in _PARAM_NAMES:
                    known_params = ", ".join(sorted(set(_PARAM_NAMES.values())))
                    raise BadInput(f"params has no field {shown(key)}. It has: {known_params}.")
                params[_PARAM_NAMES[key]] = each
        elif name == "budget":
            fields[name] = msgspec.to_builtins(spec_of(value))
        else:
            name = _CONFIG_NAMES.get(name, name)
            if name not in known:
                raise BadInput(f"An image has no field {name!r}. It has: {', '.join(sorted(known))}.")
            if name == "mcpServers":
                if value:
                    raise BadInput("MCP servers are not available in this release; give tools in Python instead.")
                continue
            if name == "policy" and value is not None:
                value = msgspec.to_builtins(policy_of(value))
            fields[name] = value
    fields["params"] = params
    try:
        config = convert(fields, ImageConfig)
    except (ValidationError, UnicodeEncodeError) as error:
        raise BadInput(f"The definition does not fit: {error}.") from None
    check_config(config)
    return config


def check_config(config: ImageConfig) -> None:
    """Raises BadInput for a definition that no model can work with, or that cannot be stored and read again."""
    _check_readable(config, "The definition")
    check_params(config.params)
    fallbacks_of(config.fallbacks)
    if config.max_steps < 1:
        raise BadInput(f"maxSteps must be at least 1, not {config.max_steps}.")
    if not 0 < config.approval_timeout_s <= TIMEOUT_MAX_S:
        wait_s = shown(config.approval_timeout_s)
        raise BadInput(f"approvalTimeoutS must be above 0 and at most {TIMEOUT_MAX_S:,}, not {wait_s}.")


def check_params(params: ModelParams) -> None:
    """Raises BadInput for settings no model can take."""
    _check_readable(params, "params")
    if params.max_tokens is not None and not 1 <= params.max_tokens <= 2**31:
        raise BadInput(f"maxTokens must be at least 1, not {shown(params.max_tokens)}.")
    if params.temperature is not None and not 0.0 <= params.temperature <= 2.0:
        raise BadInput(f"temperature must be from 0 to 2, not {shown(params.temperature)}.")
    if params.thinking is not None and params.thinking not in ("off", "low", "medium", "high"):
        raise BadInput(f"thinking must be off, low, medium or high, not {shown(params.thinking)}.")


def _check_readable(value: msgspec.Struct, name: str) -> None:
    """A program may put anything into a struct; what does not fit its field could be stored, and never read again."""
    try:
        decoder(type(value))(msgspec.msgpack.encode(value))
    except (ValidationError, TypeError, UnicodeEncodeError, OverflowError, RecursionError) as error:
        raise BadInput(f"{name} cannot be stored: {error}.") from None
