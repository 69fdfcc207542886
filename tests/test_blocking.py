"""The blocking twin does what the runtime does, for programs without a loop; also inside one, as in a notebook."""

import asyncio
import inspect
import threading

import pytest

from reenact import blocking, image, run, runtime
from reenact.adapters.models import Models
from reenact.adapters.models.scripted import Scripted
from reenact.blocking import Runtime
from reenact.events.errors import BadInput, Closed, NotFound, Refused
from reenact.people import actions
from tests.runtimes import CALL, weather


def opened() -> Runtime:
    models = Models({"scripted": Scripted(CALL, repeat=True)})
    return Runtime("memory://", tools=[weather], models=models, default_agent={"model": "scripted:any"})


def test_a_program_without_a_loop_sends_reads_and_replays() -> None:
    with opened() as runtime:
        said: list[str] = []
        runtime.on("text_delta", lambda event: said.append(event.data.text))
        bot = runtime.image("support", container="acme")
        types = [event.type for event in bot.send("Weather?")]
        assert types[0] == "job_queued" and types[-1] == "job_succeeded"
        assert "".join(said) == "It is 21 degrees."
        run = bot.send("Again?")
        assert run.result().text == "It is 21 degrees." and run.result(1.0).status == "succeeded"
        assert [message.role for message in bot.messages()] == ["user", "assistant", "tool", "assistant"] * 2
        assert runtime.replay(bot.session_id).identical
        assert runtime.messages(bot.session_id) == bot.messages()
        assert bot.events()[-1].type == "job_succeeded"
        response = runtime.request("image_get_request", {"imageId": bot.id})
        assert response.data.record.name == "support"


def test_it_works_where_a_loop_runs_already() -> None:
    async def cell_of_a_notebook() -> str:
        with opened() as runtime:
            return runtime.image("support").send("Weather?").result().text

    assert asyncio.run(cell_of_a_notebook()) == "It is 21 degrees."


def test_errors_come_to_the_caller() -> None:
    with opened() as runtime:
        bot = runtime.image("support")
        with pytest.raises(BadInput, match="empty"):
            bot.send("")
        with pytest.raises(NotFound):
            runtime.messages("sess_no")


def test_it_must_be_open_and_leaves_no_thread_behind() -> None:
    runtime = opened()
    with pytest.raises(Closed, match="with Runtime"):
        runtime.image("support")
    before = threading.active_count()
    runtime.open()
    runtime.close()
    runtime.close()
    assert threading.active_count() == before
    with pytest.raises(Closed):
        runtime.request("container_list_request")


def test_a_log_that_cannot_be_opened_says_so_and_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    with pytest.raises(BadInput, match="PostgreSQL"):
        Runtime("postgresql://somewhere/db").open()
    assert threading.active_count() == before


def test_images_and_sessions_are_handled_as_in_the_other_one() -> None:
    with opened() as runtime:
        bot = runtime.image("support")
        assert runtime.update_image(bot.id, {"description": "D"}).config.description == "D"
        session_id = runtime.new_session(bot.id, alias="monday")
        assert runtime.open_image(bot.id).session_id == session_id
        run = runtime.open_image(bot.id, bot.session_id).send("Weather?")
        runtime.cancel(run.session_id, run.job_id)
        assert run.result().status in ("cancelled", "succeeded")
        runtime.resume(session_id)
        runtime.delete_image(bot.id)
        with pytest.raises(NotFound):
            bot.send("hi")


def test_a_handler_that_would_wait_for_itself_is_told_so() -> None:
    with opened() as runtime:
        bot = runtime.image("support")
        refused: list[Exception] = []

        def ask(event: object) -> None:
            try:
                bot.interrupt()
            except Refused as error:
                refused.append(error)

        runtime.once("text_delta", ask)
        assert bot.send("Weather?").result(10).status == "succeeded"
        assert len(refused) == 1 and "own thread" in str(refused[0])


def test_questions_to_people_have_a_blocking_twin() -> None:
    from reenact import tool
    from reenact.blocking import ActionManager

    @tool(approval="ask")
    def refund(order: str) -> str:
        """Refund an order."""
        return f"refunded {order}"

    steps = [{"tool_calls": [{"name": "refund", "input": {"order": "42"}}]}, {"text": "Done."}]
    models = Models({"scripted": Scripted(steps, repeat=False)})
    with Runtime(models=models, tools=[refund], default_agent={"model": "scripted:any"}) as runtime:
        sent = runtime.image("bot").send("go")
        result = sent.result(20)
        assert result.status == "waiting" and result.action is not None
        manager = ActionManager(runtime)
        [waiting] = manager.list_pending(sent.job_id)
        assert waiting.action_id == result.action == runtime.actions()[0].id
        token = runtime.issue_token(result.action)
        assert manager.resolve(resume_token=token, resolution={"approved": True}).status == "resolved"
        assert manager.wait_for_resolution(result.action).resolution == {"approved": True}
        assert sent.result(20).text == "Done."
        assert runtime.action(result.action).by == "user"


TWINS = (
    (blocking.Runtime, runtime.Runtime),
    (blocking.Image, image.Image),
    (blocking.Run, run.Run),
    (blocking.ActionManager, actions.ActionManager),
)


@pytest.mark.parametrize(("twin", "of"), TWINS)
def test_what_a_twin_is_given_is_what_the_other_one_takes(twin: type, of: type) -> None:
    strange = []
    for name, method in inspect.getmembers(twin, inspect.isfunction):
        if name.startswith("_") or name == "wait":
            continue
        takes = inspect.signature(getattr(of, name)).parameters.values()
        named = [each for each in inspect.signature(method).parameters.values() if each.kind is not each.VAR_KEYWORD]
        handed_on = len(named) < len(inspect.signature(method).parameters)
        wanted = [(each.name, each.kind, each.default) for each in takes]
        given = [(each.name, each.kind, each.default) for each in named]
        if not (set(given) <= set(wanted) if handed_on else given == wanted):
            strange.append(name)
    assert strange == []
