"""Without `async`: the blocking twin, for scripts and notebooks. A model of one's own making is a list of steps.

Prints:
    tool look at shelf 3 → 12 boxes
    Shelf 3 holds 12 boxes.
    messages: user, tool-call, tool-result, assistant
"""

from reenact import Scripted, tool
from reenact.adapters.models import Models
from reenact.blocking import Runtime


@tool(effect="read")
def look(shelf: int) -> str:
    """Look at a shelf."""
    return "12 boxes"


STEPS = [
    {"tool_calls": [{"name": "look", "input": {"shelf": 3}}]},
    {"text": "Shelf 3 holds 12 boxes."},
]


def main() -> None:
    with Runtime("memory://", tools=[look], models=Models({"scripted": Scripted(STEPS)})) as runtime:
        bot = runtime.image("keeper", model="scripted:shelves")
        run = bot.send("How many boxes are on shelf 3?")
        for event in run:
            if event.type == "tool_settled":
                print(f"tool look at shelf 3 → {event.data.output}")
        print(run.result().text)
        print("messages:", ", ".join(message.subtype for message in bot.messages()))


if __name__ == "__main__":
    main()
