"""What was under way when its owner went, so that nobody knows whether it took effect. Pure.

A call of a model is made again. A call of a tool says by its class what follows: `read` and `idempotent` run again with
the same key, `probeable` asks the world first, `unsafe` waits for a person. Before anything begins again the rules are
asked again, and the tool is looked at where it would run.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from ..events.agent import (
    ProveTool,
    RecoverEffect,
    ResolveTool,
    ToolDoubted,
    ToolRelaunched,
    ToolSettled,
    ToolUnproved,
)
from ..events.errors import BadInput, NotFound, PolicyDenied
from ..events.message import Event, Stamp
from .mind import State, Tool, definition_of, money_terms, tool_of, with_tool
from .policy import Verdict, denied_by
from .step import again, called
from .terms import of_any_day
from .tool import BEGAN_BEFORE, forbidden, refused


def recover(state: State, message: RecoverEffect) -> Sequence[Event]:
    """What a call may do whose owner is gone: a model's is made again, a tool's as its class says."""
    call = state.call
    if call is not None and call.id == message.effect:
        there = call.attempt == message.attempt and state.stopping is None and not call.stuck
        return called(_anew(state), again(state)) if there else ()
    tool = tool_of(state, message.effect)
    if tool is None or tool.status != "started" or tool.attempt != message.attempt or state.stopping is not None:
        return ()
    if tool.effect in ("read", "idempotent"):
        return _run_again(state, tool, "error" if tool.effect == "read" else "unknown")
    doubted = ToolDoubted(tool=tool.id, attempt=tool.attempt)
    return [doubted] if tool.effect == "probeable" else [doubted, ToolUnproved(tool=tool.id)]


def _anew(state: State) -> State:
    """Without what was allotted to an owner that is gone: its day may be over by now, and no command says so. Where no
    ledger is asked, whose answer would say so, what is set aside has the highest price of any day.
    """
    terms, purse = money_terms(state), state.purse
    if terms is None:
        return state
    if terms.ledger is not None:
        return state if purse is None or purse.grant is None else replace(state, purse=replace(purse, grant=None))
    definition, overrides = state.definition, state.overrides
    if definition is not None and definition.terms is not None:
        state = replace(state, definition=replace(definition, terms=of_any_day(definition.terms)))
    if overrides is not None and overrides.terms is not None:
        state = replace(state, overrides=replace(overrides, terms=of_any_day(overrides.terms)))
    return state


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
        _check_allowed(state, tool)
        return [_relaunched(tool)]
    if message.outcome not in ("ok", "error"):
        raise BadInput(f"A call is settled as ok, error or retry, not as {message.outcome!r}.")
    return [ToolSettled(tool=tool.id, outcome=message.outcome, output=message.output, proof="person")]


def _was(state: State, tool: str) -> bool:
    """Whether a call of this name was ever asked for."""
    number = tool[1:]
    is_number = number.isascii() and number.isdigit() and len(number) < 20
    return is_number and tool == f"t{int(number)}" and 0 < int(number) <= state.tools


def _check_allowed(state: State, tool: Tool) -> None:
    """Raises PolicyDenied where a person cannot have a call begin again, as far as is known before it is looked at."""
    said = forbidden(state, tool)
    if said is not None:
        violations = said.violations if isinstance(said, Verdict) else ()
        raise PolicyDenied(f"{denied_by(said)}: {said.reason}. Settle the call as ok or error.", violations)
    if tool.approval is None and definition_of(state).approval_required:
        raise PolicyDenied("Every call needs an approval by now, and this one has none. Settle it as ok or error.")


def _run_again(state: State, tool: Tool, settled: str) -> Sequence[Event]:
    """Another attempt, where the rules of the moment let it begin. settled: how it ends where they do not."""
    said = forbidden(state, tool)
    if said is None:
        return [_relaunched(tool)]
    return refused(tool.id, said, BEGAN_BEFORE, attempt=tool.attempt + 1, settled=settled)


def _relaunched(tool: Tool) -> ToolRelaunched:
    """Begin again. It is looked at first: it may be another tool by now, or one that a person must allow."""
    return ToolRelaunched(tool=tool.id, attempt=tool.attempt)


# -- evolve --


def on_doubted(state: State, event: ToolDoubted, stamp: Stamp) -> State:
    return with_tool(state, event.tool, stamp, status="doubted")


def on_unproved(state: State, event: ToolUnproved, stamp: Stamp) -> State:
    return with_tool(state, event.tool, stamp, status="unproved")
