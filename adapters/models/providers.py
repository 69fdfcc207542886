"""The providers by name: `provider:model` taken apart, the variables with their keys, and one adapter of each.

Nothing here loads an SDK; an adapter's own module does, at its first call.
"""

from __future__ import annotations

import asyncio
import hashlib
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
    provider, colon, model = name.partition(":")
    known = ", ".join(PROVIDERS)
    if not colon or not model.strip():
        raise BadInput(f"the model {name!r} is not of the form provider:model; the providers are {known}")
    _check_plain(name)
    if provider not in PROVIDERS:
        raise BadInput(f"there is no provider {provider!r} (in {name!r}); the providers are {known}")
    if provider == "scripted":
        from .script import script_for

        script_for(model)
    return ModelName(provider, model)


def _check_plain(name: str) -> None:
    """Raises BadInput for a name with something unseen in it, or spaces around one of its parts: a rule that names the
    model would be about another."""
    if not name.isprintable() or any(part != part.strip() for part in name.partition(":")):
        raise BadInput(f"the model {ascii(name)[:80]} has spaces around its name, or characters that nobody sees")


def credentials_for(provider: str, environ: Mapping[str, str]) -> Credentials:
    """What the environment says of a provider; what is missing or blank is None. An unknown provider has none."""
    return all_credentials_for(provider, environ)[0]


def all_credentials_for(provider: str, environ: Mapping[str, str]) -> tuple[Credentials, ...]:
    """As `credentials_for`, once for each key: that of the usual variable first, then those of the same name in the
    plural (`ANTHROPIC_API_KEYS`), which has several with commas between. Never empty."""
    found = PROVIDERS.get(provider)
    if found is None or found.key_variable is None:
        return (Credentials(),)
    base_url = (environ.get(found.base_url_variable, "").strip() or None) if found.base_url_variable else None
    one, several = environ.get(found.key_variable, ""), environ.get(f"{found.key_variable}S", "")
    keys = dict.fromkeys(key for each in (one, *several.split(",")) if (key := each.strip()))
    return tuple(Credentials(api_key=key, base_url=base_url) for key in keys) or (Credentials(base_url=base_url),)


def label_of(credentials: Credentials) -> str | None:
    """A short digest that tells keys apart in a log and gives none of them away; where there is no key, of the address
    as a whole, for the password and the query in it are a key too; None where there is neither.

    That of a key is keyed by where the key is used, so that one key in two places is two.
    """
    key, address = (
        each.encode("utf-8", "surrogatepass") for each in (credentials.reveal(), credentials.base_url or "")
    )
    if key:
        place = hashlib.blake2b(address, digest_size=32, person=b"reenact key").digest()
        return hashlib.blake2b(key, key=place, digest_size=4).hexdigest()
    where = address.strip()
    return hashlib.blake2b(where, digest_size=4, person=b"reenact address").hexdigest() if where else None


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
        provider, _, model = name.partition(":")
        if provider in self._given and model.strip():
            _check_plain(name)
            return ModelName(provider, model)
        return model_for(name)

    def is_name(self, name: str) -> bool:
        """Whether it is the name of a model, as `parse` takes it."""
        try:
            self.parse(name)
        except BadInput:
            return False
        return True

    async def aclose(self) -> None:
        """Close the connections of every adapter; each makes new ones when it is used again."""
        closers = [adapter.aclose() for adapter in self._adapters.values() if hasattr(adapter, "aclose")]
        await asyncio.gather(*closers)
