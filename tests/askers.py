"""Tools that go no further before a person speaks: a refund that needs approval, a deployment that asks for itself."""

from __future__ import annotations

from typing import Any

from reenact import ActionSpec, Runtime, ToolContext, tool

done: list[str] = []
"""What they did, in order. Whoever uses them clears it before each test."""

REFUND = [{"tool_calls": [{"name": "refund", "input": {"order": "42"}}]}, {"text": "Done."}]
REFUND_42 = 'refund {"order": "42"}'


@tool(effect="idempotent", approval="ask")
def refund(order: str) -> str:
    """Refund an order."""
    done.append(order)
    return f"refunded {order}"


async def waiting(runtime: Runtime) -> Any:
    """A refund waits for approval. The image, and the question's id."""
    bot = await runtime.image("support")
    result = await bot.send("Refund order 42")
    assert (result.status, result.waiting_for) == ("waiting", "t1") and result.action == f"{bot.session_id}:a1"
    return bot, result.action


DEPLOY = [{"tool_calls": [{"name": "deploy", "input": {}}]}, {"text": "Done."}]


@tool(effect="idempotent", timeout_s=0.3)
async def deploy(context: ToolContext) -> str:
    """Deploy, if a person says so."""
    done.append("asked")
    action = await context.actions.require_action(
        ActionSpec(job_id=context.job_id, type="confirm", payload={"message": "Deploy to production?"})
    )
    action = await context.actions.wait_for_resolution(action.action_id)
    done.append("deployed" if action.resolution["approved"] else "left")
    return done[-1]


async def put(runtime: Runtime) -> tuple[Any, Any]:
    """A tool has asked. The run, and the question."""
    bot = await runtime.image("support")
    sent = await bot.send("deploy").run()
    result = await sent
    assert result.status == "waiting" and result.action == f"{bot.session_id}:a1"
    return sent, (await runtime.action(result.action))
