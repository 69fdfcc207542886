"""What must be true of a world, one question each. A judge gives what it found wrong; nothing when all is well."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from reenact.actors.cell import Cell
from reenact.actors.replay import replay
from reenact.events import codec
from reenact.events.action import ActionCancelled, ActionExpired, ActionRequired, ActionResolved, GrantUsed
from reenact.events.agent import ModelCalled, ToolChecked, ToolRelaunched, ToolRequested, ToolSettled, ToolStarted
from reenact.events.container import ImageAdded
from reenact.events.content import AssistantItem, ResultItem, ToolCall
from reenact.events.image import ImageCreated, ImageDeleted
from reenact.events.log import Stored
from reenact.events.message import Recorded
from reenact.events.session import JobCancelled, JobFailed, JobQueued, JobStarted, JobSucceeded, JobTimedOut
from reenact.projections.context import Context
from tests.chains import broken_at

if TYPE_CHECKING:
    from .world import World

ENDS = {JobSucceeded: "succeeded", JobFailed: "failed", JobCancelled: "cancelled", JobTimedOut: "timed_out"}


class Evidence:
    """The disk as it is at last, read once for all judges."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.batches: list[Stored] = world.disk.all
        self.streams: dict[str, list[Stored]] = world.disk.by_stream
        self.events: dict[str, list[Recorded]] = {
            stream: [event for stored in batches for event in codec.unpack(stored)]
            for stream, batches in self.streams.items()
        }
        self.sessions = {name: events for name, events in self.events.items() if name.startswith("session-")}


Judge = Callable[[Evidence], Iterator[str]]


def nothing_acknowledged_is_lost(seen: Evidence) -> Iterator[str]:
    """I1: what anybody was told of is there; a message that was accepted is a job, and one for ever."""
    queued = Counter(
        event.data.job_id for events in seen.sessions.values() for event in events if isinstance(event.data, JobQueued)
    )
    people = seen.world.people
    for job in sorted(people.accepted):
        if queued[job] != 1:
            yield f"the accepted job {job} is queued {queued[job]} times"
    texts = Counter(
        event.data.content[0].text  # type: ignore[union-attr]
        for events in seen.sessions.values()
        for event in events
        if isinstance(event.data, JobQueued) and event.data.content
    )
    for sent in people.sent:
        if len(sent.jobs) > 1:
            yield f"{sent.key} was accepted as {sorted(sent.jobs)}"
        if texts[sent.text] > 1 or (sent.sure and not texts[sent.text]):
            yield f"{sent.key} is in the log {texts[sent.text]} times"
    for job, count in queued.items():
        if count > 1:
            yield f"{job} is queued {count} times"


def a_batch_is_there_whole_and_once(seen: Evidence) -> Iterator[str]:
    """I2, I3: nothing is in the log that nobody handed in, nothing twice, nothing in part."""
    ids = Counter(stored.batch.head.id for stored in seen.batches)
    for stored in seen.batches:
        head = stored.batch.head
        handed = seen.world.handed.get(head.id)
        if handed is None:
            yield f"{head.id} was never handed in"
        elif handed[1] != len(stored.batch.rows):
            yield f"{head.id} has {len(stored.batch.rows)} of {handed[1]} events"
        if ids[head.id] > 1:
            yield f"{head.id} is there {ids[head.id]} times"


def versions_and_positions_are_dense(seen: Evidence) -> Iterator[str]:
    """I4."""
    position = 0
    for stored in seen.batches:
        if stored.position != position + 1:
            yield f"position {stored.position} comes after {position}"
        position = stored.position + len(stored.batch.rows) - 1
    for stream, events in seen.events.items():
        versions = [event.version for event in events]
        if versions != list(range(1, len(versions) + 1)):
            yield f"{stream} has the versions {versions}"


def one_owner_at_a_time(seen: Evidence) -> Iterator[str]:
    """I5: epochs never fall, and one epoch has one writer."""
    writers: dict[int, str] = {}
    newest = 0
    for stored in seen.batches:
        if stored.epoch < newest:
            yield f"{stored.batch.head.writer} wrote at {stored.position} under {stored.epoch}, after {newest}"
        newest = max(newest, stored.epoch)
        writer = writers.setdefault(stored.epoch, stored.batch.head.writer)
        if writer != stored.batch.head.writer:
            yield f"epoch {stored.epoch} has the writers {writer} and {stored.batch.head.writer}"


def chains_hold(seen: Evidence) -> Iterator[str]:
    """I6."""
    for stream, batches in seen.streams.items():
        at = broken_at(batches)
        if at is not None:
            yield f"the chain of {stream} breaks at {at}"


def replay_decides_alike(seen: Evidence) -> Iterator[str]:
    """I8: events and what is owed, batch by batch; and a stream read anew is the one that is replayed."""
    for stream, batches in seen.streams.items():
        verdict = replay(stream, batches)
        if not verdict.identical:
            yield f"{stream}: {verdict.summary}"
            continue
        cell = Cell(stream)
        for stored in batches:
            cell.take(stored)
        if verdict.states != cell.states:
            yield f"{stream}: replayed and read anew are not the same"
        if tuple(effect.id for effect in cell.owed) != batches[-1].batch.head.owes:
            yield f"{stream}: it owes {cell.owed}, and the log says {batches[-1].batch.head.owes}"


def calls_start_and_end_as_their_class_allows(seen: Evidence) -> Iterator[str]:
    """I9, in the log: a call ends once, after its start; an unsafe one starts again only when a person says so."""
    for stream, events in seen.sessions.items():
        effects, retries = _calls(events)
        starts: dict[str, int] = defaultdict(int)
        ends: Counter[str] = Counter()
        for event in events:
            match event.data:
                case ToolStarted() as started:
                    starts[started.tool] += 1
                    if ends[started.tool]:
                        yield f"{stream} {started.tool} started after its end"
                case ToolSettled() as settled:
                    ends[settled.tool] += 1
        for tool, effect in effects.items():
            if ends[tool] > 1:
                yield f"{stream} {tool} ended {ends[tool]} times"
            if effect == "unsafe" and starts[tool] > 1 + retries[tool]:
                yield f"{stream} {tool} is unsafe and started {starts[tool]} times, people asked for {retries[tool]}"


def _calls(events: Sequence[Recorded]) -> tuple[dict[str, str], Counter[str]]:
    """The class of each call of a session, and how often people asked that it be run again."""
    effects: dict[str, str] = {}
    retries: Counter[str] = Counter()
    for event in events:
        match event.data:
            case ToolRequested() as asked:
                effects[asked.tool] = asked.effect
            case ToolStarted() | ToolRelaunched() as started:
                retries[started.tool] += event.head.asked == "resolve_tool"
    return effects, retries


def what_needs_a_person_starts_only_by_a_person(seen: Evidence) -> Iterator[str]:
    """I10: before every start of a gated call stands a person's yes to it, in time and found unchanged; and every
    question has one end."""
    for stream, events in seen.sessions.items():
        gated: set[str] = set()
        questions: dict[str, tuple[str | None, int, int]] = {}  # the call, when it was asked, until when
        ends: Counter[str] = Counter()
        granted: set[str] = set()
        for_good: set[str] = set()
        found: dict[str, ToolChecked] = {}
        for event in events:
            match event.data:
                case ToolRequested(name="wire", problem=None) as call:
                    gated.add(call.tool)
                case ActionRequired() as asked:
                    questions[asked.action] = asked.tool, event.at, event.at + asked.timeout_ms * 1000
                case ActionResolved() as said:
                    ends[said.action] += 1
                    if said.by.startswith("agent:"):
                        yield f"{stream} {said.action} was answered by {said.by}"
                    tool, since, until = questions[said.action]
                    if not since <= said.at < until:
                        yield f"{stream} {said.action} was answered at {said.at}, not from {since} to {until}"
                    if said.resolution.get("approved") is True and tool is not None:
                        granted.add(tool)
                        if said.resolution.get("always"):
                            for_good.add(said.action)
                case ActionExpired() | ActionCancelled() as over:
                    ends[over.action] += 1
                case GrantUsed() as used:
                    if used.grant not in for_good:
                        yield f"{stream} {used.tool} runs on leave that nobody gave"
                    granted.add(used.tool)
                case ToolChecked() as checked:
                    found[checked.tool] = checked
                case ToolStarted() as started if started.tool in gated:
                    if started.tool not in granted:
                        yield f"{stream} {started.tool} started, and nobody allowed it"
                    asked_of = [each for each in questions.values() if each[0] == started.tool]
                    last = found.pop(started.tool, None)
                    for _, since, until in asked_of:
                        if last is None or not since <= last.at < until:
                            yield f"{stream} {started.tool} started when its approval was over, or unseen: {last}"
        for action, count in ends.items():
            if count > 1:
                yield f"{stream} {action} ended {count} times"


def the_world_saw_what_the_log_says(seen: Evidence) -> Iterator[str]:
    """I9, counted outside: unsafe once at most, and once more a retry; what its own run settled as ok took place."""
    executions = seen.world.outside.executions
    accounted: set[str] = set()
    for stream, events in seen.sessions.items():
        session = stream.removeprefix("session-")
        effects, retries = _calls(events)
        accounted.update(f"{session}:{tool}" for tool in effects)
        for settled in (event.data for event in events if isinstance(event.data, ToolSettled)):
            happened = executions[f"{session}:{settled.tool}"]
            if settled.outcome == "ok" and settled.proof != "person" and not happened:
                yield f"{stream} {settled.tool} is settled as ok and never took place"
            if settled.outcome in ("skipped", "denied") and happened:
                yield f"{stream} {settled.tool} is settled as {settled.outcome} and took place"
        for tool, effect in effects.items():
            count = executions[f"{session}:{tool}"]
            if effect == "unsafe" and count > 1 + retries[tool]:
                yield f"{stream} {tool} is unsafe and took place {count} times, people asked for {retries[tool]} more"
            late = f"{session}:{tool}" in seen.world.outside.late  # and so after the world was asked
            if effect == "probeable" and count > 1 + retries[tool] and not late:
                yield f"{stream} {tool} can be asked about and took place {count} times"
    for key in executions:
        if key not in accounted:
            yield f"{key} took place and nobody asked for it"


def one_job_at_a_time_each_with_one_end(seen: Evidence) -> Iterator[str]:
    ends: dict[str, str] = {}
    for stream, events in seen.sessions.items():
        running: str | None = None
        for event in events:
            data = event.data
            if isinstance(data, JobStarted):
                if running is not None:
                    yield f"{stream}: {data.job_id} started while {running} ran"
                running = data.job_id
            elif type(data) in ENDS:
                job: str = data.job_id  # type: ignore[attr-defined]
                if job in ends:
                    yield f"{job} ended as {ends[job]} and again as {ENDS[type(data)]}"
                ends[job] = ENDS[type(data)]
                running = None if running == job else running
    for job, told in seen.world.people.results.items():
        for status in sorted(told - {"waiting", "queued"}):
            if ends.get(job) != status:
                yield f"somebody was told that {job} {status}, and the log says {ends.get(job)}"


def the_model_is_shown_every_call_closed_once(seen: Evidence) -> Iterator[str]:
    """At every call of a model, as it was shown then, and over the whole log."""
    for stream, events in seen.sessions.items():
        context = Context()
        for event in events:
            context.apply(event)
            if isinstance(event.data, ModelCalled):
                problem = flaw(context.render(event.data.upto))
                if problem is not None:
                    yield f"{stream} version {event.version}: {problem}"
        problem = flaw(context.render(len(events)))
        if problem is not None:
            yield f"{stream} at its end: {problem}"


def flaw(items: Sequence[Any]) -> str | None:
    """What is wrong with a context: a call that is not closed exactly once, right behind, or an id that comes twice."""
    open_calls: list[str] = []
    ids: set[str] = set()
    for item in items:
        if open_calls and not isinstance(item, ResultItem):
            return f"{item.__struct_config__.tag} behind open calls {open_calls}"
        if isinstance(item, ResultItem):
            results = [result.id for result in item.results]
            if results != open_calls:
                return f"results {results} for the calls {open_calls}"
            open_calls = []
        elif isinstance(item, AssistantItem):
            open_calls = [part.id for part in item.parts if isinstance(part, ToolCall)]
            twice = [each for each in open_calls if each in ids or open_calls.count(each) > 1]
            if twice:
                return f"the ids {twice} twice"
            ids.update(open_calls)
    return f"open calls {open_calls} at the end" if open_calls else None


def a_name_is_one_image(seen: Evidence) -> Iterator[str]:
    """Within a container, until that image is deleted; and a container lists what is in it."""
    named: dict[tuple[str, str], str] = {}
    listed: dict[str, set[str]] = defaultdict(set)
    for stored in seen.batches:
        for event in codec.unpack(stored):
            match event.data:
                case ImageCreated() as made:
                    before = named.get((made.container_id, made.alias or ""))
                    if made.alias is not None:
                        if before is not None:
                            yield f"{made.image_id} is named {made.alias} in {made.container_id}, as {before} is"
                        named[made.container_id, made.alias] = made.image_id
                    if made.image_id not in listed[made.container_id]:
                        yield f"{made.image_id} was made and {made.container_id} does not list it"
                case ImageDeleted() as gone:
                    named = {name: image for name, image in named.items() if image != gone.image_id}
                case ImageAdded() as added:
                    listed[event.stream.removeprefix("container-")].add(added.image_id)


def every_event_has_its_cause(seen: Evidence) -> Iterator[str]:
    known: set[str] = set()
    for stored in seen.batches:
        head = stored.batch.head
        if head.cause is not None and head.cause not in known:
            yield f"{head.asked} {head.id} was caused by {head.cause}, which is not before it"
        known.update(f"{head.id}-{part}" for part in range(len(stored.batch.rows)))


SAFETY: tuple[Judge, ...] = (
    nothing_acknowledged_is_lost,
    a_batch_is_there_whole_and_once,
    versions_and_positions_are_dense,
    one_owner_at_a_time,
    chains_hold,
    replay_decides_alike,
    calls_start_and_end_as_their_class_allows,
    what_needs_a_person_starts_only_by_a_person,
    the_world_saw_what_the_log_says,
    one_job_at_a_time_each_with_one_end,
    the_model_is_shown_every_call_closed_once,
    a_name_is_one_image,
    every_event_has_its_cause,
)
"""True at every moment."""


def everything_came_to_its_end(seen: Evidence) -> Iterator[str]:
    """I13: no job is left, no call is open, nothing is owed, nobody waits."""
    for stream, batches in seen.streams.items():
        cell = Cell(stream)
        for stored in batches:
            cell.take(stored)
        if cell.owed:
            yield f"{stream} owes {[effect.id for effect in cell.owed]}"
        if stream.startswith("session-"):
            session, agent, _ = cell.states
            if session.running or session.queue:
                yield f"{stream} has jobs left: {session.running} {session.queue}"
            if agent.open or agent.call:
                yield f"{stream} has calls left: {agent.call} {agent.open}"
    for stream, events in seen.sessions.items():
        asked = {event.data.tool for event in events if isinstance(event.data, ToolRequested)}
        ended = {event.data.tool for event in events if isinstance(event.data, ToolSettled)}
        if asked != ended:
            yield f"{stream}: the calls {sorted(asked - ended)} never ended"


def nobody_waits_for_an_answer(seen: Evidence) -> Iterator[str]:
    for node in seen.world.nodes:
        for what in node.calls.values():
            yield f"{node.name} never answered: {what}"
        under_way = node.runtime._kernel.dispatch.under_way
        if under_way:
            yield f"{node.name} has {under_way} effects under way"
        for raised in node.loop.raised:
            yield f"on the loop of {node.name}: {raised.get('message')} {raised.get('exception')!r}"


LIVENESS: tuple[Judge, ...] = (everything_came_to_its_end, nobody_waits_for_an_answer)
"""True when faults have stopped, people have answered, and everything has come to rest."""


def judge(world: World, judges: Sequence[Judge]) -> list[str]:
    """What these judges found, each with its name in front."""
    evidence = Evidence(world)
    return [f"{each.__name__}: {found}" for each in judges for found in each(evidence)]
