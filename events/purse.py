"""The words of a session's purse: money set aside before a model is called, and asked for. In its session's stream."""

from __future__ import annotations

from typing import ClassVar

from .budget import NOTHING, Amount, Breach, Grant, Raise
from .message import Command, Effect, Event

# -- asked of a purse --


class TakeAllotment(Command, frozen=True, kw_only=True):
    """The ledger set this aside. Not the newest thing asked for: nothing happens."""

    type: ClassVar[str] = "take_allotment"
    ask: str
    grant: Grant


class RefuseAllotment(Command, frozen=True, kw_only=True):
    """The ledger had too little left, or could not be asked."""

    type: ClassVar[str] = "refuse_allotment"
    ask: str
    breach: Breach


class ReleaseAllotment(Command, frozen=True, kw_only=True):
    """Let go of what is not set aside for a call under way: somebody else needs it."""

    type: ClassVar[str] = "release_allotment"
    ask: str


# -- true of a purse. These names and fields are the storage format: add, never change --


class BudgetReserved(Event, frozen=True, kw_only=True):
    """Set aside for the call that follows, at most: it is settled by the call's end, or, after a crash, by this.

    cost: nano-dollars. max_tokens: what the call may write, which the model is told.
    """

    type: ClassVar[str] = "budget_reserved"
    call: str
    tokens: int
    cost: int
    max_tokens: int


class BudgetDegraded(Event, frozen=True, kw_only=True):
    """A limit was passed, and the call that follows goes to a cheaper model; or to the same, where that is a fallback
    that costs no more than it, for the rest of the job."""

    type: ClassVar[str] = "budget_degraded"
    call: str
    model: str
    degraded_to: str


class BudgetWarned(Event, frozen=True, kw_only=True):
    """These limits are nearly or quite used up; or the call that follows may pass them, or an answer that asked for
    more calls of tools than they say."""

    type: ClassVar[str] = "budget_warned"
    limits: tuple[str, ...]


class BudgetExceeded(Event, frozen=True, kw_only=True):
    """A limit stands in the way of a model call, or of these calls of tools. ask: what the ledger refused.

    call, attempt: the model call that was not made.
    """

    type: ClassVar[str] = "budget_exceeded"
    category: ClassVar[str] = "error"
    breach: Breach
    ask: str | None = None
    call: str | None = None
    attempt: int = 0
    tools: tuple[str, ...] = ()


class AllotmentWanted(Event, frozen=True, kw_only=True):
    """It asks its ledger for more, and gives back what it has: from here on it has spent `spent`, and holds nothing.

    ask: `w1`, `w2`, ... in the session. ledger: the scope whose ledger is asked. want, least: what it would like, and
    what it cannot do without. call, attempt: the model call that waits for it, and after it for `wait_ms` more. tools:
    the calls of tools that wait for it. raises: what a person consented to before.
    """

    type: ClassVar[str] = "allotment_wanted"
    ask: str
    ledger: str
    spent: Amount
    want: Amount
    least: Amount
    priced: bool = True
    call: str | None = None
    attempt: int = 0
    tools: tuple[str, ...] = ()
    wait_ms: int = 0
    raises: Raise | None = None


class AllotmentTaken(Event, frozen=True, kw_only=True):
    type: ClassVar[str] = "allotment_taken"
    ask: str
    grant: Grant


class AllotmentReleased(Event, frozen=True, kw_only=True):
    """It holds on to no more than `kept` of the allotment `ask`."""

    type: ClassVar[str] = "allotment_released"
    ask: str
    spent: Amount
    kept: Amount = NOTHING


class RunRaised(Event, frozen=True, kw_only=True):
    """A person raised a limit of the run. It holds until the run ends."""

    type: ClassVar[str] = "run_raised"
    consent: Raise


# -- owed to the world --


class RequestAllotment(Effect, frozen=True, kw_only=True):
    """Have the ledger set money aside. May be asked again: the ledger knows what it has answered.

    ledger: a scope. principal_id: who sent the job. made: no call that it has spent was made later. at: the time of
    the asking, microseconds UTC: the ledger's is no earlier.
    """

    type: ClassVar[str] = "request_allotment"
    ledger: str
    session_id: str
    principal_id: str = ""
    spent: Amount
    want: Amount
    least: Amount
    priced: bool = True
    at: int = 0
    made: int = 0
    raises: Raise | None = None


COMMANDS = (TakeAllotment, RefuseAllotment, ReleaseAllotment)
EVENTS = (
    BudgetReserved,
    BudgetDegraded,
    BudgetWarned,
    BudgetExceeded,
    AllotmentWanted,
    AllotmentTaken,
    AllotmentReleased,
    RunRaised,
)
