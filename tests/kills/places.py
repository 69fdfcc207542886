"""Where processes are killed: failpoints, the so-many-th time that they are come by."""

from __future__ import annotations

from typing import Any

IN_A_TURN = [
    "cell.decide:2",
    "cell.decided:2",
    "cell.accepted:2",
    "group.commit:2",
    "group.committed:3",
    "group.published:3",
    "commit.begin:1",
    "commit.begun:2",
    "commit.rows:3",
    "commit.recorded:2",
    "commit.executed:1",
    "tell.begin:2",
    "tell.emitted:2",
    "tell.owed:2",
    "tell.replied:1",
    "effect.begin:1",
    "effect.begin:3",
    "effect.performed:2",
    "effect.told:1",
    "model.request:1",
    "model.answered:1",
    "signal:2",
    "tool.start:1",
    "tool.ended:1",
    "close.begin:1",
    "close.stopped:1",
    "log.close:1",
    "open.locked:1",
    "open.ready:1",
]
"""In a turn with four tools, one of each class."""

AGAIN = ["effect.recover:1", "group.commit:1", "commit.executed:1", "probe.start:1", "probe.ended:1", "tell.owed:1"]
"""While a process takes up what was left."""

ASKS = {"max_requests_daily": 0, "on_breach": "ask"}

WHERE: dict[str, dict[str, Any]] = {
    **{name: {"first": {"inside": "ship after"}, "role": "resume"} for name in ("effect.recover", "probe.start")},
    "probe.ended": {"first": {"inside": "ship after"}, "role": "resume"},
    "model.failed": {"always": {"fails": 12}},
    "ledger.ask": {"always": {"budget": {"max_requests_daily": 40}}},
    "ledger.asked": {"always": {"budget": {"max_requests_daily": 40}}},
    "ledger.raise": {"role": "approve", "always": {"calls": ["wire"], "budget": ASKS}},
    "ledger.raised": {"role": "approve", "always": {"calls": ["wire"], "budget": ASKS}},
    "ledger.recall": {"always": {"budget": {"max_requests_daily": 40}, "limits": "model_called"}},
    "ledger.recalled": {"always": {"budget": {"max_requests_daily": 40}, "limits": "model_called"}},
    "ledger.count": {"always": {"limits": "model_called"}},
    "ledger.counted": {"always": {"limits": "model_called"}},
    "launch.found": {"role": "approve", "always": {"calls": ["wire"]}},
    "socket.request": {"role": "ask", "more": {"requests": 10}},
    "socket.answer": {"role": "ask", "more": {"requests": 10}},
    "projection.commit": {"first": {}, "role": "project"},
    "projection.committed": {"first": {}, "role": "project"},
}
"""Failpoints that are not come by in any turn: what comes before, and what is being done there."""
