"""A log opened to work in, for a program without a loop of its own: conversations opened by name, work taken up again.

It takes up nothing by itself, so that a conversation in one session leaves alone what another one owes.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import msgspec

from ..actors import decider
from ..actors.conversation import CONVERSATION
from ..actors.image import State as ImageState
from ..adapters.models.providers import model_for
from ..blocking import Image, Run, Runtime
from ..catalog import lookup
from ..events import codec, stream
from ..events.agent import AgentConfigured
from ..events.errors import BadInput, Corrupt, DiskFull, NewerFormat, NotFound, ReenactError
from ..events.image import ImageConfig
from ..events.message import BusEvent, Recorded, Signal, Unknown
from ..events.model import ModelParams
from ..events.session import JobStarted
from ..events.shape import convert
from ..given import checked_text, config_of, fallbacks_of
from ..identity.pane import DEFAULT
from ..models.failover_file import failover_in
from ..owner import check_outside
from ..people.halt import halt_of
from ..projections.jobs import ACTIVE, Job, Jobs
from ..projections.projection import catch_up_stream, session_of
from ..rules.policies import policies_from
from ..run import READER
from ..tools.toolbox import Needed, sources, tools_from
from .choice import KEY_HINT, SCRIPT, model_named, usual_model
from .reading import Reading, zone_here

IMAGE = "assistant"
"""The image of conversations that name none."""

NAME_CHARS_MAX = 128
"""Characters of the name of a session."""

_SIGNALS = frozenset(
    signal.type
    for signal in vars(stream).values()
    if isinstance(signal, type) and issubclass(signal, Signal) and signal is not Signal
)


class Talk:
    """One conversation. name: of the session, if it has one. notes: what its user should know before the first word."""

    def __init__(
        self,
        working: Working,
        image: Image,
        *,
        model: str,
        params: ModelParams | None,
        override: str | None,
        fallbacks: Sequence[str] | None,
        name: str | None,
        notes: Iterable[str],
    ) -> None:
        self._working = working
        self._image = image
        self._params = params
        self._override = override
        self._fallbacks = fallbacks
        self._run: Run | None = None
        self.session_id = image.session_id
        self.model = model
        self.name = name
        self.notes = tuple(notes)

    def send(self, content: object, *, asks: bool = False) -> Run:
        """Send a message. Iterate what comes back for the events, ask it for the `result()`.

        asks: whoever reads the events answers what it asks people, so that the run does not end as waiting.
        """
        self._working.full = None
        handler = READER if asks else None
        run = self._run = self._image.send(
            content, model=self._override, fallbacks=self._fallbacks, params=self._params, approval_handler=handler
        )
        if self._working.full is not None:  # before there was a run to tell of it
            self._working.runtime.wait(self._failed(self._working.full))
        return run

    def leave(self) -> None:
        """Whoever reads the events of what was sent last answers nothing any more: that run waits then."""
        if self._run is not None:
            self._run.leave()

    def opening(self) -> Sequence[BusEvent]:
        """How the session began, where it is new: the events before its first message. Later, and of others, none."""
        if self._run is not None or not self._working.unused(self.session_id):
            return ()
        return self._working.runtime.events(self.session_id)

    @property
    def job_id(self) -> str | None:
        """The job of what was sent last."""
        return None if self._run is None else self._run.job_id

    async def _failed(self, error: ReenactError) -> None:
        self.fail(error)

    def interrupt(self) -> None:
        """Stop what was sent last; what was said by then is kept."""
        if self._run is not None:
            self._working.runtime.cancel(self.session_id, self._run.job_id, reason="user_interrupt")

    def quit(self) -> bool:
        """Have whoever reads the events of what was sent last raise KeyboardInterrupt. False: nobody reads them."""
        return self._run is not None and self._run._quit()

    def fail(self, error: ReenactError) -> None:
        """On the loop: its end cannot be stored now."""
        if self._run is not None:
            self._run.fail(error)


class Working:
    """The runtime on the log at `url`, owned from `with` to its end. tools: files of Python. policy: files of TOML,
    outermost first; without them every session keeps those that it was last run under. failover: a file of settings.
    scope: the one to work in.

    Raises what opening a log raises, `Owned` among it, and what loading the tools, the policies and the settings
    raises, before the log is touched.
    """

    def __init__(
        self,
        url: str,
        *,
        tools: Iterable[str] = (),
        policy: Iterable[str] = (),
        failover: str | None = None,
        scope: str | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.faults: dict[str, ReenactError] = {}
        self.full: DiskFull | None = None
        self._environ = environ
        self._waiting: list[Callable[[ReenactError], object]] = []
        self._reading: queue.SimpleQueue[BusEvent | BaseException] | None = None
        found = [tool for path in tools for tool in tools_from(path).values()]
        given = policies_from(policy)
        settings = None if failover is None else failover_in(failover)
        self.runtime = Runtime(url, recover=False, tools=found, policy=given, failover=settings, scope=scope or DEFAULT)
        self._keeps_rules = not given

    def __enter__(self) -> Self:
        self.runtime.open()
        self.runtime.asynchronous._keeps_rules = self._keeps_rules  # nothing was taken up yet
        self.runtime.on("system_error", self._on_error)
        return self

    def _on_error(self, event: BusEvent) -> None:
        """A runtime waits for room on a disk that is full. Whoever sits before this one is told instead."""
        if event.data["details"]["code"] == DiskFull.code:
            self.full = DiskFull(event.data["message"])
            for fail in self._waiting:
                fail(self.full)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.runtime.close()

    @property
    def _log(self) -> Any:
        return self.runtime.asynchronous._reads

    def left(self) -> list[str]:
        """The ids of sessions with work that an earlier process left, oldest first."""
        return [name.removeprefix("session-") for name in self._log.streams("session-", owing=True)]

    def session(self, wanted: str) -> str:
        """The id of a session: see `lookup.session_of`."""
        return lookup.session_of(self._log, wanted)

    def calls(self, session_id: str) -> list[dict[str, Any]]:
        """The calls of tools that are not over: see `Reading.calls`."""
        return Reading(self._log).calls(session_id)

    # -- questions to people --

    def actions(self, session_id: str) -> list[dict[str, Any]]:
        """What waits for a person in a session, oldest first."""
        return [msgspec.to_builtins(action) for action in self.runtime.actions(session_id)]

    def asking(self, action_id: str) -> list[str]:
        """A question as a person reads it."""
        from ..projections.asking import asking

        return asking(self.runtime.action(action_id), zone=zone_here())

    def decide(
        self, action_id: str, resolution: Mapping[str, Any], digest: str | None, secret: str | None = None
    ) -> None:
        """Answer a question. secret: what a reauth asks for; it stays in this process. Raises what refuses it."""
        check_outside()
        if secret is not None:
            self.runtime.wait(self.runtime.asynchronous._asking.hand_over(action_id, secret, resolution))
        else:
            self.runtime.resolve_action(action_id, resolution, digest=digest)

    # -- a conversation --

    def talk(
        self,
        *,
        session: str | None = None,
        image: str | None = None,
        model: str | None = None,
        provider: str | None = None,
        fallbacks: Sequence[str] = (),
        system: str | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Talk:
        """Open a conversation.

        session: an id, a part of one, `last`, or a name; a name that is not taken makes a new session. Without it the
        session is new. image: a name, made where there is none, or an id; default `assistant`. model: of this
        conversation; without it the session's last, a named image's own, or what the environment suggests. fallbacks:
        models that are asked when it does not answer; without them, the image's. system: instructions; a named image
        and the image of a session keep them, else an image is made for them.
        """
        wanted = model_named(model, provider)
        given = {name: value for name, value in (params or {}).items() if value is not None}
        config_of({"params": given}, ImageConfig())  # raises what is wrong with them
        if fallbacks:
            given["fallbacks"] = fallbacks_of(fallbacks)
        for each in (*fallbacks, *(() if wanted is None else (wanted,))):  # before an image is made or changed for it
            model_for(checked_text(each, "model"))
        if image is not None:
            checked_text(image, "image")
        found = None if session is None else lookup.session_to_open(self._log, session)
        if found is not None:
            return self._continue(found, image, wanted, system, given)
        if session is not None:
            _check_name(session)
        return self._begin(session, image, wanted, system, given)

    def _continue(
        self, session_id: str, image: str | None, wanted: str | None, system: str | None, params: dict[str, Any]
    ) -> Talk:
        created = lookup.session_created(self._log, session_id)
        if created is None:
            raise NotFound(f"The beginning of session {session_id} cannot be read.")
        state = self._image(created.image_id)
        if image is not None and image not in (state.image_id, state.alias) and not _ends(state.image_id, image):
            raise BadInput(
                f"Session {lookup.short(session_id)} belongs to the image {state.config.name!r}, not to {image!r}."
            )
        notes = [*self._equip(session_id), *self._rules(session_id)]
        model = wanted or self._last_model(session_id) or state.config.model
        if system is not None:
            self.runtime.update_image(state.image_id or "", {"systemPrompt": system})
        return self._talk(state, session_id, model, params, created.alias, notes, pinned=wanted is not None)

    def _begin(
        self, name: str | None, image: str | None, wanted: str | None, system: str | None, params: dict[str, Any]
    ) -> Talk:
        state, fresh = None, False
        notes: list[str] = []
        if image is not None or system is None:
            state = self.runtime.wait(self.runtime.asynchronous.image_named(image or IMAGE))
        if state is None and image is not None:
            known = lookup.image_to_open(self._log, image)
            state = None if known is None else self._image(known)
        own = image is not None and state is not None
        model = wanted or (state.config.model if own and state is not None else usual_model(self._environ))
        if wanted is None and model == SCRIPT:
            notes.append(KEY_HINT)
        config: dict[str, Any] = {} if system is None else {"systemPrompt": system}
        if state is None:
            config |= {"model": model, "name": image or IMAGE, **(params if image is not None else {})}
            shared = image is not None or system is None
            made = self.runtime.image(image or IMAGE if shared else None, config=config)
            state, fresh = self._image(made.id), True
        elif config:
            state = self.runtime.update_image(state.image_id or "", config)
        if name is not None or not (fresh or (self.unused(state.session_id) and not self._has_name(state.session_id))):
            session_id = self.runtime.new_session(state.image_id or "", alias=name)
        else:
            session_id = state.session_id
        if fresh and image is not None:  # it has all of them, and its fallbacks among them
            return self._talk(state, session_id, model, {}, name, notes)
        return self._talk(state, session_id, model, params, name, notes, pinned=wanted is not None)

    def _talk(
        self,
        state: ImageState,
        session_id: str,
        model: str,
        given: dict[str, Any],
        name: str | None,
        notes: Iterable[str],
        *,
        pinned: bool = False,
    ) -> Talk:
        """pinned: the model was named, so that the image's fallbacks are not asked in its place."""
        override = model != state.config.model or (pinned and bool(state.config.fallbacks))
        params = {name: value for name, value in given.items() if name != "fallbacks"}
        talk = Talk(
            self,
            self.runtime.open_image(state.image_id or "", session_id),
            model=model,
            params=convert(params, ModelParams) if params else None,
            override=model if override else None,
            fallbacks=given.get("fallbacks"),
            name=name,
            notes=notes,
        )
        self._waiting.append(talk.fail)
        return talk

    def _image(self, image_id: str) -> ImageState:
        return self.runtime.wait(self.runtime.asynchronous.image_state(image_id))

    def unused(self, session_id: str) -> bool:
        """Whether nothing but its creation is in a session."""
        head: int = self._log.head(f"session-{session_id}")
        return head == 1

    def _has_name(self, session_id: str) -> bool:
        """Whether somebody may come back to a session by its name; also where its beginning cannot be read."""
        created = lookup.session_created(self._log, session_id)
        return created is None or created.alias is not None

    def _last_model(self, session_id: str) -> str | None:
        """The model that the session's last message was for: the one it named, else the definition's of then. Which one
        answered in its place does not matter."""
        name, asked = f"session-{session_id}", False
        for stored in reversed(self._log.read(name, after=max(0, self._log.head(name) - 500))):
            for recorded in reversed(codec.unpack(stored)):
                data = recorded.data
                if isinstance(data, JobStarted) and not asked:
                    asked = True
                    if data.overrides is not None and data.overrides.model is not None:
                        return data.overrides.model
                elif isinstance(data, AgentConfigured) and asked:
                    return data.definition.model
        return None

    # -- tools --

    def _equip(self, session_id: str) -> list[str]:
        """Load the file that a session's tools came from, where those given will not do. Says what it did."""
        needed, tools = Needed(self._log, session_id), self.runtime.asynchronous.tools
        if not needed.missing(tools):
            return []
        notes = []
        for path in sources(self._log, needed):
            for tool in tools_from(path).values():
                if tool.name not in tools:
                    tools.add(tool)
            notes.append(f"tools from {path}, as this session was run with")
        if needed.missing(tools):
            notes.append(f"the tools of this session are not here{self._lost(needed)}: give them with --tools")
        return notes

    def _lost(self, needed: Needed) -> str:
        lost = ", ".join(name for name in needed.open if name not in self.runtime.asynchronous.tools)
        return f" ({lost})" if lost else ""

    def _rules(self, session_id: str) -> list[str]:
        """Hold a session to what it was last run under, where no other policy was given. Says what that is."""
        kept = self.runtime.wait(self.runtime.asynchronous._hold(session_id))
        named = ", ".join(f"{policy.name} (version {policy.version})" for policy in kept)
        return [f"held to the policy that this session was run with: {named}"] if kept else []

    # -- going on --

    def unfinished(self, session_ids: Iterable[str] | None = None) -> list[Job]:
        """The jobs that are not over, oldest first, of all sessions or of these.

        A session that cannot be read, or not be gone on with, is left out, and is in `faults` from then on.
        """
        board = _Board()
        for session_id in lookup.session_ids(self._log) if session_ids is None else session_ids:
            try:
                catch_up_stream(self._log, f"session-{session_id}", board)
            except Corrupt as error:
                self.faults[session_id] = error
        active = board.query(state=ACTIVE)
        self.faults |= {job.session_id: board.newer[job.session_id] for job in active if job.session_id in board.newer}
        return sorted((job for job in active if job.session_id not in self.faults), key=lambda job: job.queued_at)

    def equip(self, session_ids: Iterable[str]) -> list[str]:
        """Load the tools that these sessions were run with, where those given will not do. Says what it did.

        Raises NotFound, before anything is taken up, where tools are missing still.
        """
        notes: list[str] = []
        for session_id in session_ids:
            said = (*self._equip(session_id), *self._rules(session_id))
            notes += [note for note in said if note not in notes]
            needed = Needed(self._log, session_id)
            if needed.missing(self.runtime.asynchronous.tools):
                raise NotFound(
                    f"Session {lookup.short(session_id)} works with tools that are not here{self._lost(needed)}."
                    " Give the file they are in with --tools. Nothing was taken up."
                )
        return notes

    def take_up(
        self,
        session_ids: Iterable[str],
        settle: Mapping[str, tuple[str, str]] | None = None,
        *,
        first: Callable[[], bool] = lambda: True,
    ) -> Iterator[BusEvent]:
        """Settle calls of the (one) session as a person says, take up what the sessions owe, and tell of everything
        that happens until no job of theirs can go on by itself.

        settle: call -> (`ok`, `error` or `retry`, what the model is told). first: called when all is heard and nothing
        is taken up yet; False: nothing is. Raises NotFound and BadInput for calls that cannot be settled.
        """
        if settle:
            check_outside()
        ids = list(dict.fromkeys(session_ids))
        wanted, seen = frozenset(ids), queue.SimpleQueue[BusEvent | BaseException]()

        def hear(event: BusEvent) -> None:
            if event.session_id in wanted and (isinstance(event, Recorded) or event.type in _SIGNALS):
                seen.put(event)

        subscription = self.runtime.on_any(hear)
        self._waiting.append(seen.put)
        self._reading = seen
        try:
            for call, (outcome, output) in (settle or {}).items():
                self.runtime.resolve(ids[0], call, outcome, output)
            if not first():
                return
            for session_id in ids:
                if settle or self.goes_on(session_id):
                    self.runtime.resume(session_id)
            stored = True  # a signal ends nothing
            while not (stored and seen.empty() and not any(map(self.goes_on, ids)) and seen.empty()):
                event = seen.get()
                if isinstance(event, BaseException):
                    raise event
                stored = isinstance(event, Recorded)
                yield event
        finally:
            self._reading = None
            self._waiting.remove(seen.put)
            subscription.unsubscribe()

    def goes_on(self, session_id: str) -> bool:
        """Whether anything of a session's work can be done, or is being done, before a person says something."""
        stream = f"session-{session_id}"
        states = self.runtime.wait(self.runtime.asynchronous._peek(stream))
        if states[0].running is None and not states[0].queue:
            return False
        return halt_of(states, decider.owed(CONVERSATION, states)) is None

    def interrupt(self, session_ids: Iterable[str]) -> None:
        """Stop the jobs of these sessions of which something goes on; what was said by then is kept. One that only
        waits for a person goes on waiting."""
        for session_id in session_ids:
            running = self.runtime.wait(self.runtime.asynchronous.session_state(session_id)).running
            if running is not None and self.goes_on(session_id):
                self.runtime.cancel(session_id, running.job_id, reason="user_interrupt")

    def quit(self) -> bool:
        """Have whoever reads what `take_up` tells raise KeyboardInterrupt. False: nobody does."""
        reading = self._reading
        if reading is not None:
            reading.put(KeyboardInterrupt())
        return reading is not None


class _Board(Jobs):
    """newer: why a session cannot be gone on with in which there is what a newer release wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.newer: dict[str, NewerFormat] = {}

    def apply(self, recorded: Recorded) -> None:
        super().apply(recorded)
        if isinstance(recorded.data, Unknown):
            why = f"It holds events of type {recorded.data.name!r}, which a newer release wrote."
            self.newer[session_of(recorded)] = NewerFormat(why)


def _ends(full: str | None, part: str) -> bool:
    return bool(full and part and full.endswith(part))


def _check_name(name: str) -> None:
    if not name.strip() or len(name) > NAME_CHARS_MAX or not name.isprintable() or name != name.strip():
        raise BadInput(f"A session's name is 1 to {NAME_CHARS_MAX} printable characters, not {ascii(name)[:60]}.")
