"""The commands that own the log: run, chat, resume."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Annotated, Any, TextIO

from cyclopts import Parameter

from ...events.action import ActionRequired
from ...events.errors import ActionOver, BadInput, ReenactError
from ...events.message import as_json
from ...events.session import JobCancelled, JobFailed, JobSucceeded, JobTimedOut
from .answers import is_raise, possible
from .front import Front, Row, Talk, Working
from .options import STDIN, Asking, Common, FailoverFile, Policies
from .output import Output, short
from .person import Person
from .screen import Screen, called
from .stop import INTERRUPTED, Stop, stopping
from .table import count

PROMPT_BYTES_MAX = 64 * 1024 * 1024
"""What is read of a message on stdin; a message has its own, lower bound."""

_ASKING, _COMMON = Asking(), Common()

_OUTCOMES = ("ok", "error", "retry")
_SAID = {
    "ok": "A person says that this call took effect. Its output is not known.",
    "error": "A person says that this call did not take effect.",
}


class Work:
    """The commands, over what they are handed."""

    def __init__(self, front: Front, output: Output, stdin: TextIO | None = None) -> None:
        self._front = front
        self._output = output
        self._stdin = stdin or sys.stdin

    def run(
        self,
        prompt: Annotated[str, Parameter(help="What to say; - reads it from stdin.")],
        /,
        *,
        asking: Asking = _ASKING,
        common: Common = _COMMON,
    ) -> int:
        """Send one message and print the answer.

        On a terminal the answer is shown as it comes, with a line for every tool. Into a pipe goes the answer alone,
        with --json every event and signal. Ctrl-C stops the turn and keeps what was said (exit 130); a second one
        quits, and `reenact resume` goes on later.
        """
        self._output.json = common.json
        text = self._prompt(prompt)
        with self._working(asking, common) as working:
            talk = self._open(working, asking)
            return self._turn(working, talk, text)

    def chat(self, *, asking: Asking = _ASKING, common: Common = _COMMON) -> int:
        """Talk, a line at a time.

        /exit or Ctrl-D leaves. Ctrl-C stops the answer and keeps what was said. Lines come from stdin where that is
        no terminal; the exit code is then that of the last line that failed.
        """
        self._output.json = common.json
        with self._working(asking, common) as working:
            talk = self._open(working, asking)
            person = self._stdin.isatty() and self._output.tells
            if person:
                name = f"“{talk.name}” " if talk.name else ""
                self._output.say(
                    f"session {name}{self._front.short(talk.session_id)} with {talk.model}. "
                    "Ctrl-C stops an answer; /exit or Ctrl-D leaves.",
                    style="dim",
                )
            failed = 0
            for line in _typed(self._output) if person else _piped(self._stdin):
                if line.strip() in ("/exit", "/quit"):
                    break
                if not line.strip():
                    continue
                try:
                    code = self._turn(working, talk, line)
                except ReenactError as error:
                    self._output.error(str(error))
                    code = 1
                failed = code or failed
            return 0 if person else failed

    def resume(
        self,
        session: Annotated[
            str | None, Parameter(help="A name, an id, its beginning or its end, or `last`. Without it: all.")
        ] = None,
        /,
        *,
        settle: Annotated[
            tuple[str, ...],
            Parameter(
                negative="",
                show_default=False,
                help="CALL=ok, CALL=error or CALL=retry: what became of a call in doubt. Again for more.",
            ),
        ] = (),
        output: Annotated[str | None, Parameter(help="With --settle: what the model is told the call gave.")] = None,
        tools: Annotated[
            tuple[str, ...],
            Parameter(
                name=["-t", "--tools"],
                negative="",
                show_default=False,
                help="A file of Python with @tool functions. Without it, the file that a session was run with, as the"
                " log names it, is run again: resume only a log whose tools you trust.",
            ),
        ] = (),
        policy: Policies = (),
        failover: FailoverFile = None,
        common: Common = _COMMON,
    ) -> int:
        """Go on with what a process left behind when it was killed or quit.

        Takes up every job that is not over, shows what goes on, and ends when all have ended or wait for a person.
        Exit 0 when all ended well or there was nothing to do, 1 when one failed or waits.
        """
        self._output.json = common.json
        settled = _settlements(settle, output)
        if settled and session is None:
            raise BadInput("--settle needs the session whose call it settles.")
        with self._front.reading(common.db, scope=common.scope):
            pass  # there is nothing to go on with where no log is, and none is begun
        with self._front.working(
            common.db, tools=tools, policy=policy, failover=failover, scope=common.scope
        ) as working:
            only = None if session is None else [working.session(session)]
            jobs = working.unfinished(only)
            every = list(dict.fromkeys(job.session_id for job in jobs))
            asked = [each for each in every if working.actions(each)] if self._person and not settled else []
            ids = [each for each in every if each in asked or working.goes_on(each)]
            over: set[str] = set()
            if settled and only:
                ids = only
                over = settled.keys() - {call["tool"] for call in working.calls(only[0])}
            for note in working.equip(ids):
                self._output.note(note)
            code = self._go_on(working, ids, settled, jobs, asked)
            for call in sorted(over):  # one that never was has been refused by now
                self._output.note(f"{call} was over already; what became of it stays as it was.")
            for session_id in dict.fromkeys(job.session_id for job in working.unfinished(only)):
                self._waits(working, session_id)
                code = code or 1
            for session_id, fault in working.faults.items():
                self._output.error(f"session {self._front.short(session_id)} is left as it is: {fault}")
                code = code or 1
            if not jobs and not working.faults:
                self._output.note("nothing is left to do.")
            return code

    def _working(self, asking: Asking, common: Common) -> AbstractContextManager[Working]:
        return self._front.working(
            common.db, tools=asking.tools, policy=asking.policy, failover=asking.failover, scope=common.scope
        )

    def _go_on(
        self, working: Working, ids: list[str], settled: dict[str, tuple[str, str]], jobs: Any, asked: list[str]
    ) -> int:
        """asked: the sessions whose questions are put to whoever sits here, before anything goes on."""
        if not ids:
            return 0
        several = len(ids) > 1
        screens = {}
        for session_id in ids:
            screens[session_id] = Screen(self._output, label=self._front.short(session_id) if several else "")
            for call in working.calls(session_id):
                screens[session_id].know(call["tool"], call["name"], call["input"])
            title = next((job.title for job in jobs if job.session_id == session_id), "")
            self._aside(f"session {self._front.short(session_id)} goes on: {short(title, 48)}")
        code = 0
        with stopping(lambda: working.interrupt(ids), screens[ids[0]].stopping, working.quit) as stop:
            try:
                for event in working.take_up(ids, settled, first=lambda: self._asked_what_waits(working, asked, stop)):
                    screen = screens[event.session_id or ""]
                    screen.feed(event)
                    match event.data:
                        case ActionRequired(action=action) if self._person and not stop.asked:
                            screen.close()
                            self._asked(working, f"{event.session_id}:{action}", stop)
                        case JobSucceeded():
                            self._answer(screen.said)
                        case JobFailed(failure=failure):
                            screen.close()
                            self._output.error(failure.message)
                            code = 1
                        case JobCancelled() | JobTimedOut():
                            screen.close()
                            self._output.error(
                                f"a job of session {self._front.short(event.session_id or '')} was"
                                f" {'cancelled' if isinstance(event.data, JobCancelled) else 'too late'}."
                            )
                            code = 1
            finally:
                for screen in screens.values():
                    screen.close()
        return INTERRUPTED if stop.asked else code

    # -- one turn --

    def _open(self, working: Working, asking: Asking) -> Talk:
        talk = working.talk(
            session=asking.session,
            image=asking.image,
            model=asking.model,
            provider=asking.provider,
            fallbacks=asking.fallback,
            system=asking.system,
            params=asking.params,
        )
        for note in talk.notes:
            self._output.note(note)
        left = [session_id for session_id in working.left() if session_id != talk.session_id]
        if left:
            what = f"session {self._front.short(left[0])} has" if len(left) == 1 else f"{len(left)} sessions have"
            self._output.note(f"{what} work left from before: `reenact resume` goes on with it.")
        return talk

    def _turn(self, working: Working, talk: Talk, text: str) -> int:
        if self._output.json:
            for event in talk.opening():
                self._output.row(as_json(event))
        asks = self._person
        turn = talk.send(text, asks=asks)
        with Screen(self._output) as screen, stopping(talk.interrupt, screen.stopping, talk.quit) as stop:
            for event in turn:
                screen.feed(event)
                match event.data:
                    case ActionRequired(action=action) if asks and not stop.asked:
                        screen.close()
                        asks = self._asked(working, f"{talk.session_id}:{action}", stop)
                        if not asks:
                            talk.leave()  # what was begun beside it ends before this does
        result = turn.result()
        self._answer(result.text)
        if result.status in ("waiting", "queued"):
            self._waits(working, talk.session_id)
        if result.status == "queued":
            self._output.note("this message is queued behind that, and is answered then.")
        return self._ended(result, stop)

    @property
    def _person(self) -> bool:
        """Whether somebody sits at the terminal who can be asked."""
        return self._stdin.isatty() and self._output.tells and not self._output.json

    def _asked_what_waits(self, working: Working, session_ids: Iterable[str], stop: Stop) -> bool:
        """Ask whoever sits here what an earlier process had asked; what they leave waits on. False: it was Ctrl-C."""
        for session_id in session_ids:
            for row in working.actions(session_id):
                if not stop.asked:
                    self._asked(working, row["id"], stop)
        return not stop.asked

    def _asked(self, working: Working, action_id: str, stop: Stop) -> bool:
        """Ask whoever sits here. False: it is left for later."""
        found = [row for row in working.actions(action_id.rpartition(":")[0]) if row["id"] == action_id]
        if not found:
            return True  # somebody else was quicker
        row, person = found[0], Person(self._output, self._stdin, lambda: stop.asked)
        while True:
            said = person.answers(working.asking(action_id), row)
            if said is None:
                return stop.asked  # then the job ends, and with it the question
            try:
                working.decide(action_id, said.resolution, row["digest"], said.secret)
            except ActionOver as error:
                self._output.note(str(error))
            except BadInput as error:
                self._output.error(str(error))
                continue
            return True

    def _answer(self, text: str) -> None:
        """Into a pipe the answer goes whole, when it is known to be one."""
        if text and not self._output.json and not self._output.shows:
            self._output.write(text if text.endswith("\n") else text + "\n")

    def _ended(self, result: Any, stop: Stop) -> int:
        if result.status == "succeeded":
            if result.stop_reason in _CUT:
                self._output.note(_CUT[result.stop_reason])
            usage = result.usage
            tokens = f", {count(usage.input_tokens)} tokens in and {count(usage.output_tokens)} out" if usage else ""
            calls = "1 model call" if result.steps == 1 else f"{result.steps} model calls"
            self._aside(f"{calls}{tokens}, session {self._front.short(result.session_id)}")
            return 0
        if result.status == "failed":
            self._output.error(result.failure.message if result.failure else "the job failed.")
        elif result.status == "timed_out":
            self._output.error("the job's time was up.")
        elif result.status == "cancelled" and not stop.asked:
            self._output.error("the job was cancelled.")
        return INTERRUPTED if stop.asked and result.status == "cancelled" else 1

    def _waits(self, working: Working, session_id: str) -> None:
        name = self._front.short(session_id)
        doubts: list[Row] = [call for call in working.calls(session_id) if call["doubt"]]
        for call in doubts:
            what = called(call["name"], call["input"])
            self._output.note(
                f"session {name} waits for a person: {call['tool']}, {what}, may have taken effect or not."
            )
        for action in working.actions(session_id):
            call, number = action["call"], action["id"].rpartition(":")[2]
            what = called(call["name"], call["arguments"]) if call else action["type"]
            if is_raise(action):
                what = action["payload"]["question"]
            self._output.note(f"session {name} waits for a person: {what}")
            self._output.note(f"look: reenact approvals show {name}:{number}")
            if call or action["type"] == "approval":
                other = "or deny, or edit" if call else "or deny"
                self._output.note(f"say: reenact approvals approve {name}:{number} ({other})")
            else:
                self._output.note(f"say: reenact approvals answer {name}:{number} {possible(action)}")
            self._output.note(f"then go on: reenact resume {name}")
        if doubts:
            tool = doubts[0]["tool"]
            self._output.note(f"say so: reenact resume {name} --settle {tool}=ok|error|retry [--output TEXT]")

    def _aside(self, text: str) -> None:
        if self._output.tells and not self._output.json:
            self._output.say(text, style="dim")

    def _prompt(self, prompt: str) -> str:
        if prompt == STDIN:
            try:
                prompt = self._stdin.read(PROMPT_BYTES_MAX)
            except UnicodeDecodeError as error:
                raise BadInput(f"stdin is not UTF-8: {error}.") from None
        if not prompt.strip():
            raise BadInput("the prompt is empty.")
        if "\0" in prompt or (not prompt.isascii() and prompt.encode(errors="replace").decode() != prompt):
            raise BadInput("the prompt holds U+0000, or text that is no Unicode, which no model takes.")
        return prompt


_CUT = {"max_tokens": "the answer was cut off: no tokens left.", "refusal": "the model refused to go on."}
"""Answers that are not whole, and look it only on a terminal."""


def _settlements(given: tuple[str, ...], output: str | None) -> dict[str, tuple[str, str]]:
    settled = {}
    for each in given:
        call, equals, outcome = each.partition("=")
        if not equals or not call or outcome not in _OUTCOMES:
            raise BadInput(f"--settle {each!r} is not of the form CALL=ok, CALL=error or CALL=retry.")
        if call in settled:
            raise BadInput(f"--settle says twice what became of {call}.")
        settled[call] = (outcome, output if output is not None else _SAID.get(outcome, ""))
    if output is not None and not settled:
        raise BadInput("--output goes with --settle.")
    return settled


def _typed(output: Output) -> Iterator[str]:
    """Lines from a person, with a history and the keys of an editor where there are any."""
    try:
        import readline

        readline.set_auto_history(True)
    except ImportError:
        pass
    while True:
        try:
            line = input("› ")
        except EOFError:
            output.err.write("\n")
            return
        except KeyboardInterrupt:
            output.err.write("\n")
            output.note("/exit or Ctrl-D leaves.")
            continue
        yield line


def _piped(stdin: TextIO) -> Iterator[str]:
    try:
        for line in stdin:
            yield line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise BadInput(f"stdin is not UTF-8: {error}.") from None
