"""The bus: asking by name, hearing events by type, and a handler that raises and harms nobody.

Prints:
    container acme: True
    said live: Hello! I am a script, and this is all I say.
    stored: job_queued agent_registered agent_configured job_started turn_started model_called
    stored: model_answered turn_completed job_succeeded
    asked for an image that is not there: Image not found: img_nowhere
"""

import asyncio

from reenact import Runtime


async def main() -> None:
    async with Runtime("memory://") as runtime:
        await runtime.request("container_create_request", {"containerId": "acme"})
        found = await runtime.request("container_get_request", {"containerId": "acme"})
        print(f"container acme: {found.data['exists']}")

        made = await runtime.request("image_create_request", {"containerId": "acme", "config": {"name": "greeter"}})
        image_id = made.data["record"]["imageId"]

        live: list[str] = []
        stored: list[str] = []
        runtime.on("text_delta", lambda event: live.append(event.data.text))
        runtime.on("job_queued", lambda event: 1 / 0)  # it is counted and told of; the others hear on
        runtime.on_any(lambda event: stored.append(event.type), filter=lambda event: hasattr(event, "version"))

        bot = await runtime.open_image(image_id)
        await bot.send("hi")
        print(f"said live: {''.join(live)}")
        print("stored:", *stored[:6])
        print("stored:", *stored[6:])

        missing = await runtime.request("image_run_request", {"imageId": "img_nowhere"})
        print(f"asked for an image that is not there: {missing.data['error']}")


if __name__ == "__main__":
    asyncio.run(main())
