"""Models: the doors to the providers, and the scripted one that needs no key.

Home of the provider SDKs, loaded on first use, and of stamina.
"""

from .providers import PROVIDERS, ModelName, Models, all_credentials_for, credentials_for, label_of, model_for
from .retry import Retries, RetryPolicy

__all__ = [
    "Models",
    "ModelName",
    "model_for",
    "credentials_for",
    "all_credentials_for",
    "label_of",
    "PROVIDERS",
    "Retries",
    "RetryPolicy",
]
