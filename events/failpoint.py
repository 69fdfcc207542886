"""Places where a test can have the process killed, stopped for a while, or an error raised. Off unless asked for.

`REENACT_FAILPOINT=commit.executed:3:kill` kills the process the third time it comes by; commas separate several.
Imports the standard library only.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Mapping

VARIABLE = "REENACT_FAILPOINT"

NAMES: Mapping[str, str] = {
    "cell.decide": "a command has its turn, nothing is decided yet",
    "cell.decided": "its batch is made, nobody knows of it",
    "cell.accepted": "its batch is stored and the stream has taken it over",
    "group.commit": "everything that is queued is about to be handed to the log",
    "group.committed": "the log has returned, nobody has heard of it",
    "group.published": "what was committed was handed over to be told",
    "commit.begin": "a commit was called, the file was not touched yet",
    "commit.begun": "the transaction has begun and the epoch was checked",
    "commit.rows": "the events are in the transaction",
    "commit.recorded": "so are the keys of commands and what is owed",
    "commit.executed": "COMMIT has returned, its caller does not know yet",
    "checkpoint.begin": "the write-ahead log is about to be moved into the file",
    "checkpoint.end": "it was moved, as far as readers let it",
    "open.locked": "the lock of the file is held, the file was not opened yet",
    "open.epoch": "the tables are there, the new owner's epoch is not",
    "open.ready": "the epoch is committed, nothing else was done",
    "log.close": "the log is about to be closed",
    "tell.begin": "what was committed is about to be told, on the loop",
    "tell.emitted": "the bus has heard of it, what it owes has not begun",
    "tell.owed": "what it owes was handed to dispatch, who asked has not heard",
    "tell.replied": "whoever asked has heard",
    "signal": "something is about to be seen live",
    "effect.begin": "an effect is in the table of those under way, and not begun",
    "effect.performed": "an effect has ended, its stream does not know",
    "effect.told": "the end is in the stream's mailbox",
    "effect.recover": "an effect of an owner that is gone is about to be asked about",
    "model.request": "a request is about to be sent to a model",
    "model.answered": "the answer is whole, and not told",
    "model.failed": "the attempt has failed, and that is not told",
    "launch.found": "an approved call was looked at again, and what was found is not told",
    "tool.start": "a tool is about to be entered",
    "tool.ended": "a tool has returned, and its end is not told",
    "probe.start": "the world is about to be asked about a call in doubt",
    "probe.ended": "the world has answered, and that is not told",
    "ledger.ask": "a ledger is about to be asked for money",
    "ledger.asked": "it has answered, and the session does not know",
    "ledger.raise": "a ledger is about to be told of a person's consent to a higher limit",
    "ledger.raised": "the limit is raised, and nothing was asked for yet",
    "ledger.recall": "a session is about to be asked to let go of what its ledger calls back",
    "ledger.recalled": "it has let go, and its ledger does not know",
    "ledger.count": "what was used while nothing was limited is about to be counted",
    "ledger.counted": "it is counted, and its ledger does not know",
    "socket.request": "another process has asked something, nothing was done",
    "socket.answer": "it was done, the answer is not sent",
    "close.begin": "the runtime is about to close",
    "close.stopped": "nothing runs any more, the log is still owned",
    "projection.commit": "the rows of a view and its position are written, not committed",
    "projection.committed": "they are committed, nobody has asked it anything yet",
}
"""Every place by name, and what is true there."""

SLEEP_S = 3600.0
"""How long `sleep` stays: until somebody kills the process, unless `sleep=seconds` says otherwise."""


class Injected(Exception):
    """A failpoint was asked to raise."""


class _Armed:
    __slots__ = ("action", "left")

    def __init__(self, left: int, action: str) -> None:
        self.left = left
        self.action = action


_armed: dict[str, _Armed] = {}


def failpoint(name: str) -> None:
    """Where something may go wrong on purpose. About 40 ns while nothing is armed."""
    if _armed:
        _reached(name)


def arm(text: str) -> None:
    """Arm `name:count:action`, several separated by commas; the empty text disarms all.

    count: fires the so-many-th time, and once. action: `kill` (SIGKILL to this process), `raise` (`Injected`), `eio`
    (OSError, EIO), `sleep` or `sleep=seconds`. Raises ValueError for a name that does not exist.
    """
    wanted: dict[str, _Armed] = {}
    for each in filter(None, text.split(",")):
        name, count, action = (*each.split(":"), "", "")[:3]
        known = action in ("kill", "raise", "eio", "sleep") or action.startswith("sleep=")
        if name not in NAMES or not count.isdecimal() or int(count) < 1 or not known:
            raise ValueError(f"{VARIABLE}: {each!r} is not name:count:kill|raise|eio|sleep with a name of NAMES.")
        wanted[name] = _Armed(int(count), action)
    _armed.clear()
    _armed.update(wanted)


def _reached(name: str) -> None:
    found = _armed.get(name)
    if found is None:
        return
    found.left -= 1
    if found.left != 0:  # Below zero: it fired, or another thread is firing it.
        return
    if found.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if found.action == "raise":
        raise Injected(f"failpoint {name}")
    if found.action == "eio":
        raise OSError(errno.EIO, f"failpoint {name}")
    time.sleep(float(found.action.partition("=")[2] or SLEEP_S))


arm(os.environ.get(VARIABLE, ""))
