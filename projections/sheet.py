"""A log laid out as rows: what each event becomes in the tables of `projections.tables`."""

from __future__ import annotations

from decimal import Context, Decimal

import msgspec

from ..events.codec import unpack
from ..events.log import Stored
from ..events.message import Head, Recorded
from .meter import Meter, ModelUse, ToolUse
from .notes.note import Note
from .projection import PAGE, Reader
from .trail import Trail

STREAMS_MAX = 10_000
"""Streams whose state is kept between their events. One beyond is read again from the log when it goes on."""

_INT64 = 2**63 - 1
_CENT = Decimal("1E-18")  # the smallest amount that the column can hold
_WIDE = Context(prec=60)
_json = msgspec.json.Encoder().encode


OF_BATCH = (
    *("ts", "stream", "batch", "correlation_id", "causation_id", "scope", "principal"),
    *("container_id", "image_id", "session_id", "agent_id"),
)
OF_KIND = ("type", "source", "category", "audit_type", "status", "resource_type", "tags")
OF_FACT = (
    *("position", "version", "part", "job_id", "data", "resource_id", "duration_ms", "details"),
    *("error_code", "error_message"),
)
"""Columns of `facts` by where a `Sheet` has them; a row of its facts begins with the numbers of its batch and kind."""


class Sheet:
    """Rows on their way into the tables, gathered in the form in which columns are cheapest to make of them.

    What all events of a batch share is kept once a batch, and what all events of one kind share once a kind; a row of
    `facts` names its batch and its kind by number.
    """

    __slots__ = ("batches", "calls", "facts", "kinds", "size", "tools")

    def __init__(self) -> None:
        self.size = 0
        self.batches: list[tuple[object, ...]] = []
        self.kinds: dict[tuple[object, ...], int] = {}
        self.facts: list[tuple[object, ...]] = []
        self.calls: list[tuple[object, ...]] = []
        self.tools: list[tuple[object, ...]] = []

    def __len__(self) -> int:
        return len(self.facts)

    def batch(self, stream: str, head: Head) -> None:
        """The events that follow are of this batch."""
        context = head.context
        self.batches.append(
            (
                min(head.at, _INT64),
                stream,
                head.id,
                head.correlation,
                head.cause,
                context.scope,
                context.principal,
                context.container_id,
                context.image_id,
                context.session_id,
                context.agent_id,
            )
        )

    def fact(self, recorded: Recorded, note: Note) -> None:
        event, error, kinds = recorded.data, note.error, self.kinds
        kind = (
            note.name,
            event.source,
            event.category,
            note.type,
            note.status,
            note.resource_type,
            note.tags,
        )
        data, details = _json(event), _json(note.context)
        self.size += len(data) + len(details)
        self.facts.append(
            (
                len(self.batches) - 1,
                kinds.setdefault(kind, len(kinds)),
                recorded.position,
                recorded.version,
                recorded.part,
                note.job_id,
                data,
                note.resource_id,
                note.duration if note.duration is None else min(note.duration, _INT64),
                details,
                error and error.code,
                error and error.message,
            )
        )

    def use(self, use: ModelUse | ToolUse) -> None:
        shared = (
            use.position,
            min(use.at, _INT64),
            use.scope,
            use.principal,
            use.container_id,
            use.image_id,
            use.session_id,
            use.agent_id,
            use.job_id,
        )
        if isinstance(use, ToolUse):
            self.tools.append(
                (
                    *shared,
                    use.tool,
                    use.name,
                    use.effect,
                    use.outcome,
                    use.error_type,
                    use.proof,
                    use.runs,
                    min(use.duration_ms, _INT64),
                )
            )
            return
        usage, amount = use.usage, use.amount
        self.calls.append(
            (
                *shared,
                use.call,
                min(use.attempt, _INT64),
                use.asked,
                use.provider,
                use.model,
                use.stop_reason,
                use.failure,
                usage and min(usage.input_tokens, _INT64),
                usage and min(usage.output_tokens, _INT64),
                usage and min(usage.cache_read_tokens, _INT64),
                usage and min(usage.cache_write_tokens, _INT64),
                usage and min(usage.reasoning_tokens, _INT64),
                amount if amount is None else amount.quantize(_CENT, context=_WIDE),
                use.unpriced,
                use.price_table,
                min(use.duration_ms, _INT64),
            )
        )


class Layout:
    """What has to be remembered of the streams to lay out their next events.

    It is not in the tables: a stream that goes on after a new start, or after it was let go of, is read again.
    """

    def __init__(self) -> None:
        self._trail = Trail()
        self._meters: dict[str, Meter] = {}  # the stream heard of longest ago first

    def take(self, stored: Stored, sheet: Sheet, log: Reader) -> None:
        """Write the rows of a batch."""
        batch = stored.batch
        meter = self._meters.pop(batch.stream, None)
        if meter is None:
            meter = self._known(batch.stream, stored.position, log) if batch.version else Meter()
            image_id = batch.head.context.image_id
            if image_id is not None and f"image-{image_id}" not in self._meters:
                # A session's first record tells of its image's folder.
                self._meters[f"image-{image_id}"] = self._known(f"image-{image_id}", stored.position, log)
        self._meters[batch.stream] = meter
        apply, use_of = self._trail.apply, meter.apply
        sheet.batch(batch.stream, batch.head)
        for recorded in unpack(stored, digests=False):
            sheet.fact(recorded, apply(recorded))
            for use in use_of(recorded):
                sheet.use(use)
        if len(self._meters) > STREAMS_MAX:
            for stream in list(self._meters)[: STREAMS_MAX // 4]:
                del self._meters[stream]
                self._trail.forget(stream)

    def _known(self, stream: str, position: int, log: Reader) -> Meter:
        """The state of a stream before the event at `position`."""
        meter = Meter()
        after = 0
        while stored := log.read(stream, after=after, limit=PAGE):
            for batch in stored:
                if batch.position >= position:
                    return meter
                for recorded in unpack(batch, digests=False):
                    self._trail.apply(recorded)
                    meter.apply(recorded)
            after = stored[-1].batch.last
        return meter
