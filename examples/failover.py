"""A model that is out of order, another that takes its place, and what the log says of it.

`scripted:fails:CODE` fails with that code at every call, as a provider would. Give `anthropic:…` and `openai:…`
instead, with their keys in the environment.

Prints:
    assistant: Still here?
    scripted:fails:overloaded as primary
    scripted:echo as fallback, after overloaded
    nobody: models_exhausted, ['billing', 'auth', 'cooldown']
"""

import asyncio
import tempfile

from reenact import Failover, Runtime


async def main(folder: str) -> None:
    async with Runtime("memory://", base_path=folder, failover=Failover(retries=0)) as runtime:
        bot = await runtime.image("support", model="scripted:fails:overloaded", fallbacks=["scripted:echo"])
        print(f"assistant: {(await bot.send('Still here?')).text}")
        for event in await bot.events():
            if event.type == "model_selected":
                after = f", after {event.data.because}" if event.data.because else ""
                print(f"{event.data.model} as {event.data.reason}{after}")

        # For one message another chain, and nobody else is asked; a model that cools down is passed over.
        others = ["scripted:fails:auth", "scripted:fails:overloaded"]
        result = await bot.send("And now?", model="scripted:fails:billing", fallbacks=others)
        failure = result.failure
        print(f"nobody: {failure.code}, {[each.reason for each in failure.tried]}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(folder))
