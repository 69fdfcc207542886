"""The errors of the project, in one tree. The docstring of a class is its default message.

ReenactError
├── Refused               you asked something impossible; nothing was written
│   ├── BadInput          the input is malformed
│   │   ├── BadQuery      the SQL cannot be run, or not within its bounds
│   │   ├── BadPolicy     a policy file that says what no policy can
│   │   └── BadResolution the answer does not fit what was asked
│   ├── PolicyDenied      a rule forbids it; nothing was done
│   ├── OverBudget        a limit of what may be used forbids it; nothing was done
│   ├── NotFound          no such thing
│   ├── Conflict          the stream moved on; read again
│   ├── Full              there is no room for one more of these; nothing was written
│   ├── KeyReused         the same idempotency key came with another command
│   ├── Unauthenticated   the credential is not accepted
│   ├── Unrevealed        a secret was to be encoded, pickled or stored
│   ├── Closed            it was closed before you asked
│   ├── ActionOver        the question was answered, has expired or was taken back
│   ├── ActionLate        the answer came after the question had expired
│   ├── ActionChanged     what would run is not what you were shown
│   ├── ClockBehind       the clock says that the question was not asked yet
│   └── NotAPerson        an agent or a tool wanted to decide
│       └── AskedInside   so did a process that the runtime itself began
├── StoreError            the log
│   ├── Fenced            another owner has taken over; nothing was written
│   ├── Owned             another process owns the file; nothing was written
│   ├── NoOwner           no process answers for the file; nothing was asked
│   ├── Busy              another program holds a lock on it; nothing was written
│   ├── UnknownOutcome    the commit raised: it may or may not be in the log
│   ├── DiskFull          no room; nothing was written
│   ├── StoreFailed       an earlier error stopped the store; reopen it
│   ├── NoAccess          this user may not open the file
│   ├── NewerFormat       a newer release wrote this file
│   ├── NotALog           this is no reenact log
│   ├── Corrupt           the file contradicts itself
│   └── ViewFailed        the file of a view cannot be used; the log is as it was
├── RequestTimeout        no response in time
└── Cancelled             it is not wanted any more
"""

from __future__ import annotations

from collections.abc import Callable, Iterable


class ReenactError(Exception):
    """Something went wrong. Its message holds none of the secrets that runtimes of this process know, see `hide`."""

    code = "error"

    def __init__(self, message: str | None = None) -> None:
        text = message or " ".join((type(self).__doc__ or "").split())
        for hidden in tuple(_HIDDEN):
            text = hidden(text)
        super().__init__(text)


_HIDDEN: list[Callable[[str], str]] = []


def hide(hidden: Callable[[str], str]) -> Callable[[], None]:
    """Have every message from now on go through `hidden`, which takes secrets out. Gives what ends it."""
    _HIDDEN.append(hidden)

    def end() -> None:
        if hidden in _HIDDEN:
            _HIDDEN.remove(hidden)

    return end


class Refused(ReenactError):
    """This cannot be done; nothing was written."""

    code = "refused"


class BadInput(Refused):
    """The input is malformed."""

    code = "bad_input"


class BadQuery(BadInput):
    """The query cannot be run."""

    code = "bad_query"


class BadPolicy(BadInput):
    """The policy cannot be read."""

    code = "bad_policy"


class OverBudget(Refused):
    """There is too little left of a budget; nothing was done."""

    code = "budget_exceeded"


class PolicyDenied(Refused):
    """A rule forbids this; nothing was done."""

    code = "policy_denied"

    def __init__(self, message: str | None = None, violations: Iterable[str] = ()) -> None:
        """violations: every rule that is broken, in words."""
        super().__init__(message)
        self.violations = tuple(violations)


class NotFound(Refused):
    """There is no such thing."""

    code = "not_found"


class Conflict(Refused):
    """The stream has moved on since it was read; nothing was written. Read it again and decide anew."""

    code = "conflict"


class Full(Refused):
    """There is no room for more of these; nothing was written. Try again when some of them are over."""

    code = "full"


class KeyReused(Refused):
    """This idempotency key was used before with another command; nothing was written."""

    code = "key_reused"


class Unauthenticated(Refused):
    """This credential is not accepted."""

    code = "unauthenticated"


class Unrevealed(Refused):
    """A secret can be revealed, and nothing else: it is not encoded, pickled or stored."""

    code = "unrevealed"


class Closed(Refused):
    """It is closed."""

    code = "closed"


class BadResolution(BadInput):
    """The answer does not fit what was asked; nothing was decided."""

    code = "bad_resolution"


class ActionOver(Refused):
    """This question is over: it was answered, has expired, or was taken back. Nothing was decided now."""

    code = "action_over"


class ActionLate(Refused):
    """The answer came too late: the question has expired, which is recorded now. Nothing was approved."""

    code = "action_expired"


class ActionChanged(Refused):
    """What would run is not what you were shown; nothing was decided. Look at it again."""

    code = "action_changed"


class ClockBehind(Refused):
    """The clock says that the question was not asked yet; nothing was decided. Set the clock, and answer again."""

    code = "clock_behind"


class NotAPerson(Refused):
    """An agent or a tool cannot decide an action: a person must."""

    code = "not_a_person"


class AskedInside(NotAPerson):
    """This was asked from inside of the runtime's own process tree, where a tool could be asking; nothing was done.
    Ask from another terminal, or in the program."""

    code = "asked_inside"


class StoreError(ReenactError):
    """The log failed."""

    code = "store"


class Fenced(StoreError):
    """A newer owner has taken over this log; nothing was written. Stop, or open it anew."""

    code = "fenced"


class Owned(StoreError):
    """Another process owns this log; nothing was written."""

    code = "owned"


class NoOwner(StoreError):
    """No process that owns this log answers; nothing was asked of it."""

    code = "no_owner"


class Busy(StoreError):
    """Another program holds a lock on this log; nothing was written. Try again."""

    code = "busy"


class UnknownOutcome(StoreError):
    """The commit raised an error: the events may or may not be in the log. Reopen the log and compare event ids."""

    code = "unknown_outcome"


class DiskFull(StoreError):
    """There is no room left on the disk; nothing was written."""

    code = "disk_full"


class StoreFailed(StoreError):
    """The log stopped after an error and accepts no writes until it is reopened."""

    code = "store_failed"


class NoAccess(StoreError):
    """This user may not open the file, or may not write beside it."""

    code = "no_access"


class NewerFormat(StoreError):
    """The file was written by a newer release. Upgrade reenact to open it."""

    code = "newer_format"


class NotALog(StoreError):
    """The file is not a reenact log."""

    code = "not_a_log"


class Corrupt(StoreError):
    """The file contradicts itself."""

    code = "corrupt"


class ViewFailed(StoreError):
    """The file of a view cannot be used. The log is as it was; delete the file, and it is built anew."""

    code = "view_failed"


class RequestTimeout(ReenactError):
    """No response came in time."""

    code = "request_timeout"


class Cancelled(ReenactError):
    """What was being done is not wanted any more."""

    code = "cancelled"
