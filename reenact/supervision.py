"""What runs, as a program sees and stops it: agents awake, and what they are at."""

from __future__ import annotations

from .actors.session import State as SessionState
from .catalog.agents import Agents, Awake
from .events.agent import Interrupt, ResolveTool, StopAgent
from .events.session import CancelJob
from .given import checked_text
from .identity.access import NO_DECISIONS
from .inventory import Inventory
from .secrets.discretion import discreet


@discreet
class Supervision(Inventory):
    """The part of `Runtime` that is about what runs."""

    _agents: Agents

    async def wake(self, image_id: str, session_id: str | None = None) -> tuple[str, bool]:
        """Wake an image's agent. Returns its id, and whether it was awake already."""
        state = await self._images.state(image_id)
        there = session_id or state.session_id
        await self._sender.ready(state, there)
        # Read last, and asked at once: a rule that was set while prices were waited for holds for it.
        return await self._sender.wake(await self._images.state(image_id), there)

    async def session_state(self, session_id: str) -> SessionState:
        """The lane of a session: what runs, what is queued, what it waits for. Raises NotFound."""
        return await self._sessions.state(session_id)

    async def resume(self, session_id: str) -> None:
        """Take up what one session owes, as `open` does for all of them unless it was told not to.

        An agent that sleeps while inputs wait is woken. Nothing owed: nothing happens. Raises NotFound.
        """
        await self._hold(session_id)
        await self._sessions.resume(session_id, self.wake, self.bring_policy)

    async def stop_image(self, image_id: str, *, reason: str = "stopped") -> None:
        """Put an image's agents to sleep, interrupting what they do; its conversations stay.

        What is queued stays queued, and runs when the next message or `wake` wakes an agent.
        """
        await self.image_state(image_id)
        await self._images.tell_sessions(image_id, StopAgent(reason=reason))

    async def stop_agent(self, agent_id: str, *, reason: str = "stopped") -> bool:
        """Put one agent to sleep, and no other. False when none of that id is awake."""
        awake = await self.find_agent(agent_id)
        if awake is None:
            return False
        await self._access.ask(f"session-{awake.session_id}", StopAgent(reason=reason))
        return True

    async def interrupt(
        self, image_id: str, *, session_id: str | None = None, reason: str = "user_interrupt"
    ) -> str | None:
        """Stop the running turn of an image, keeping what was said. Returns the agent's id, None when it sleeps."""
        state = await self.image_state(image_id)
        reply = await self._access.ask(f"session-{session_id or state.session_id}", Interrupt(reason=reason))
        agent_id: str | None = reply.states[1].agent_id
        return agent_id

    async def cancel(self, session_id: str, job_id: str, *, reason: str = "user_cancel") -> None:
        """Take a queued job out, or interrupt it where it runs. One that is over is fine."""
        await self._access.ask(f"session-{session_id}", CancelJob(job_id=job_id, reason=reason))

    async def resolve(self, session_id: str, tool: str, outcome: str, output: str = "") -> None:
        """Say what became of a call in doubt: `ok` or `error` with what the model is told, or `retry`. Raises
        NotAPerson where an agent or a tool says so.
        """
        checked_text(tool, "tool")
        self._access.check_person(NO_DECISIONS)
        await self.bring_policy(session_id)
        await self._access.ask(f"session-{session_id}", ResolveTool(tool=tool, outcome=outcome, output=output))

    async def agent_of(self, image_id: str) -> str | None:
        """The id of the agent in an image's current session, None when it sleeps."""
        state = await self.find_image(image_id)
        return None if state is None else await self._agents.at(state.session_id)

    async def agents(self, container_id: str) -> list[Awake]:
        """The awake agents of a container, in all sessions of its images."""
        return await self._agents.of_container(container_id)

    async def find_agent(self, agent_id: str) -> Awake | None:
        """An awake agent by its id, None when there is none."""
        return await self._agents.find(agent_id)
