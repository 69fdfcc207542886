"""The vault: the secrets that a runtime knows, and the one place where they are taken out of what enters its log.

Exact values in their common encodings are replaced by `[secret:name]`, and what looks like a key by its pattern's name.
What is written backwards, compressed, encrypted or spelled out is not recognised, nor what base64 broke over two lines.
A secret of one scope is looked for in the texts of that scope alone, so nobody finds out, or changes, anything of
another's by naming one. Only texts are masked, see `texts`.
"""

from __future__ import annotations

import base64
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from ..events.content import File, Image, Text
from ..events.errors import BadInput, Unrevealed
from ..events.message import Context
from ..events.model import Credentials
from ..events.payload import Payload
from ..events.secret import FLOOR_CHARS, SHORTEST_CHARS, Secret, mask
from . import shade
from .forms import FEW, Forms, Reach, Whose
from .patterns import KEY_LIKE, Pattern, key_like, patterns_of
from .texts import WORDS, Kind, kinds_of, names_in, names_within
from .variables import PLACEHOLDERS, is_of_provider, secrets_in, secrets_of, without_secrets

SECRETS_MAX = 100_000
"""Values that a runtime knows at a time. Beyond it the oldest of those that came with credentials are forgotten."""

LENT_MAX = 10_000
"""Tokens of questions that are looked for at a time. Beyond it the oldest are forgotten."""

COMMON_CHARS = 8
"""Characters of the shortest value of the runtime's own that is looked for in every scope."""

DIGITS_CHARS = 16
"""The same of one of digits alone, which are soon counted through."""

DIGITS_MAX = 64
"""Digits of the longest value that is looked for as a number, too."""

LONG_CHARS = 16
"""Characters of the shortest value of one scope that is hidden in messages of errors, which may go to any."""

SHORTEST_KEY = 15
"""Characters of the shortest text that looks like a key; a password in an address is told by its `@`."""

# What stands where a text was cut: in a provider's failure, in arguments that are no JSON, in what a tool returned.
_CUT = re.compile(r" \.\.\.\Z| \[\d+ bytes, |\n\[… \d+ bytes dropped …\]|…")
_CUTS = (b" ...", b" bytes, ", "…".encode())

_encode = msgspec.msgpack.Encoder().encode
_log = logging.getLogger("reenact")


def _is_none(name: str) -> bool:
    return False


class Vault:
    """Knows secrets by their value and hides them. `patterns`: see `patterns.patterns_of`. scope: the runtime's own.
    is_tool, is_model: whether a text is the name of one that there is; it may always be said in a rule.

    Used on the event loop's thread; `hidden` also from others.
    """

    def __init__(
        self,
        patterns: Iterable[str] | Mapping[str, Any] | None = None,
        *,
        scope: str = "default",
        is_tool: Callable[[str], bool] = _is_none,
        is_model: Callable[[str], bool] = _is_none,
    ) -> None:
        self._scope = scope
        self._is_tool, self._is_model = is_tool, is_model
        self.patterns: tuple[Pattern, ...] = patterns_of(patterns)
        self._always = any(pattern not in KEY_LIKE for pattern in self.patterns)
        self._keys = bool(self.patterns)
        self._named: dict[tuple[str, str], Secret] = {}
        self._handed: set[tuple[str, str]] = set()  # those in `_named` that people handed over
        self._known: dict[tuple[Whose, str], str] = {}  # whose, value -> the name that it is shown by
        self._given: dict[tuple[Whose, str], None] = {}  # values of credentials, oldest first
        self._numbers: dict[Whose, dict[bytes, str]] = {}  # whose -> encoded numbers, and the values that they are
        self._lent: dict[str, str] = {}  # a question -> the token that answers it, oldest first
        self._forms = Forms()
        self._masks = self._forms.masks
        self._found = self._forms.found
        self._key_like = tuple(pattern for pattern in self.patterns if pattern in KEY_LIKE)
        self._warned: set[tuple[str, str]] = set()  # by the names of providers and their variables, so there are few
        opens = [pattern.open for pattern in self.patterns if pattern.open is not None]
        self._open = re.compile("|".join(f"(?:{each})" for each in opens)) if opens else None
        self._window = max((pattern.window for pattern in self.patterns), default=0)

    # -- what is known --

    def add(self, name: str, value: str | Secret, *, scope: str = "default", common: bool = False) -> Secret:
        """Know a secret by a name, for the tools of a scope. The same name again: the new value; the old stays hidden.

        Its value is hidden whatever it looks like, in that scope; common: in every one, if it is not too short for it.
        Raises BadInput for a name that is no name, and for a value of less than FLOOR_CHARS characters, which could not
        be told from other text.
        """
        secret = self.hide(name, value, scope=scope, common=common)
        self._named[scope, name] = secret
        self._handed.discard((scope, name))
        return secret

    def hide(self, name: str, value: str | Secret, *, scope: str = "default", common: bool = False) -> Secret:
        """Know one, and hand it out to nobody. As `add`, otherwise."""
        if not isinstance(name, str) or not name.strip() or len(name) > 64 or not name.isprintable() or "]" in name:
            raise BadInput("A secret's name is 1 to 64 printable characters without `]`.")
        secret = Secret(value, name=name)
        if len(secret.reveal().strip()) < FLOOR_CHARS:
            raise BadInput(
                f"The secret {name!r} has less than {FLOOR_CHARS} characters: it could not be told from other text."
                " Use a longer one."
            )
        self._know(secret.reveal(), name, self._reach(secret.reveal()) if common else scope)
        return secret

    def environment(self, environ: Mapping[str, str], *, principal: str | None = None) -> None:
        """Know the values of variables: the keys of providers, and what `variables.secrets_in` takes for secrets.

        Tools get none of them by name. Those that the runtime's own scope or principal is called by are not looked for.
        """
        names = (self._scope, principal)
        for name, whole in environ.items():
            if is_of_provider(name):
                for value in whole.split(","):  # a variable may hold several
                    self._given_key(value.strip(), name, self._reach(value), names)
        for name, value in secrets_in(environ):
            if not self._is_name(value, name, names):
                self._know(value, name[:64].replace("]", ""), self._reach(value))

    def _reach(self, value: str) -> Whose:
        """Where a value of the runtime's own is looked for: everywhere, if nobody finds it by trying."""
        value = value.strip()
        least = DIGITS_CHARS if value.isdigit() else COMMON_CHARS
        return Reach.COMMON if len(value) >= least else self._scope

    def surroundings(self, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
        """An environment for a program that is started: `variables.without_secrets`, and nothing that holds a known
        value, those of less than SHORTEST_CHARS characters left aside: they may be a part of any path."""
        return {name: value for name, value in without_secrets(environ).items() if not self._is_long_in(value)}

    def _is_long_in(self, value: str) -> bool:
        found = self._found(value.encode("utf-8", "surrogatepass"), Reach.ALL)
        return any(len(form) >= SHORTEST_CHARS for form in found)

    def get(self, name: str, *, scope: str = "default") -> Secret | None:
        """The secret of a scope by its name, None where there is none."""
        return self._named.get((scope, name))

    def is_known(self, value: str, scope: str = "default") -> bool:
        """Whether a text is a secret of a scope, and nothing else."""
        value = value.strip()
        return (scope, value) in self._known or (Reach.COMMON, value) in self._known

    def is_handed(self, name: str, *, scope: str = "default") -> bool:
        """Whether a secret of a scope came from a person, in answer to a question."""
        return (scope, name) in self._handed

    def hand(self, name: str, value: str, *, scope: str = "default") -> None:
        """`add` what a person handed over."""
        self.add(name, value, scope=scope)
        self._handed.add((scope, name))

    def given(
        self, provider: str, credentials: Credentials, *, scope: str = "default", principal: str | None = None
    ) -> Credentials:
        """Know what credentials of a scope hold, before they are used, whatever it looks like.

        Of an address that is its password, and what in its query is named as secrets are and looks like one; nothing of
        its path.

        Not looked for are what servers without keys are given for one (`ollama`), and, of which a warning tells once,
        values of less than FLOOR_CHARS characters and what their scope or principal is called.
        """
        if credentials.api_key is None and credentials.base_url is None:
            return credentials
        known = [(credentials.reveal(), f"{provider}_key"), (credentials.password, f"{provider}_password")]
        address = credentials.base_url
        if address is not None and ("=" in address or "@" in address):
            known += ((value, f"{provider}_address") for value in secrets_of(address))
        for value, name in known:
            if not value or (Reach.COMMON, value) in self._known or (scope, value) in self._known:
                continue
            if self._given_key(value, name, scope, (scope, principal)):
                self._given[scope, value.strip()] = None
                if len(self._known) > SECRETS_MAX and self._given:
                    self._unknow(*next(iter(self._given)))
        return credentials

    def lend(self, question: str, token: str) -> None:
        """A token was given out that answers a question: hide it wherever it is said, until the question is over."""
        self.take_back(question)
        self._lent[question] = token
        self._forms.add(token, mask("resume_token"), Reach.COMMON)
        if len(self._lent) > LENT_MAX:
            self.take_back(next(iter(self._lent)))
        self.open()

    def take_back(self, question: str) -> None:
        """The question is over, or has another token: this one is worth nothing."""
        token = self._lent.pop(question, None)
        if token is not None:
            self._forms.remove(token, Reach.COMMON)

    def _given_key(self, value: str, name: str, whose: Whose, names: Sequence[str | None]) -> bool:
        """Know a provider's key. False where it is not looked for."""
        if not value or value.casefold() in PLACEHOLDERS or self._is_name(value, name, names):
            return False
        if len(value) < FLOOR_CHARS:
            self._warn(name, f"has less than {FLOOR_CHARS} characters: too few to be told from other text")
            return False
        self._know(value, name, whose)
        return True

    def _is_name(self, value: str, name: str, names: Sequence[str | None]) -> bool:
        """Whether a value is what somebody is called, in every event: there is nothing to hide."""
        if value.strip() not in names:
            return False
        self._warn(name, "is the name of its scope or principal, which stand in every event")
        return True

    def _warn(self, name: str, why: str) -> None:
        if (name, why) not in self._warned:
            self._warned.add((name, why))
            _log.warning("%s %s, so it is not hidden.", name, why)

    def _know(self, value: str, name: str, whose: Whose) -> None:
        value = value.strip()
        if self._known.get((whose, value)) == name:
            return
        self._known[whose, value] = name
        self._given.pop((whose, value), None)
        self._forms.add(value, mask(name), whose)
        if value.isdecimal() and len(value) <= DIGITS_MAX and str(int(value)) == value:
            self._count(value, whose)
        if len(value) >= LONG_CHARS and not value.isdigit():
            self._forms.add(value, mask(name), Reach.LONG)
        self.open()

    def _count(self, value: str, whose: Whose) -> None:
        """Know it as a number, too: it may be said as one in JSON."""
        numbers = self._numbers.setdefault(whose, {})
        for number in (int(value), float(value)):
            with suppress(OverflowError):  # one of more than 64 bits is looked at in any case
                numbers[_encode(number)] = value

    def _unknow(self, whose: Whose, value: str) -> None:
        del self._given[whose, value]
        del self._known[whose, value]
        self._forms.remove(value, whose)
        if value.isdecimal():
            numbers = self._numbers.get(whose, {})
            self._numbers[whose] = {code: each for code, each in numbers.items() if each != value}
        if self._forms.masks.get(value, {}).keys() == {Reach.LONG}:
            self._forms.remove(value, Reach.LONG)

    def open(self) -> None:
        """From now on messages of errors and lines of logs are without its secrets too, until `close`, or until nobody
        holds it: a runtime that was dropped and not closed leaves nothing behind."""
        shade.draw(self)

    def close(self) -> None:
        """Messages and lines are left alone again."""
        shade.lift(self)

    # -- what is hidden --

    def hidden(self, value: Any, scope: str = "default", *, refuse: bool = False) -> Any:
        """A command, or any value of plain data and structs, without the secrets of a scope: the very same object where
        it holds none. refuse: raises BadInput where one stands in a name, which is stored as it is.

        Raises `Unrevealed` for a `Secret` within it.
        """
        try:
            blob = _encode(value)
        except TypeError as error:
            if _holds_secret(value):
                raise Unrevealed from None
            raise BadInput(f"This cannot be stored: {error}.") from None
        except (UnicodeEncodeError, OverflowError, ValueError, RecursionError):
            return self._checked(value, scope, refuse)  # whoever stores it says what is wrong with it
        suspicious = self._suspicious(blob, scope) or (self._numbers and self._is_counted(blob, scope))
        return self._checked(value, scope, refuse) if suspicious else value

    def check_names(self, value: Struct, scope: str, before: Struct | None = None) -> None:
        """Raises BadInput where a secret of a scope stands in a name within a value, which is stored as it is.

        Who is meant may be called as a secret is, and have one in their name that is not the runtime's own.
        before: what the value is made from; a name that stands in it already was not chosen now.
        """
        known: set[str] | None = None
        for field, name, kind in names_in(value):
            who = kind is Kind.WHO
            if self._is_tool(name) or not self.is_in_name(name, Reach.COMMON if who else scope):
                continue
            if self.is_known(name, scope) and (who or self._is_model(name)):
                continue
            if known is None:
                known = set() if before is None else {each for _, each, _ in names_in(before)}
            if name not in known:
                raise BadInput(
                    f"There is a secret in a name, a rule or a setting ({field}), which are stored as they are."
                )

    def shown(self, data: Payload, context: Context) -> Payload:
        """The data of a request, or of what went wrong with it, as listeners hear it."""
        hidden = self.hidden(data, context.scope)
        return data if hidden is data else Payload(hidden)

    def holds(self, text: str, scope: str = "default") -> bool:
        """Whether there is a secret of a scope in a text."""
        return self._suspicious(_bytes(text), scope) and self.text(text, 0, scope) != text

    def is_in_name(self, text: str, scope: Whose = "default") -> bool:
        """Whether a name is a secret, or holds a longer one, or what looks like a key."""
        if any(len(form) >= SHORTEST_CHARS or form == text for form in self._found(_bytes(text), scope)):
            return True
        return any(pattern.sub(text) != text for pattern in self._key_like)

    def text(self, text: str, start: int = 0, scope: Whose = "default") -> str:
        """The text of a scope, its secrets from `start` on masked; what stands before is looked at and left alone."""
        if self._masks:
            found = self._found(_bytes(text), scope)
            if found:
                head, text = text[:start], text[start:]
                for form in found:
                    text = text.replace(form, self._forms.mask(form, scope) or mask(None))
                text = head + text
            if _CUT.search(text):
                text = self._whole(text, start, scope)
        for pattern in self.patterns:
            text = pattern.sub(text, start)
        return text

    def log_line(self, text: str) -> str:
        """A text that only the operator reads, without the secrets of any scope."""
        return self.text(text, 0, Reach.ALL)

    def message(self, text: str) -> str:
        """A text for whoever asked, in whatever scope: what nobody finds by guessing is masked."""
        return self.text(text, 0, Reach.LONG)

    def _whole(self, text: str, start: int, scope: Whose) -> str:
        """The text, from `start` on without beginnings of known values that were cut off by somebody else's bound."""
        for match in reversed(list(_CUT.finditer(text))):
            head = text[: match.start()]
            at = self._forms.begun(head, start, scope)
            if len(head) - at >= SHORTEST_CHARS:
                text = head[:at] + mask(None) + text[match.start() :]
        return text

    def begins(self, text: str, start: int = 0, scope: str = "default") -> int | None:
        """Where, from `start` on, the text's end may be the beginning of a secret, or is one that may go on.

        None: nowhere. A secret that is whole is never cut in two by it.
        """
        # What is masked before another pattern looks is so here too: a key may begin right behind a secret.
        cut, spans = self._forms.begun(text, start, scope), self._forms.spans(text, start, scope)
        shown = _filled(text, spans)
        for pattern in self.patterns:
            matches = list(pattern.regex.finditer(shown, start))
            spans += ((match.start(), match.end() + 1) for match in matches)  # one looks at what follows it, too
            over = (match.span() for match in matches if pattern.masks(match) and match.end() < len(text))
            shown = _filled(shown, over)
        cut = min(cut, self._open_from(shown, start))
        if cut >= len(text):
            return None
        while (earlier := min((begin for begin, end in spans if begin < cut < end), default=cut)) < cut:
            cut = earlier
        return cut

    def _open_from(self, text: str, start: int) -> int:
        """The first place from which on a pattern may go on to match; its size where there is none."""
        size = len(text)
        found = None if self._open is None else self._open.search(text, start)
        cut = size if found is None else found.start()
        return min(cut, max(start, size - self._window)) if self._window else cut

    def is_plain(self, text: str, before: str, scope: str = "default") -> bool:
        """Whether a piece of text may be shown at once: no secret is in it, and none begins. Asked of every delta.

        before: what was shown before it, in which none begins either.
        """
        size = len(text)
        long = size >= SHORTEST_KEY or (size >= self._forms.least and self._masks) or self._always or "@" in text
        if long and self.holds(text, scope):
            return False
        if self._forms.firsts or self._always:
            whole = before + text
            begun = self._forms.begun(whole, len(before), scope)
            return min(begun, self._open_from(whole, len(before))) >= len(whole)
        if self._open is None or not text:
            return True
        if text[-1] in " \n" and "---" not in text and "earer" not in text and "EARER" not in text:
            return True  # a key has no spaces in it; what has was named
        return self._open.search(before + text, len(before)) is None

    def _suspicious(self, blob: bytes, scope: str) -> bool:
        if self._always or (self._keys and key_like(blob)):
            return True
        if not self._masks:
            return False
        return bool(self._found(blob, scope)) or any(mark in blob for mark in _CUTS)

    def _is_counted(self, blob: bytes, scope: str) -> bool:
        """Whether there may be a number in it that is a known value."""
        for codes in (self._numbers.get(scope, {}), self._numbers.get(Reach.COMMON, {})):
            if len(codes) > FEW or any(code in blob for code in codes):
                return True
        return False

    def _checked(self, value: Any, scope: str, refuse: bool) -> Any:
        if refuse:
            self.check_names(value, scope)
        return self._walk(value, scope)

    def _walk(self, value: Any, scope: str, kind: Kind = Kind.TEXT) -> Any:
        """The value with what is text in it masked."""
        if isinstance(value, str):
            is_text = kind is Kind.TEXT or (kind is Kind.WORD and value not in WORDS)
            return self._masked(value, scope) if is_text else value
        if isinstance(value, int | float):
            return self._number(value, scope) if kind is Kind.TEXT and self._numbers else value
        if isinstance(value, Struct):
            if isinstance(value, Image | File):
                return self._file(value, scope)
            return self._struct(value, scope)
        if isinstance(value, tuple | list):
            items = [self._walk(item, scope, kind) for item in value]
            if all(after is before for after, before in zip(items, value, strict=True)):
                return value
            return tuple(items) if isinstance(value, tuple) else items
        if isinstance(value, dict):
            pairs = [
                (key, item, self._walk(key, scope, kind), self._walk(item, scope, kind)) for key, item in value.items()
            ]
            return _changed(value, pairs)
        if isinstance(value, Secret):
            raise Unrevealed
        return value

    def _struct(self, value: Struct, scope: str) -> Struct:
        kinds, changes = kinds_of(value), {}
        for name in value.__struct_fields__:
            before, kind = getattr(value, name), kinds(name)
            if kind is Kind.VALUES and isinstance(before, dict):
                after = self._values(before, scope, names_within(value, name))
            else:
                after = self._walk(before, scope, kind)
            if after is not before:
                changes[name] = after
        return replace(value, **changes) if changes else value

    def _values(self, value: dict[Any, Any], scope: str, names: Iterable[str]) -> dict[Any, Any]:
        """An object whose keys are names of fields, as they are. names: those whose values are names again."""
        pairs = []
        for key, item in value.items():
            shown = self._walk(item, scope, Kind.NAME if key in names else Kind.TEXT)
            pairs.append((key, item, self._walk(key, scope, Kind.NAME), shown))
        return _changed(value, pairs)

    def _number(self, value: float, scope: str) -> Any:
        """A number in what somebody wrote: a known value, or itself."""
        if isinstance(value, bool) or not 0 <= value < 10**DIGITS_MAX or int(value) != value:
            return value
        digits = str(int(value))
        for whose in (scope, Reach.COMMON):
            if (whose, digits) in self._known:
                return self._forms.mask(digits, scope)
        return value

    def _masked(self, text: str, scope: str) -> str:
        if not self._suspicious(_bytes(text), scope):
            return text
        hidden = self.text(text, 0, scope)
        return text if hidden == text else hidden

    def _file(self, part: Image | File, scope: str) -> Image | File | Text:
        """A picture or a document. Its bytes cannot be changed in part, so with a known value in them they go."""
        data = part.data
        if data is not None and self._masks:
            try:
                inside = base64.b64decode(data)
            except ValueError:
                inside = b""
            found = self._found(inside, scope) or self._found(_bytes(data), scope)
            if found:
                return Text(text=f"[a file was left out: {self._forms.mask(found[0], scope)} is in it]")
        changes = {
            name: after
            for name in part.__struct_fields__
            if name != "data"
            and (before := getattr(part, name)) is not None
            and (after := self.text(before, 0, scope)) != before
        }
        return replace(part, **changes) if changes else part


def _changed(value: dict[Any, Any], pairs: list[tuple[Any, Any, Any, Any]]) -> dict[Any, Any]:
    """An object with its keys and values as they are shown, the very same where nothing is hidden."""
    if all(key is shown and item is hidden for key, item, shown, hidden in pairs):
        return value
    return {shown: hidden for _, _, shown, hidden in pairs}


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _filled(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """The text with what a mask would end with in every place of these spans."""
    for begin, end in spans:
        text = f"{text[:begin]}{']' * (end - begin)}{text[end:]}"
    return text


def _holds_secret(value: Any) -> bool:
    if isinstance(value, Struct):
        return any(_holds_secret(getattr(value, name)) for name in value.__struct_fields__)
    if isinstance(value, dict):
        return any(_holds_secret(each) for pair in value.items() for each in pair)
    if isinstance(value, tuple | list | set | frozenset):
        return any(map(_holds_secret, value))
    return isinstance(value, Secret)


__all__ = ["COMMON_CHARS", "SECRETS_MAX", "Vault"]
