"""How long a conversation is, in tokens: what a model counted, and an estimate of what none has counted yet. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from ..events.budget import Terms
from ..events.content import File, Image, Native, Text, Thinking, ToolCall
from .picture import IMAGE_TOKENS, NO_PICTURES, Picture, Pictures

OTHER_TOKENS = 2
"""What one model counted another may count as so much more, a half: each cuts a text in its own way."""


class Length(Struct, frozen=True, gc=False):
    """counted: tokens up to the last answer, as the model `by` counted them. fresh: an estimate of those since."""

    counted: int = 0
    by: str = ""
    fresh: int = 0
    pictures: Pictures = NO_PICTURES

    def and_more(self, tokens: int, pictures: tuple[Picture, ...] = ()) -> Length:
        """With so many tokens more, as estimated."""
        return Length(self.counted, self.by, self.fresh + tokens, self.pictures.and_more(pictures))

    def read_by(self, model: str, terms: Terms, before: tuple[str, int] | None) -> int:
        """Tokens that a call of this model reads, at most. before: the model that counted last, and the tokens of
        instructions and tools that it read; where these are not known, all of those of now may be new. Each model
        counts pictures in its own way.
        """
        counted, fresh = self.counted, self.fresh + self.pictures.tokens_unseen(model)
        if not counted:
            return fresh + terms.overhead
        by, overhead = before or (model, 0)
        if (self.by or by) != model:
            counted += counted // OTHER_TOKENS + self.pictures.tokens_seen(model)
        return counted + max(0, terms.overhead - overhead) + fresh


NO_LENGTH = Length()


def tokens_of(text: str) -> int:
    """The tokens of a text, more rather than fewer: 4 characters a token and a fifth on top, other scripts 2 bytes."""
    if text.isascii():
        return -(-len(text) * 3 // 10)
    return -(-len(text.encode("utf-8", "surrogatepass")) // 2)


def tokens_in(parts: Iterable[object]) -> int:
    """The tokens of the parts of a message, more rather than fewer; of pictures see picture.py."""
    total = 0
    for part in parts:
        match part:
            case Text(text=text) | Thinking(thinking=text):
                total += 4 + tokens_of(text)
            case Image():
                total += IMAGE_TOKENS
            case File(data=data):
                total += 4 + tokens_of(data) if data else 10 * IMAGE_TOKENS
            case ToolCall() | Native():
                total += 16 + tokens_of(repr(part))
    return total
