"""The providers by name: `provider:model` taken apart, the variables with their keys, and one adapter of each.

Nothing here loads an SDK; an adapter's own module does, at its first call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

from ...events.errors import BadInput
from ...events.model import Credentials, Model


class ModelName(NamedTuple):
    """A model string taken apart. Two names joined by the first colon; a model's own name may hold more of them."""

    provider: str
    model: str


class Provider(NamedTuple):
    """Where a provider's adapter is (module and name, called without arguments), and the variables that say how."""

    module: str
    adapter: str
    key_variable: str | None
    base_url_variable: str | None = None


PROVIDERS: dict[str, Provider] = {
    "anthropic": Provider(".anthropic", "Anthropic", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"),
    "openai": Provider(".openai", "OpenAIResponses", "OPENAI_API_KEY", "OPENAI_BASE_URL"),
    "openai-chat": Provider(".openai", "OpenAIChat", "OPENAI_API_KEY", "OPENAI_BASE_URL"),
    "google": Provider(".openai", "google", "GOOGLE_API_KEY"),
    "scripted": Provider(".scripted", "Scripted", None),
}


def model_for(name: str) -> ModelName:
    """Take `provider:model` apart and see that it can be used: a known provider, a script that is there and reads well.

    Raises `BadInput` saying what is wrong, with the providers there are.
    """
    provider, colon, model = name.strip().partition(":")
    known = ", ".join(PROVIDERS)
    if not colon or not model.strip():
        raise BadInput(f"the model {name!r} is not of the form provider:model; the providers are {known}")
    if provider not in PROVIDERS:
        raise BadInput(f"there is no provider {provider!r} (in {name!r}); the providers are {known}")
    if provider == "scripted":
        from .script import script_for

        script_for(model.strip())
    return ModelName(provider, model.strip())


def credentials_for(provider: str, environ: Mapping[str, str]) -> Credentials:
    """What the environment says of a provider; what is missing or blank is None. An unknown provider has none."""
    found = PROVIDERS.get(provider)

    def value(variable: str | None) -> str | None:
        return (environ.get(variable, "").strip() or None) if variable else None

    if found is None:
        return Credentials()
    return Credentials(api_key=value(found.key_variable), base_url=value(found.base_url_variable))


class Models:
    """One adapter a provider, made at its first use, shared by all calls. `given` adds or replaces adapters by name."""

    def __init__(self, given: Mapping[str, Model] | None = None) -> None:
        self._adapters: dict[str, Any] = dict(given or {})
        self._given = frozenset(self._adapters)

    def get(self, provider: str) -> Model:
        """The provider's adapter. Raises `BadInput` when there is no such provider."""
        adapter = self._adapters.get(provider)
        if adapter is None:
            if provider not in PROVIDERS:
                raise BadInput(f"there is no provider {provider!r}; the providers are {', '.join(PROVIDERS)}")
            module, made_by, *_ = PROVIDERS[provider]
            adapter = self._adapters[provider] = getattr(import_module(module, __package__), made_by)()
        model: Model = adapter
        return model

    def parse(self, name: str) -> ModelName:
        """As `model_for`; a provider whose adapter was given takes any name."""
        provider, _, model = name.strip().partition(":")
        if provider in self._given and model.strip():
            return ModelName(provider, model.strip())
        return model_for(name)

    async def aclose(self) -> None:
        """Close the connections of every adapter; each makes new ones when it is used again."""
        closers = [adapter.aclose() for adapter in self._adapters.values() if hasattr(adapter, "aclose")]
        await asyncio.gather(*closers)
