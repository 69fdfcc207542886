"""What a conversation may do, written a second time: with lists and dicts that change in place, and no events.

Slow, obvious and independent of the deciders; the machine of `test_conversation_machine` holds the two against each
other. Every method gives True when something changed, or raises what the command is refused with.
"""

from __future__ import annotations

from typing import Any

from reenact.events.errors import BadInput, Closed, Conflict, NotFound
from reenact.events.session import Definition

REPEATABLE = ("read", "idempotent")


class Talk:
    """running: the job in the lane. ended: how each job ended. open: calls of tools without an end, oldest first."""

    def __init__(self) -> None:
        self.session: str | None = None
        self.image: str | None = None
        self.closed = False
        self.agent: str | None = None
        self.definition: Definition | None = None
        self.queue: list[tuple[str, int, int | None]] = []  # job, priority, deadline
        self.running: tuple[str, int, int | None] | None = None
        self.stopping: str | None = None
        self.ended: dict[str, str] = {}
        self.calls = self.tools = self.steps = 0
        self.call: list[Any] | None = None  # id, attempt
        self.open: dict[str, list[Any]] = {}  # id -> effect, status, attempt
        self.asked = 0
        self.stop_reason: str | None = None
        self.retries: dict[str, int] = {}  # of a call, as people said

    # -- asked of the session --

    def create(self, session: str, image: str) -> bool:
        if self.session is None:
            self.session, self.image = session, image
            return True
        if (self.session, self.image) != (session, image):
            raise Conflict
        return False

    def send(self, job: str, priority: int, deadline: int | None, agent: str | None, definition: Definition) -> bool:
        self._there()
        self._own(agent)
        if job in self.live:
            return False
        if self.agent is None and agent is None:
            raise BadInput
        ahead = [queued for queued in self.queue if queued[1] >= priority]
        self.queue.insert(len(ahead), (job, priority, deadline))
        if agent is not None:
            self._awake(agent, definition)
        self._advance()
        return True

    def wake(self, agent: str, definition: Definition) -> bool:
        self._there()
        self._own(agent)
        changed = self._awake(agent, definition)
        self._advance()
        return changed

    def _own(self, agent: str | None) -> None:
        if agent is not None and self.image != "img_1":  # whose agents they all are here
            raise BadInput

    def cancel(self, job: str, how: str = "cancelled") -> bool:
        if self.running is not None and self.running[0] == job:
            return self._stop(how)
        if job in [queued[0] for queued in self.queue]:
            self.queue = [queued for queued in self.queue if queued[0] != job]
            self.ended[job] = how
            return True
        return False

    def interrupt(self) -> bool:
        return self._stop("cancelled")

    def stop_agent(self) -> bool:
        was_awake, self.agent = self.agent is not None, None
        return self._stop("cancelled") or was_awake

    def close(self) -> bool:
        if self.session is None or self.closed:
            return False
        self.closed, self.agent = True, None
        self.ended.update((job, "cancelled") for job, _, _ in self.queue)
        self.queue = []
        self._stop("cancelled")
        return True

    # -- said by the world --

    def answer(self, call: str, stop_reason: str, checks: list[tuple[str, bool]]) -> bool:
        """checks: effect class, and whether it is a bad call."""
        if self.call is None or self.call[0] != call:
            return False
        no_run = self.stopping or stop_reason in ("refusal", "context_exceeded") or self._spent
        self.call, self.stop_reason, self.asked = None, stop_reason, len(checks)
        for effect, bad in checks:
            self.tools += 1
            if not bad and not no_run:
                self.open[f"t{self.tools}"] = [effect, "started", 1]
        self._proceed()
        return True

    def fail(self, call: str, attempt: int, code: str, again: bool) -> bool:
        if self.call != [call, attempt]:
            return False
        if again and not self.stopping:
            self.call[1] += 1
        else:
            self._end("interrupted" if self.stopping or code == "cancelled" else "error")
        return True

    def settle(self, tool: str, outcome: str) -> bool:
        effect, status, _ = self.open.get(tool, ("", "", 0))
        if status != "started":
            return False
        if outcome == "unknown" and not self.stopping and effect not in REPEATABLE:
            self.open[tool][1] = "unproved"
        else:
            self._settled(tool)
        return True

    def recover(self, effect: str, attempt: int) -> bool:
        if self.stopping:
            return False
        if self.call == [effect, attempt]:
            self.call[1] += 1
            return True
        if effect not in self.open or self.open[effect][1:] != ["started", attempt]:
            return False
        kind = self.open[effect][0]
        if kind in REPEATABLE:
            self._run(effect)
        else:
            self.open[effect][1] = "doubted" if kind == "probeable" else "unproved"
        return True

    def prove(self, tool: str, happened: bool | None) -> bool:
        if tool not in self.open or self.open[tool][1] != "doubted":
            return False
        if happened is None:
            self.open[tool][1] = "unproved"
        elif happened:
            self._settled(tool)
        else:
            self._run(tool)
        return True

    # -- said by a person --

    def resolve(self, tool: str, outcome: str) -> bool:
        if tool not in self.open:
            if tool not in [f"t{n}" for n in range(1, self.tools + 1)]:
                raise NotFound
            return False
        if self.open[tool][1] != "unproved" or outcome not in ("ok", "error", "retry"):
            raise BadInput
        if outcome == "retry":
            self.retries[tool] = self.retries.get(tool, 0) + 1
            self._run(tool)
        else:
            self._settled(tool)
        return True

    # -- what follows --

    @property
    def live(self) -> list[str]:
        """Jobs accepted and not over."""
        return [job for job, _, _ in ([self.running] if self.running else []) + self.queue]

    @property
    def waits(self) -> list[str]:
        """Calls that only a person can settle."""
        return [tool for tool, (_, status, _) in self.open.items() if status == "unproved"]

    @property
    def owes(self) -> list[str]:
        jobs = [*self.queue, *([self.running] if self.running and not self.stopping else [])]
        limits = [(deadline, job) for job, _, deadline in jobs if deadline is not None]
        out = [f"deadline-{min(limits)[1]}"] if limits else []
        prefix = "stop-" if self.stopping else ""
        if self.call is not None:
            return [*out, f"{prefix}{self.call[0]}"]
        for tool, (_, status, _) in self.open.items():
            if status == "started":
                out.append(f"{prefix}{tool}")
            elif status == "doubted":
                out.append(f"probe-{tool}")
            elif status == "authorised":
                out.append(f"launch-{tool}")
        return out

    def _there(self) -> None:
        if self.session is None:
            raise NotFound
        if self.closed:
            raise Closed

    def _awake(self, agent: str, definition: Definition) -> bool:
        changed = self.agent is None or self.definition != definition
        self.agent = self.agent or agent
        self.definition = definition
        return changed

    def _advance(self) -> None:
        if self.running is None and self.queue and self.agent is not None and not self.closed:
            self.running, self.stopping = self.queue.pop(0), None
            self.steps, self.asked, self.stop_reason = 0, 0, None
            self._call()

    @property
    def _spent(self) -> bool:
        assert self.definition is not None
        return self.steps >= self.definition.max_steps

    def _call(self) -> None:
        self.calls += 1
        self.steps += 1
        self.call = [f"m{self.calls}", 1]

    def _run(self, tool: str) -> None:
        self.open[tool][1] = "authorised"  # it is looked at first

    def start(self, tool: str, attempt: int) -> bool:
        if self.open.get(tool, ["", "", 0])[1:] != ["authorised", attempt]:
            return False
        self.open[tool][1] = "started"
        self.open[tool][2] += 1
        return True

    def _settled(self, tool: str) -> None:
        del self.open[tool]
        self._proceed()

    def _proceed(self) -> None:
        if self.open:
            return
        if self.stopping:
            self._end("interrupted")
        elif self.stop_reason == "context_exceeded":
            self._end("error")
        elif self.stop_reason != "refusal" and (self.asked or self.stop_reason == "pause_turn"):
            if self._spent:
                self._end("error")
            else:
                self._call()
        else:
            self._end("completed")

    def _stop(self, how: str) -> bool:
        if self.running is None or self.stopping:
            return False
        self.stopping = how
        for tool in [tool for tool, (_, status, _) in self.open.items() if status != "started"]:
            del self.open[tool]
        if self.call is None and not self.open:
            self._end("interrupted")
        return True

    def _end(self, reason: str) -> None:
        assert self.running is not None
        hows = {"completed": "succeeded", "error": "failed", "interrupted": self.stopping or "cancelled"}
        assert self.running[0] not in self.ended, "a job ends once"
        self.ended[self.running[0]] = hows[reason]
        self.running = self.stopping = self.call = None
        self.open = {}
        self._advance()
