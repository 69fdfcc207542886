"""Who a caller is: a bearer token in, the context to act in out. Scope and principal come from here, nowhere else."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from typing import Protocol

from msgspec import Struct

from ..actors.clock import Clock, SystemClock
from ..events.action import is_reserved
from ..events.errors import BadInput, Unauthenticated
from ..events.secret import Secret
from .context import ExecutionContext

TOKEN_BYTES = 32
TOKENS_MAX = 100_000
LIFETIME_MAX_S = 100 * 366 * 24 * 3600
"""The longest life of a token that ends at all: a hundred years."""


class Authenticator(Protocol):
    """Tells who shows a token. Raises Unauthenticated, and says no more, whatever is wrong with it."""

    async def authenticate(self, token: str) -> ExecutionContext: ...


class Known(Struct, frozen=True, kw_only=True, rename="camel"):
    """A token as it is kept: its digest and whose it is. id: to revoke it by. expires_at: microseconds UTC or None."""

    id: str
    digest: str
    scope: str
    principal: str
    expires_at: int | None = None


class Tokens:
    """An authenticator over tokens that it issued: 256 bits of chance each, of which it keeps the digest only.

    `known` is what to store, and what a later process is given.
    """

    def __init__(self, known: Iterable[Known] = (), *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        kept = tuple(known) if isinstance(known, Iterable) else (known,)
        if not all(isinstance(each, Known) for each in kept):
            raise BadInput("known must be the tokens as `Tokens.known` has them.")
        for each in kept:
            _check_principal(each.principal)
        self._known = {each.digest: each for each in kept}

    @property
    def known(self) -> tuple[Known, ...]:
        """All tokens that were not revoked, as they are kept."""
        return tuple(self._known.values())

    def issue(self, *, scope: str, principal: str, lifetime_s: float | None = None) -> tuple[Secret, Known]:
        """A new token for a principal of a scope, to be handed over once, and how it is kept.

        There are no roles: who has it owns what its scope has, its limits and rules too. Do not give it to whoever
        should be held to them. Raises BadInput for a principal that reads like an agent's, a handler's or a terminal's.
        """
        ExecutionContext(scope_id=scope, principal_id=principal)  # raises what is wrong with them
        _check_principal(principal)
        if lifetime_s is not None and not (isinstance(lifetime_s, int | float) and 0 < lifetime_s <= LIFETIME_MAX_S):
            raise BadInput(
                f"lifetime_s must be a number above 0 and at most {LIFETIME_MAX_S:,}, not {ascii(lifetime_s)[:60]}."
            )
        if len(self._known) >= TOKENS_MAX:
            raise BadInput(f"There are {TOKENS_MAX:,} tokens already; revoke some.")
        token = secrets.token_urlsafe(TOKEN_BYTES)
        expires_at = None if lifetime_s is None else self._clock.now() + round(lifetime_s * 1_000_000)
        known = Known(
            id=secrets.token_hex(8), digest=digest_of(token), scope=scope, principal=principal, expires_at=expires_at
        )
        self._known[known.digest] = known
        return Secret(token, name="token"), known

    def revoke(self, token_id: str) -> bool:
        """Let a token be worth nothing from now on. False when there is none of this id."""
        for digest, known in list(self._known.items()):
            if known.id == token_id:
                del self._known[digest]
                return True
        return False

    async def authenticate(self, token: str) -> ExecutionContext:
        """The context of whoever shows this token. Raises Unauthenticated for one unknown, revoked or expired alike."""
        digest = digest_of(token)
        # Looked up by its digest, so how long it takes says nothing of the tokens there are.
        known = self._known.get(digest)
        if known is None or not hmac.compare_digest(known.digest, digest):
            raise Unauthenticated
        if known.expires_at is not None and known.expires_at <= self._clock.now():
            del self._known[digest]  # a clock that is set back does not bring it back
            raise Unauthenticated
        return ExecutionContext(scope_id=known.scope, principal_id=known.principal)


def _check_principal(principal: str) -> None:
    if is_reserved(principal):
        raise BadInput(
            f"The principal {principal[:60]!a} reads like that of an agent, a handler or a terminal: give another name."
        )


def digest_of(token: str) -> str:
    """What is kept of a token."""
    if not isinstance(token, str) or not token:
        raise Unauthenticated
    return "sha256:" + hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


__all__ = ["Authenticator", "Known", "Tokens"]
