"""Variables of the environment: which of them hold secrets, and an environment without them for what is started.

A name says that its value is meant to be secret, not that it is one: `DB_PASSWORD=postgres`, `MAX_TOKENS=4096` and
`SORT_KEY=created_at` are words that stand in a thousand texts, and hiding them would garble every one. So a value is
taken for a secret by its name and its look: 8 characters or more, of which 5 differ, and neither a number nor plain
words.

Where the rule is from: 8 characters are what GitLab asks of a variable that it masks; gitleaks' rule for keys that no
vendor marks (`generic-api-key`) lets go of what is letters, `_`, `.` and `-` alone, and of common words. Keys and
tokens are made by machines and have digits among their letters, so plain words of any length are none. A password may
be chosen by a person, so plain words of 16 characters or more are a pass phrase, unless they are a path or an address;
where the name says password outright, 8 are enough, unless they are what manuals and images come with (`postgres`,
`changeme`).

Some values are secret in parts, whatever their variable is called: the user and password of an address, the fields of
a connection string (`AccountKey=...;`) and those of JSON, each judged by its own name. Of the address of a webhook it
is what its path was drawn by lot for.

What a program hands over (`Runtime.secret`, credentials, the variables of providers) is not judged by its look at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from ..adapters.models.providers import PROVIDERS
from ..events.secret import SHORTEST_CHARS
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

USUAL = frozenset(
    """
    admin administrator change changeit changeme default demo development disabled dummy empty enabled enter example
    fake foobar guest here hidden insert keychain keyring letmein local localhost mariadb me mongodb my mysql none null
    optional pass passwd password placeholder please postgres postgresql production prompt qwerty rabbitmq redacted
    redis removed replace replaceme required root sample secret some staging superuser test tester testing the todo
    undefined unset user username welcome your
    """.split()  # noqa: SIM905
)
"""Words that passwords are made of which are none, with or without digits behind them."""

_NAME = re.compile(
    r"(?i)(?:(?P<chosen>(?P<password>passwords?|passwd|passphrase|(?<![a-z])pass|(?P<pwd>pwd))"
    r"|secrets?|credentials?|(?P<auth>(?<![a-z])auth))"
    r"|keys?|tokens?|(?<![a-z])pat|(?<![a-z])sig|(?<=access)signature)$"
)
_WEBHOOK = re.compile(r"(?i)webhooks?(?:_?(?:url|uri|address))?$")
_FOLDERS = ("PWD", "OLDPWD")
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
    with commas between or in its parts: each comes by itself too."""
    for name, whole in environ.items():
        if not is_of_provider(name):
            for value in dict.fromkeys((*_whole(name, whole), *_parts(name, whole))):
                yield name, value


def secrets_of(address: str) -> Iterator[str]:
    """What is secret in an address: its user and password, and the fields of its query, each judged by its own name; as
    it stands there, and without the percent signs. Not what stands in its path, which no name tells of."""
    for value in _parts("", address):
        yield from dict.fromkeys((value, unquote(value)))


def could_be_secret(value: str, *, chosen: bool, password: bool = False) -> bool:
    """Whether a value looks like one that is kept secret. chosen: a person may have thought of it, says its name.
    password: and says outright what it is."""
    value = value.strip()
    if len(value) < SHORTEST_CHARS or len(set(value)) < DIFFERENT:
        return False
    parts = [part for part in _BETWEEN.split(value) if part]
    if all(part.isdecimal() for part in parts):
        return max(map(len, parts), default=0) >= PHRASE_CHARS
    if not _are_words(parts):
        return True
    if _PLACE.match(value) is not None:
        return False
    if all(part.rstrip("0123456789").lower() in USUAL for part in parts if not part.isdecimal()):
        return False
    return password or (chosen and len(value) >= PHRASE_CHARS)


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment for a program that is started: without the keys of providers, without all that is named as secrets
    are, counts of tokens excepted, and without values that have a key or a password in them.

    What is left may still hold a secret that neither its name nor its look gives away.
    """
    return {
        name: value
        for name, value in environ.items()
        if not (is_of_provider(name) or _is_named(name, value) or _has_key(value) or any(_parts(name, value)))
    }


def _named(name: str) -> re.Match[str] | None:
    """What a variable's name says of its value."""
    return None if name.upper() in _FOLDERS else _NAME.search(name)


def _whole(name: str, value: str) -> Iterator[str]:
    """The value of a variable, and what stands in it between commas, where they are secret."""
    named = _named(name)
    if named is not None and not _is_elsewhere(named, value):
        for each in (value, *value.split(",")):
            if _is_secret(named, each):
                yield each.strip()


def _is_secret(named: re.Match[str], value: str) -> bool:
    return could_be_secret(value, chosen=named["chosen"] is not None, password=named["password"] is not None)


def _is_elsewhere(named: re.Match[str], value: str) -> bool:
    """Whether it says where something is, under a name that may be meant so: a folder, or who proves who one is."""
    return (named["pwd"] is not None or named["auth"] is not None) and _PLACE.match(value.strip()) is not None


def _is_named(name: str, value: str) -> bool:
    named = _named(name)
    if named is None or _is_elsewhere(named, value):
        return False
    if named["auth"] is not None:
        return any(_whole(name, value))
    return named["chosen"] is not None or not value.strip().isdecimal() or len(value.strip()) >= PHRASE_CHARS


# -- in parts --

_USERINFO = re.compile(r"(?<=://)([^/\s:@]{0,256})(?::([^/\s@]{1,512}))?@")
_FIELD = re.compile(r"\s*([\w .-]{1,80}?)\s*=\s*(.+?)\s*", re.DOTALL)
_TOKEN = re.compile(r"[\w-]+")
DEPTH_MAX = 16
"""How deep JSON in a variable is looked into."""


def _parts(name: str, value: str) -> Iterator[str]:
    """What is secret within a value: in an address, in the fields of a connection string or of JSON."""
    text = value.strip()
    if text[:1] in ("{", "["):
        try:
            yield from _in_json(json.loads(text), DEPTH_MAX)
            return
        except (ValueError, RecursionError):
            pass  # it only begins like that
    if "@" in text:
        for user, password in _USERINFO.findall(text):
            if len(user) >= PHRASE_CHARS and _TOKEN.fullmatch(user) and could_be_secret(user, chosen=False):
                yield user
            for each in dict.fromkeys((password, unquote(password))):
                if could_be_secret(each, chosen=True, password=True):
                    yield each.strip()
    if "=" in text:
        for field in text.split(";") if ";" in text else re.split(r"[\s&?]+", text):
            if (match := _FIELD.fullmatch(field)) is not None:
                yield from _in_field(match[1], match[2].strip("\"'"))
    if _WEBHOOK.search(name) and _PLACE.match(text):
        drawn = [part for part in re.split(r"[/?&=#]", text) if len(part) >= PHRASE_CHARS and "." not in part]
        drawn = [part for part in drawn if could_be_secret(part, chosen=False)]
        yield from (text, *drawn) if drawn else ()


def _in_field(name: str, value: str) -> Iterator[str]:
    named = _NAME.search(name)
    if named is not None and not _is_elsewhere(named, value) and _is_secret(named, value):
        yield value.strip()


def _in_json(value: Any, depth: int) -> Iterator[str]:
    if not depth:
        return
    if isinstance(value, dict):
        for name, each in value.items():
            if isinstance(each, str):
                yield from _in_field(name, each)
                yield from _parts("", each) if each.strip()[:1] not in ("{", "[") else ()
            else:
                yield from _in_json(each, depth - 1)
    elif isinstance(value, list):
        for each in value:
            yield from _in_json(each, depth - 1)


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


__all__ = ["PLACEHOLDERS", "USUAL", "could_be_secret", "is_of_provider", "without_secrets", "secrets_in", "secrets_of"]
