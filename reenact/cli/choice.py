"""Which model answers, where the caller did not say all of it: `-m` and `-p`, then the environment."""

from __future__ import annotations

from collections.abc import Mapping

from ..adapters.models.providers import PROVIDERS, all_credentials_for
from ..events.errors import BadInput

MODEL_VARIABLE = "REENACT_MODEL"

USUAL = {
    "anthropic": "claude-sonnet-5-5",
    "openai": "gpt-5.5",
    "openai-chat": "gpt-5.5",
    "google": "gemini-3.8-flash",
    "scripted": "hello",
}
"""The model of a provider when none is named."""

SCRIPT = f"scripted:{USUAL['scripted']}"

KEY_HINT = (
    "no model was named and no key is set, so a script answers. Set ANTHROPIC_API_KEY or OPENAI_API_KEY,"
    f" or {MODEL_VARIABLE}, or name one with -m provider:model."
)


def model_named(model: str | None, provider: str | None) -> str | None:
    """`provider:model` from the two options, None where neither is given.

    A model that begins with its provider is whole. Raises BadInput where the two disagree, or for a provider there is
    not.
    """
    if provider is None:
        return model
    if provider not in PROVIDERS:
        raise BadInput(f"there is no provider {provider!r}; the providers are {', '.join(PROVIDERS)}")
    if model is None:
        return f"{provider}:{USUAL[provider]}"
    named = model.partition(":")[0] if ":" in model else None
    if named in PROVIDERS:
        if named != provider:
            raise BadInput(f"-p {provider} and -m {model} name two providers: leave one out")
        return model
    return f"{provider}:{model}"


def usual_model(environ: Mapping[str, str]) -> str:
    """What the environment suggests: the model it names, else that of the first provider with a key, else a script."""
    named = environ.get(MODEL_VARIABLE, "").strip()
    if named:
        return named
    for provider in ("anthropic", "openai", "google"):
        if all_credentials_for(provider, environ)[0].api_key:
            return f"{provider}:{USUAL[provider]}"
    return SCRIPT
