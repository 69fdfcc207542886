"""Variables of the environment: which of them hold secrets, and an environment without them for what is started.

A name says that its value is meant to be secret, not that it is one: `DB_PASSWORD=postgres`, `MAX_TOKENS=4096` and
`SORT_KEY=created_at` are words that stand in a thousand texts, and hiding them would garble every one. So a value is
taken for a secret by its name and its look: 8 characters or more, of which 5 differ, and neither a number nor plain
words.

Where the rule is from: 8 characters are what GitLab asks of a variable that it masks; gitleaks' rule for keys that no
vendor marks (`generic-api-key`) lets go of what is letters, `_`, `.` and `-` alone, and of common words. Keys and
tokens are made by machines and have digits among their letters, so plain words of any length are none. A password may
be chosen by a person, so plain words of 16 characters or more are a pass phrase, unless they are a path or an address.

What a program hands over (`Runtime.secret`, credentials, the variables of providers) is not judged by its look at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from .adapters.models.providers import PROVIDERS
from .events.secret import SHORTEST_CHARS
from .patterns import KEY_LIKE

DIFFERENT = 5
"""Characters of a secret that differ, at least: `xxxxxxxx` and `--------` are none."""

PHRASE_CHARS = 16
"""From so many characters on plain words are a pass phrase, and from so many digits on a number is a code."""

WORD_CHARS = 20
"""From so many characters without a break on nothing is a word."""

PLACEHOLDERS = frozenset(
    ("ollama", "lm-studio", "empty", "none", "null", "dummy", "test", "fake", "local", "not-needed", "no-key", "unused")
)
"""What servers that want no key are given for one, as their manuals say; whatever their case."""

_NAME = re.compile(
    r"(?i)(?:(?P<chosen>passwords?|passwd|passphrase|(?<![a-z])pass|secrets?|credentials?)"
    r"|keys?|tokens?|(?<![a-z])pat)$"
)
_OF_PROVIDERS = frozenset(
    variable for each in PROVIDERS.values() if (name := each.key_variable) for variable in (name, f"{name}S")
)
_BETWEEN = re.compile(r"[\s_\-./\\:,;<>]+")
_WORD = re.compile(r"([^\W\d_]+)\d{0,4}")
_HUMP = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_UNSPEAKABLE = re.compile(r"[bcdfghjklmnpqrstvwxz]{6}")
_PLACE = re.compile(r"(?:~|\.{0,2}|[A-Za-z]:)[/\\]|[a-z][a-z0-9+.-]*://")


def is_of_provider(name: str) -> bool:
    """Whether it is a variable that a provider's key is read from."""
    return name in _OF_PROVIDERS


def secrets_in(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Names and values of the variables that hold secrets, those of providers left out. A variable may hold several,
    with commas between: each comes by itself too."""
    for name, whole in environ.items():
        named = None if is_of_provider(name) else _NAME.search(name)
        if named is not None:
            for value in dict.fromkeys((whole, *whole.split(","))):
                if could_be_secret(value, chosen=named["chosen"] is not None):
                    yield name, value.strip()


def could_be_secret(value: str, *, chosen: bool) -> bool:
    """Whether a value looks like one that is kept secret. chosen: a person may have thought of it, says its name."""
    value = value.strip()
    if len(value) < SHORTEST_CHARS or len(set(value)) < DIFFERENT:
        return False
    parts = [part for part in _BETWEEN.split(value) if part]
    if all(part.isdecimal() for part in parts):
        return max(map(len, parts), default=0) >= PHRASE_CHARS
    if not _are_words(parts):
        return True
    return chosen and len(value) >= PHRASE_CHARS and _PLACE.match(value) is None


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment for a program that is started: without the keys of providers, without all that is named as secrets
    are, counts of tokens excepted, and without values that have a key or a password in them.

    What is left may still hold a secret that neither its name nor its look gives away.
    """
    return {
        name: value
        for name, value in environ.items()
        if not (is_of_provider(name) or _is_named(name, value) or _has_key(value))
    }


def _is_named(name: str, value: str) -> bool:
    named = _NAME.search(name)
    if named is None:
        return False
    return named["chosen"] is not None or not value.strip().isdecimal() or len(value.strip()) >= PHRASE_CHARS


def _has_key(value: str) -> bool:
    return any(pattern.sub(value) != value for pattern in KEY_LIKE)


def _are_words(parts: list[str]) -> bool:
    """Whether these are words and numbers as names are made of them: `my-app-2`, `claude-opus-4`, `createdAt`."""
    odd = 0
    for part in parts:
        word = _WORD.fullmatch(part)
        if len(part) >= WORD_CHARS or (word is not None and not _can_be_said(word[1])):
            return False
        if word is not None:
            continue
        if len(part) <= 3 and part.isalnum():
            odd += 1  # `4o`, `3d`
        elif not (part.isdecimal() and len(part) <= SHORTEST_CHARS):
            return False
    return 2 * odd <= len(parts)


def _can_be_said(word: str) -> bool:
    """Whether letters are a word rather than drawn by lot. Of other alphabets than the Latin nothing is known."""
    if not word.isascii():
        return True
    if len(word) >= SHORTEST_CHARS and len(word) < 3 * len(_HUMP.findall(word)):
        return False
    return _UNSPEAKABLE.search(word.lower()) is None


__all__ = ["PLACEHOLDERS", "could_be_secret", "is_of_provider", "without_secrets", "secrets_in"]
