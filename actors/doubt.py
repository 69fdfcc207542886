"""What was under way when its owner went, so that nobody knows whether it took effect. Pure.

A call of a model is made again. A call of a tool says by its class what follows: `read` and `idempotent` run again with
the same key, `probeable` asks the world first, `unsafe` waits for a person. Before anything begins again the rules are
asked again.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..events.agent import ProveTool, RecoverEffect, ResolveTool, ToolDoubted, ToolSettled, ToolUnproved
from ..events.errors import BadInput, NotFound, PolicyDenied
from ..events.message import Event, Stamp
from ..events.policy import PolicyDecision
from .mind import State, Tool, tool_of, with_tool
from .policy import SHUT, Verdict, denied_by
from .step import again, called
from .tool import refused, run


def recover(state: State, message: RecoverEffect) -> Sequence[Event]:
    """What a call may do whose owner is gone: a model's is made again, a tool's as its class says."""
    call = state.call
    if call is not None and call.id == message.effect:
        there = call.attempt == message.attempt and state.stopping is None and not call.stuck
        return called(state, again(state)) if there else ()
    tool = tool_of(state, message.effect)
    if tool is None or tool.status != "started" or tool.attempt != message.attempt or state.stopping is not None:
        return ()
    if tool.effect in ("read", "idempotent"):
        return _run_again(state, tool, "error" if tool.effect == "read" else "unknown")
    doubted = ToolDoubted(tool=tool.id, attempt=tool.attempt)
    return [doubted] if tool.effect == "probeable" else [doubted, ToolUnproved(tool=tool.id)]


def prove(state: State, message: ProveTool) -> Sequence[Event]:
    """What follows from what the world says: the call happened, or it did not and runs now, or a person must say."""
    tool = tool_of(state, message.tool)
    if tool is None or tool.status != "doubted":
        return ()
    if message.happened is None:
        return [ToolUnproved(tool=tool.id)]
    if message.happened:
        return [ToolSettled(tool=tool.id, outcome="ok", output=message.output, proof="probe")]
    return _run_again(state, tool, "error")


def resolve(state: State, message: ResolveTool) -> Sequence[Event]:
    """What a person says of a call that the world could not prove. Said before, and over by now: nothing happens."""
    tool = tool_of(state, message.tool)
    if tool is None:
        if _was(state, message.tool):
            return ()
        raise NotFound(f"There is no call {message.tool} in this session.")
    if tool.status != "unproved":
        raise BadInput(f"Call {tool.id} is not in doubt: it is {tool.status}.")
    if message.outcome == "retry":
        verdict = _forbidden(state, tool)
        if verdict is not None:
            raise PolicyDenied(
                f"{denied_by(verdict)}: {verdict.reason}. Settle the call as ok or error.", verdict.violations
            )
        return [run(tool)]
    if message.outcome not in ("ok", "error"):
        raise BadInput(f"A call is settled as ok, error or retry, not as {message.outcome!r}.")
    return [ToolSettled(tool=tool.id, outcome=message.outcome, output=message.output, proof="person")]


def _was(state: State, tool: str) -> bool:
    """Whether a call of this name was ever asked for."""
    number = tool[1:]
    is_number = number.isascii() and number.isdigit() and len(number) < 20
    return is_number and tool == f"t{int(number)}" and 0 < int(number) <= state.tools


def _run_again(state: State, tool: Tool, settled: str) -> Sequence[Event]:
    """Another attempt, where the rules of the moment let it begin. settled: how it ends where they do not."""
    verdict = _forbidden(state, tool)
    if verdict is None:
        return [run(tool)]
    ended = "It began before, and was not run again"
    return refused(tool.id, verdict, ended, attempt=tool.attempt + 1, settled=settled)


def _forbidden(state: State, tool: Tool) -> Verdict | None:
    """What forbids another attempt of a call: a rule, or a rule that asks for an approval which the call has not."""
    if state.rights is None:
        return None
    verdict = state.rights.tool(tool.name)
    if verdict.decision is PolicyDecision.REQUIRE_APPROVAL and tool.approval is not None:
        return None
    return verdict if verdict.decision in SHUT else None


# -- evolve --


def on_doubted(state: State, event: ToolDoubted, stamp: Stamp) -> State:
    return with_tool(state, event.tool, stamp, status="doubted")


def on_unproved(state: State, event: ToolUnproved, stamp: Stamp) -> State:
    return with_tool(state, event.tool, stamp, status="unproved")
