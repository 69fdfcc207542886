"""The keys of providers: those that came with a run, else those of its tenant. None is used before it is hidden."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..adapters.models import all_credentials_for
from ..environment import EnvironmentSpec
from ..events.errors import BadInput
from ..events.model import Credentials
from ..flow.kernel import Kernel, Who

Given = Credentials | Mapping[str, Any]
Provide = Callable[[str, EnvironmentSpec], Given | Sequence[Given] | None]
"""Gives the credentials for a provider, per call, one or several; what it gives is never stored."""


def from_environment(provider: str, spec: EnvironmentSpec) -> tuple[Credentials, ...]:
    """The default credentials: the provider's usual environment variables, read at every call.

    `ANTHROPIC_API_KEYS` and its like hold several keys, with commas between.
    """
    return all_credentials_for(provider, os.environ)


class ProviderKeys:
    """provide: gives those of a tenant, asked at every call."""

    def __init__(self, kernel: Kernel, provide: Provide | None) -> None:
        self._kernel = kernel
        self._vault = kernel.vault
        self._provide = provide or from_environment

    def known(self, provider: str, spec: EnvironmentSpec) -> tuple[Credentials, ...]:
        """The credentials for a provider: those that came with the run, for as long as it is in this process; else
        those of the tenant.
        """
        given = self._kernel.runs.credentials(spec.session_id, provider)
        who = Who(spec.scope, spec.principal)
        return given or self.hidden(provider, credentials_of(self._provide(provider, spec)), who)

    def addresses(self, provider: str, spec: EnvironmentSpec) -> tuple[str | None, ...]:
        """Where calls with the keys of the tenant go, None for the provider's own; what is wrong is told at a call."""
        try:
            return tuple({each.base_url: None for each in credentials_of(self._provide(provider, spec))})
        except Exception:
            return (None,)

    def hidden(self, provider: str, given: Iterable[Credentials], who: Who) -> tuple[Credentials, ...]:
        """The same, known to the vault from now on: what they hold is in no event and no message of their scope."""
        return tuple(self._vault.given(provider, each, scope=who.scope, principal=who.principal) for each in given)


def credentials_of(given: Given | Sequence[Given] | None) -> tuple[Credentials, ...]:
    """What a provider of credentials gave, as credentials; one without anything in it where it gave nothing.

    Raises BadInput, which does not show it, for anything else.
    """
    if given is None:
        return (Credentials(),)
    if isinstance(given, Credentials | Mapping):
        return (_one(given),)
    if isinstance(given, list | tuple) and all(isinstance(each, Credentials | Mapping) for each in given):
        return tuple(_one(each) for each in given) or (Credentials(),)
    raise BadInput(
        f"credentials must give a Credentials, a mapping, a list of them or None, not a {type(given).__name__}."
    )


def _one(given: Given) -> Credentials:
    if isinstance(given, Credentials):
        return given
    key: Any = given.get("api_key", given.get("apiKey"))
    return Credentials(api_key=key, base_url=given.get("base_url", given.get("baseUrl")))
