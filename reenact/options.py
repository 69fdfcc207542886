"""What a runtime may be made with: each option by name, what fits it, and how a refusal says it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping

from .adapters.models import Models, Retries
from .events.errors import BadInput

THREADS_MAX = 256
"""Most threads that decide and commit."""


def check_options(**given: object) -> None:
    """Raises BadInput for what a runtime cannot be made with. None stands for what is not given."""
    for name, value in given.items():
        fits, wanted = _FITS[name]
        if not (fits(value) or (value is None and name in _OPTIONAL)):  # its value may be a secret
            raise BadInput(f"{name} must be {wanted}, not a value of type {type(value).__name__}.")


def _has(*methods: str) -> Callable[[object], bool]:
    return lambda value: (
        not isinstance(value, type) and all(callable(getattr(value, method, None)) for method in methods)
    )


_FITS: dict[str, tuple[Callable[[object], bool], str]] = {
    "tools": (lambda value: isinstance(value, Iterable) and not isinstance(value, str | bytes), "several tools"),
    "secrets": (lambda value: isinstance(value, Mapping), "an object, values by name"),
    "base_path": (lambda value: isinstance(value, str | os.PathLike), "a path"),
    "credentials": (callable, "a function, see Runtime"),
    "models": (lambda value: isinstance(value, Models), "a Models; adapters of your own are Models({name: adapter})"),
    "retries": (lambda value: isinstance(value, Retries), "a Retries"),
    "clock": (_has("now", "new_id"), "a Clock: it has now() and new_id()"),
    "authenticator": (_has("authenticate"), "an Authenticator: it has authenticate(token)"),
    "environment_factory": (callable, "a function, see Runtime"),
    "approval_handler": (callable, "a function, see Runtime"),
    "threads": (lambda value: type(value) is int and 1 <= value <= THREADS_MAX, f"a number from 1 to {THREADS_MAX}"),
    "recover": (lambda value: isinstance(value, bool), "True or False"),
    "armed": (lambda value: isinstance(value, bool), "True or False"),
}
_OPTIONAL = _FITS.keys() - {"tools", "recover", "armed"}
