"""What may be shown of a call's parameters to whoever reads an audit: no secrets, nothing long. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

HIDDEN = "[redacted]"

TEXT_CHARS = 200
ITEMS_MAX = 50
DEPTH_MAX = 8
"""Of a text, of a list or an object, and how many of them within each other. What is beyond is counted, not shown."""

_SECRET = frozenset(
    (
        *("password", "passwd", "passphrase", "pwd", "pass", "pin", "otp", "cvv", "cvc", "ssn", "secret", "secrets"),
        *("token", "authorization", "authentication", "auth", "bearer", "jwt", "pat", "apikey", "dsn"),
        *("credential", "credentials", "cookie", "cookies"),
    )
)
_SECRET_KEYS = frozenset(("api", "private", "access", "signing", "encryption", "secret", "session", "ssh", "license"))
"""Words that make a following `key` a secret: `api_key`, `privateKey`, `aws-access-key-id`."""

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+")
_SECRET_VALUE = re.compile(
    r"(?i:bearer|basic|token)\s+[\w+/=.~-]{8,}"
    r"|\b(?:sk|pk|rk|ghp|gho|ghs|ghu|github_pat|glpat|xox[abprs]|npm|hf)[-_][\w-]{10,}"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{12,}"
    r"|\bAIza[\w-]{30,}"
    r"|\beyJ[\w-]{8,}(?:\.[\w-]*)*"
    r"|-----BEGIN[ A-Z]+-----(?s:.*?)(?:-----END[ A-Z]+-----|\Z)"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)


def redacted(value: Any) -> Any:
    """The same value, fit to be shown: JSON values in, JSON values out.

    Hidden: whatever stands under a key that names a secret (`password`, `accessToken`, `x-api-key`), and what looks
    like one within a text (bearer tokens, keys of well-known makes, private keys, passwords in URLs). Long texts are
    cut, and say how long they were. Told by names and looks, so a secret with neither stays in sight.
    """
    return _shown(value, 0)


def _shown(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        if depth >= DEPTH_MAX:
            return f"({len(value)} fields)"
        shown: dict[str, Any] = {}
        for number, (key, item) in enumerate(value.items()):
            if number == ITEMS_MAX:
                shown["…"] = f"({len(value) - ITEMS_MAX} more)"
                break
            key = str(key)
            empty = item is None or item == "" or isinstance(item, bool)
            shown[_text(key)] = HIDDEN if not empty and names_secret(key) else _shown(item, depth + 1)
        return shown
    if isinstance(value, list | tuple):
        if depth >= DEPTH_MAX:
            return f"({len(value)} items)"
        items = [_shown(item, depth + 1) for item in value[:ITEMS_MAX]]
        if len(value) > ITEMS_MAX:
            items.append(f"({len(value) - ITEMS_MAX} more)")
        return items
    return value


KEYS_MAX = 4_096
"""Names of fields of which it is remembered whether they hold a secret."""


@lru_cache(KEYS_MAX)
def names_secret(key: str) -> bool:
    """Whether a field of this name holds a secret: `api_key`, `apiKey` and `X-API-Key` do, `max_tokens` does not."""
    words = [word.lower() for word in _WORDS.findall(key[:TEXT_CHARS])]
    if not _SECRET.isdisjoint(words):
        return True
    return any(
        word in ("key", "keys") and place > 0 and words[place - 1] in _SECRET_KEYS for place, word in enumerate(words)
    )


def _text(text: str) -> str:
    # Secrets are looked for before the cut, or half of one could stay; and not in megabytes of text.
    shown = _SECRET_VALUE.sub(HIDDEN, text[: 4 * TEXT_CHARS])
    if len(text) > TEXT_CHARS:
        return f"{shown[:TEXT_CHARS]}… ({len(text)} characters)"
    return shown
