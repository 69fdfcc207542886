"""The keys of providers: those that came with a run, else those of its tenant. None is used before it is hidden."""

from __future__ import annotations

import os
from collections.abc import Iterable

from .adapters.models import all_credentials_for
from .environment import EnvironmentSpec
from .events.model import Credentials
from .fallover import Provide, credentials_of
from .kernel import Kernel


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
        given = self._kernel.credentials(spec.session_id, provider)
        return given or self.hidden(provider, credentials_of(self._provide(provider, spec)))

    def hidden(self, provider: str, given: Iterable[Credentials]) -> tuple[Credentials, ...]:
        """The same, known to the vault from now on: what they hold is in no event and no message."""
        return tuple(self._vault.given(provider, each) for each in given)
