"""OpenAI and everything that speaks its protocols. Nothing here loads the SDK; the first call does."""

from .openai_chat import OpenAIChat, google
from .openai_responses import OpenAIResponses

__all__ = ["OpenAIResponses", "OpenAIChat", "google"]
