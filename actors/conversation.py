"""One conversation is one stream: session, agent and questions decide side by side, and append together. Pure.

They speak to each other in events only, in the order in which the stream has them.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ..events.message import Context
from .action import ACTION
from .agent import AGENT
from .decider import Noun
from .session import SESSION


def _context(states: tuple[Any, ...], context: Context) -> Context:
    session = states[0]
    return replace(
        context,
        container_id=session.container_id,
        image_id=session.image_id,
        session_id=session.session_id,
        agent_id=session.last_agent,
    )


def _job(states: tuple[Any, ...]) -> str | None:
    running = states[0].running
    return running.job_id if running is not None else None


CONVERSATION = Noun("session-", (SESSION, AGENT, ACTION), _context, _job)
