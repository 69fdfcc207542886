"""The looks of secrets that nobody registered: patterns by name, those that come with reenact and those of a user.

A pattern of a user's is held to a bound, in what it may match and in how long looking for it may take.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec import Struct

from ..events.errors import BadInput
from ..events.secret import mask

WIDTH_MAX = 512
"""Most characters that a pattern of a user's may match."""

PATHS_MAX = 5_000
"""In how many ways a pattern of a user's may be tried at one place of a text: what bounds the time it takes."""

HEADS = 64
"""Places of a text where a key might begin that are looked at one by one, and one more every 16 bytes; where there are
more of them the whole text is searched, which is quicker then."""


class Pattern(Struct, frozen=True, kw_only=True, eq=False):
    """name: shown in the place of what it matches. open: matches the end of a text that may go on to be a match.
    window: for one without `open`, the most characters that a match has. check: says of a match whether it is one.
    """

    name: str
    regex: re.Pattern[str]
    open: str | None = None
    window: int = 0
    check: Callable[[str], bool] | None = None

    def sub(self, text: str, start: int = 0) -> str:
        """The text with every match from `start` on masked. What is masked already stays as it is."""
        if not start:
            return self.regex.sub(self._masked, text)
        shown, at = [text[:start]], start
        for match in self.regex.finditer(text, start):  # it looks behind `start` where it wants to
            shown += (text[at : match.start()], self._masked(match))
            at = match.end()
        return "".join((*shown, text[at:]))

    def masks(self, match: re.Match[str]) -> bool:
        """Whether it is one, and not masked already."""
        return "[secret" not in match[0] and (self.check is None or self.check(match[0]))

    def _masked(self, match: re.Match[str]) -> str:
        return mask(self.name) if self.masks(match) else match[0]


def _luhn(text: str) -> bool:
    """Whether the digits are those of a payment card."""
    digits = [int(each) for each in text if each.isdigit()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    doubled = (digit if place % 2 == 0 else digit * 2 for place, digit in enumerate(reversed(digits)))
    return sum(digit - 9 if digit > 9 else digit for digit in doubled) % 10 == 0


def _begun(*words: str) -> str:
    """A regular expression for every beginning of these words, the words themselves among them."""
    return "|".join(sorted({re.escape(word[:end]) for word in words for end in range(1, len(word) + 1)}, key=len))


# A key stands at the beginning of a word, so that none is seen within the base64 of a picture or a signature.
_START = r"(?<![\w-])"
_KEYS = {  # how each begins, and how it goes on
    "sk-": r"[A-Za-z0-9_-]{16,}",
    "sk_": r"(?:live|test)_[A-Za-z0-9]{10,}",
    "rk_": r"(?:live|test)_[A-Za-z0-9]{10,}",
    "ghp_": r"[A-Za-z0-9]{20,}",
    "gho_": r"[A-Za-z0-9]{20,}",
    "ghs_": r"[A-Za-z0-9]{20,}",
    "ghu_": r"[A-Za-z0-9]{20,}",
    "ghr_": r"[A-Za-z0-9]{20,}",
    "github_pat_": r"\w{20,}",
    "glpat-": r"[\w-]{16,}",
    "xoxa-": r"[\w-]{10,}",
    "xoxb-": r"[\w-]{10,}",
    "xoxp-": r"[\w-]{10,}",
    "xoxr-": r"[\w-]{10,}",
    "xoxs-": r"[\w-]{10,}",
    "npm_": r"[A-Za-z0-9]{30,}",
    "hf_": r"[A-Za-z0-9]{30,}",
    "AKIA": r"[0-9A-Z]{16}(?![0-9A-Za-z])",
    "ASIA": r"[0-9A-Z]{16}(?![0-9A-Za-z])",
    "AIza": r"[\w-]{35}",
    "eyJ": r"[\w-]{8,}\.eyJ[\w-]{4,}\.[\w-]*",
}

KEY_LIKE = (
    Pattern(
        name="private_key",
        regex=re.compile(r"-----BEGIN[ A-Z0-9]*PRIVATE KEY[ A-Z]*-----(?s:.*?)(?:-----END[ A-Z0-9]*-----|\Z)"),
        open=rf"(?:-{{1,5}}|-----(?:{_begun('BEGIN')})|-----BEGIN(?:(?!-----END[ A-Z0-9]*-----)(?s:.))*)\Z",
    ),
    Pattern(
        name="url_password",
        regex=re.compile(r"(?<=://)[^/\s:@]{0,256}:[^/\s@]{1,512}(?=@)"),
        open=r":(?:/(?:/[^/\s@]*)?)?\Z",
    ),
    Pattern(
        name="bearer",
        regex=re.compile(r"(?<!\w)(?:[Bb]earer|BEARER)\s+[\w+/=.~-]{16,}"),
        open=rf"(?<!\w)(?:{_begun('bearer', 'Bearer', 'BEARER')}|(?:[Bb]earer|BEARER)\s+[\w+/=.~-]*)\Z",
    ),
    Pattern(
        name="api_key",
        regex=re.compile(_START + rf"(?:{'|'.join(re.escape(begin) + rest for begin, rest in _KEYS.items())})"),
        open=rf"{_START}(?:{_begun(*_KEYS)}|(?:{'|'.join(map(re.escape, _KEYS))})[\w.-]*)\Z",
    ),
)
"""On unless they are turned off: what looks like a key, and hardly like anything else."""

PERSONAL = (
    Pattern(
        name="email",
        regex=re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}"),
        open=r"(?<![\w.+-])[\w.+@-]{1,320}\Z",
    ),
    Pattern(
        name="ssn",
        regex=re.compile(r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\d-])"),
        open=r"(?<![\d-])[\d-]{1,11}\Z",
    ),
    Pattern(
        name="card",
        regex=re.compile(r"(?<![\d-])\d(?:[ -]?\d){12,18}(?!\d)"),
        open=r"(?<![\d-])\d(?:[ -]?\d){0,18}[ -]?\Z",
        check=_luhn,
    ),
)
"""Off unless they are named: what people have, and talk about."""

PATTERNS = {pattern.name: pattern for pattern in (*KEY_LIKE, *PERSONAL)}

_DEFAULT = frozenset(pattern.name for pattern in KEY_LIKE)


def patterns_of(wanted: Iterable[str] | Mapping[str, Any] | None) -> tuple[Pattern, ...]:
    """The patterns to look for.

    None: the key-like ones. Names: these and no others. A mapping: the key-like ones, with each name turned on (True),
    off (False), or given a regular expression of the user's own.

    Raises BadInput for a name that is not known, and for an expression that is none, has no bound, or takes too long.
    """
    if wanted is None:
        return KEY_LIKE
    if isinstance(wanted, str):
        raise BadInput(f"Patterns are names in a list, not the text {wanted[:60]!r}.")
    if not isinstance(wanted, Iterable):
        raise BadInput(f"Patterns are names in a list or an object, not {ascii(wanted)[:60]}.")
    asked: dict[Any, Any] = dict.fromkeys(_DEFAULT, True) if isinstance(wanted, Mapping) else {}
    asked |= dict(wanted) if isinstance(wanted, Mapping) else dict.fromkeys(wanted, True)
    own = []
    for name, value in asked.items():
        if isinstance(value, str | re.Pattern):
            own.append(pattern(name, value))
        elif name not in PATTERNS:
            raise BadInput(f"There is no pattern {str(name)[:60]!r}. There are: {', '.join(PATTERNS)}.")
        elif not isinstance(value, bool):
            raise BadInput(f"The pattern {name!r} is turned on by True, off by False, or given as a text.")
    return (*(each for name, each in PATTERNS.items() if asked.get(name) is True), *own)


def pattern(name: object, expression: str | re.Pattern[str]) -> Pattern:
    """A pattern of a user's own. Raises BadInput, saying what is wrong with it and what to write instead."""
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]{1,64}", name):
        raise BadInput(f"A pattern's name is 1 to 64 letters, digits, - and _, not {str(name)[:60]!r}.")
    text, flags = (expression, 0) if isinstance(expression, str) else (expression.pattern, expression.flags)
    try:
        compiled = re.compile(text, flags)
        parsed = _parser.parse(text, flags)
    except (re.error, RecursionError, OverflowError, TypeError, ValueError) as error:
        raise BadInput(f"The pattern {name!r} is no regular expression: {error}.") from None
    narrowest, widest = parsed.getwidth()
    if narrowest < 1 or widest > WIDTH_MAX:
        said = "nothing at all" if narrowest < 1 else f"more than {WIDTH_MAX} characters"
        raise BadInput(f"The pattern {name!r} may match {said}: write bounds such as {{8,64}} in place of * and +.")
    try:
        paths = _paths(parsed)
    except _TooMany as error:
        raise BadInput(f"The pattern {name!r} {error}.") from None
    if paths > PATHS_MAX:
        raise BadInput(
            f"The pattern {name!r} may be tried in more than {PATHS_MAX:,} ways at one place of a text, which takes too"
            " long: write fewer or narrower bounds."
        )
    return Pattern(name=name, regex=compiled, window=widest)


class _TooMany(Exception):
    pass


_parser: Any = re._parser  # type: ignore[attr-defined]
_ONE = {"LITERAL", "NOT_LITERAL", "ANY", "IN", "RANGE", "CATEGORY", "AT", "NEGATE"}


def _paths(parsed: Any) -> int:
    """An upper bound of the ways in which an expression may match from one place on."""
    paths = 1
    for operation, given in parsed:
        paths *= _ways(str(operation), given)
        if paths > PATHS_MAX:
            return paths
    return paths


def _ways(operation: str, given: Any) -> int:
    if operation in _ONE:
        return 1
    if operation == "SUBPATTERN":
        return _paths(given[3])
    if operation == "BRANCH":
        return sum(_paths(branch) for branch in given[1])
    if operation in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        least, most, inner = given
        if int(most) > WIDTH_MAX:
            raise _TooMany("repeats without a bound: write bounds such as {8,64} in place of * and +")
        each, total = _paths(inner), 0
        for times in range(int(least), int(most) + 1):
            total += min(each, PATHS_MAX + 1) ** min(times, 64)
            if total > PATHS_MAX:
                break
        return total
    if operation == "ATOMIC_GROUP":
        return _paths(given)
    if operation in ("ASSERT", "ASSERT_NOT"):
        return _paths(given[1])
    raise _TooMany(f"uses {operation.lower()}, which cannot be bounded")


# -- a quick look --

# How keys begin, told from the byte that is rarest in other texts: what stands before it, and how long that is.
_HEADS: tuple[tuple[bytes, int, frozenset[bytes]], ...] = (
    (b"_", 2, frozenset((b"sk", b"rk", b"hp", b"ho", b"hs", b"hu", b"hr", b"at", b"pm", b"hf"))),
    (b"-", 2, frozenset((b"sk", b"at", b"xa", b"xb", b"xp", b"xr", b"xs"))),
    (b"K", 1, frozenset((b"A",))),
    (b"S", 1, frozenset((b"A",))),
    (b"z", 2, frozenset((b"AI",))),
    (b"J", 2, frozenset((b"ey",))),
    (b"B", 2, frozenset((b"--",))),
)


def key_like(blob: bytes) -> bool:
    """Whether it is worth looking for key-like patterns in what these bytes hold. Quick, and never wrongly False."""
    most = HEADS + len(blob) // 16
    for byte, width, heads in _HEADS:
        at, looked = blob.find(byte), 0
        while at >= 0:
            if blob[at - width if at > width else 0 : at] in heads or looked == most:
                return True
            looked += 1
            at = blob.find(byte, at + 1)
    return (b"@" in blob and b"://" in blob) or b"earer" in blob or b"BEARER" in blob
