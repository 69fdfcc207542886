"""The words between the runtime and a model: the request, the answer, and the port every adapter fits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import force_setattr

from .content import Failure, Item, OutputPart, Usage
from .errors import BadInput
from .message import Signal
from .secret import Secret
from .tool import ToolSpec


class ModelParams(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """Settings of a call. Recorded as asked; an adapter sends only what its model takes. None means the default.

    max_tokens: most tokens to write. temperature: 0.0 to 2.0. thinking: `off`, `low`, `medium` or `high`.
    stop_sequences: texts that end the answer. tool_choice: `auto`, `any`, `none` or a tool's name.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    thinking: str | None = None
    stop_sequences: tuple[str, ...] | None = None
    tool_choice: str | None = None


class Credentials(Struct, frozen=True, kw_only=True):
    """How to reach a provider; handed over per call, never stored, and cannot be encoded.

    api_key: a text or a `Secret`; held as a Secret from then on. base_url: shown without its password and its query.
    Raises BadInput for what is no text, and an address that cannot be sent.
    """

    api_key: str | Secret | None = None
    base_url: str | None = None

    def __post_init__(self) -> None:
        key = self.api_key
        if isinstance(key, str):
            force_setattr(self, "api_key", Secret(key) if key.strip() else None)
        elif key is not None and not isinstance(key, Secret):
            raise BadInput(f"api_key must be a text or a Secret, not a value of type {type(key).__name__}.")
        if self.base_url is not None and not isinstance(self.base_url, str):
            raise BadInput(f"base_url must be a text, not a value of type {type(self.base_url).__name__}.")
        try:
            (self.base_url or "").encode()
        except UnicodeEncodeError as error:
            half = ord(error.object[error.start])
            raise BadInput(f"base_url has the lone surrogate U+{half:04X}, which no address has.") from None

    def reveal(self) -> str:
        """The key as it is sent, without white space around it; empty where there is none."""
        return self.api_key.reveal().strip() if isinstance(self.api_key, Secret) else ""

    @property
    def password(self) -> str | None:
        """The password in `base_url`, None where it has none."""
        place = (self.base_url or "").partition("://")[2].partition("/")[0]
        who, at, _ = place.rpartition("@")
        return who.partition(":")[2] or None if at else None

    def __repr__(self) -> str:
        url = self.base_url
        if url is not None and self.password is not None:
            url = url.replace(f":{self.password}@", ":***@", 1)
        if url is not None and "?" in url:
            url = url.partition("?")[0] + "?***"
        return f"Credentials(api_key={'***' if self.api_key else None}, base_url={url!r})"


def _unheard() -> None:
    return None


class ModelRequest(Struct, frozen=True, kw_only=True):
    """One call of a model, complete: an adapter needs nothing else.

    model: the name after the `provider:`. items: the whole context, oldest first, every call closed. The list only
    grows from one call of a session to the next (until a compaction), so an adapter may keep what it rendered of it:
    `cache` is a dict of this session's that lives as long as the list does, for the adapter to use as it likes.
    timeout_s, silence_s: seconds for the whole answer, and between two pieces of it. Whoever asks holds every adapter
    to them; one that hears more than it yields (a ping, a piece of an event) says so with `heard()`, or it counts as
    silent.
    """

    model: str
    system: str
    items: Sequence[Item]
    tools: Sequence[ToolSpec] = ()
    params: ModelParams = ModelParams()
    credentials: Credentials = Credentials()
    session_id: str = ""
    call: str = ""
    timeout_s: float = 600.0
    silence_s: float = 300.0
    heard: Callable[[], None] = _unheard
    cache: dict[str, Any] | None = None


class ModelAnswer(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A complete answer. stop_reason: see `stream.MessageStop`. model: what answered, as the provider named it."""

    parts: tuple[OutputPart, ...]
    stop_reason: str
    usage: Usage | None = None
    model: str = ""
    response_id: str | None = None
    stop_sequence: str | None = None
    request_id: str | None = None


class ModelFailure(Exception):
    """A call that gave no complete answer. `partial` is what had come by then, with its usage if known.

    final: the usage is of all of it. One that the provider told at the beginning, or between, is not recorded: it would
    be paid as if nothing had come after it. unasked: no request was made, and nothing is to be paid.
    """

    def __init__(
        self,
        failure: Failure,
        *,
        partial: tuple[OutputPart, ...] = (),
        usage: Usage | None = None,
        request_id: str | None = None,
        final: bool = True,
        unasked: bool = False,
    ) -> None:
        super().__init__(f"{failure.code}: {failure.message}")
        self.failure = failure
        self.partial = partial
        self.usage = usage
        self.request_id = request_id
        self.final = final
        self.unasked = unasked


class Model(Protocol):
    """The port. `stream` yields signals as they come and the `ModelAnswer` as its last item, or raises `ModelFailure`.

    It makes one attempt: retries are decided and recorded outside. A stream that ends without the provider's own end
    mark raises `ModelFailure` with code `stream_cut`. Cancelling the task closes the connection.
    """

    def stream(self, request: ModelRequest) -> AsyncIterator[Signal | ModelAnswer]: ...
