"""An agent with a tool, on a log in a file; then everything it did decided again from that log.

Prints:
    assistant: refunded 1250 cents of order 42
    refunds made: 1
    identical: 16 events decided again, 0 network calls
"""

import asyncio
import tempfile

from reenact import Runtime, ToolContext, tool

REFUNDS: dict[str, str] = {}


@tool(effect="idempotent")
def refund(order: str, cents: int, call: ToolContext) -> str:
    """Refund an order."""
    REFUNDS[call.idempotency_key] = f"refunded {cents} cents of order {order}"
    return REFUNDS[call.idempotency_key]


async def main(folder: str) -> None:
    async with Runtime(f"sqlite:///{folder}/agents.db", tools=[refund], base_path=folder) as runtime:
        bot = await runtime.image("support", instructions="You refund what was broken.", model="scripted:tools")
        result = await bot.send('refund {"order": "42", "cents": 1250}')
        print(f"assistant: {result.text}")
        print(f"refunds made: {len(REFUNDS)}")
        print((await runtime.replay(bot.session_id)).summary)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(folder))
