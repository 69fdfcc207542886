"""Messages to sessions, and who sends each. Sub-sessions draw on the ledger of all."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from reenact.events.budget import BudgetSpec
from reenact.events.content import Text
from reenact.events.errors import Closed
from reenact.events.model import ModelParams
from reenact.events.session import Definition, Send, Waking

from .provider import RATE

if TYPE_CHECKING:
    from .world import World


class Messages:
    """sent: the principal of each job."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sent: dict[str, str] = {}

    async def send(self, name: str) -> None:
        """A message to a session; where principals share the sessions, a few of them."""
        chance, people = self.world.chance, self.world.drawn.people
        spec = BudgetSpec(max_tokens=chance.randint(300, 4000)) if chance.random() < 0.3 else None
        definition = Definition(
            image_version=1,
            model=RATE.model,
            params=ModelParams(max_tokens=chance.choice([50, 100, 400])),
            max_steps=4,
            terms=self.world.limits.terms(spec),
        )
        waking = Waking(agent_id="a", image_id="i", container_id="c", registered_at=1, definition=definition)
        text = Text(text="x" * chance.randint(1, 300))
        for n in range(1 if people is None else people.randint(1, 4)):
            job = f"job-{name}-{n}"
            self.sent[job] = "ann" if people is None else people.choice(["ann", "bob", "bob", "cid"])
            with suppress(Closed):
                message = Send(job_id=job, content=(text,), waking=waking)
                await self.world.kernel.ask(f"session-{name}", message, principal=self.sent[job])

    def runs_for(self, states: tuple[Any, ...]) -> str:
        """Who sent the job that runs in a session."""
        running = states[0].running
        return self.sent.get(running.job_id, "ann") if running is not None else "ann"
