"""langgraph: a prebuilt tool node and a model node over SqliteSaver; with durability "sync", a checkpoint before each
next step."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from benchmarks import harness
from benchmarks.harness import ANSWER, ARGUMENTS, OUTPUT, USER


@tool
def weather(city: str) -> str:
    """Weather of a city."""
    return OUTPUT


def _answer(messages: list[Any]) -> Any:
    if isinstance(messages[-1], ToolMessage):
        return AIMessage(ANSWER)
    assert isinstance(messages[-1], HumanMessage) and len(messages) % 4 == 1
    call = {"name": "weather", "args": ARGUMENTS, "id": f"call_{len(messages)}"}
    return AIMessage("", tool_calls=[call])


def _say(state: MessagesState) -> dict[str, Any]:
    return {"messages": [_answer(state["messages"])]}


def _graph(saver: Any) -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("model", _say)
    graph.add_node("tools", ToolNode([weather]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile(checkpointer=saver)


def durable(*, turns: int) -> dict[str, Any]:
    took = []
    with harness.scratch() as folder:
        db = sqlite3.connect(folder / "checkpoints.db", check_same_thread=False)
        graph, config = _graph(SqliteSaver(db)), {"configurable": {"thread_id": "s"}}
        for _ in range(turns):
            began = time.perf_counter()
            state = graph.invoke({"messages": [HumanMessage(USER)]}, config, durability="sync")
            took.append(time.perf_counter() - began)
        assert len(state["messages"]) == 4 * turns and state["messages"][-1].content == ANSWER
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()
        disk = harness.size_of(folder)
    return {**harness.turns(took), "bytes_turn": disk / turns, "peak_mb": harness.peak_mb()}


def many(*, sessions: int, turns: int = 3) -> dict[str, Any]:
    return asyncio.run(_many(sessions, turns))


async def _many(sessions: int, turns: int) -> dict[str, Any]:
    with harness.scratch() as folder:
        async with AsyncSqliteSaver.from_conn_string(str(folder / "checkpoints.db")) as saver:
            graph = _graph(saver)
            await saver.setup()

            async def talk(number: int) -> None:
                config = {"configurable": {"thread_id": str(number)}}
                for _ in range(turns):
                    state = await graph.ainvoke({"messages": [HumanMessage(USER)]}, config, durability="sync")
                assert len(state["messages"]) == 4 * turns

            began = time.perf_counter()
            await asyncio.gather(*map(talk, range(sessions)))
            took = time.perf_counter() - began
    return {"turns_s": sessions * turns / took, "peak_mb": harness.peak_mb()}


def deltas(*, words: int) -> dict[str, Any]:
    from langgraph.config import get_stream_writer

    def node(state: MessagesState) -> dict[str, Any]:
        write = get_stream_writer()
        for _ in range(words):
            write("word ")
        return {}

    graph = StateGraph(MessagesState)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    compiled = graph.compile()
    count, began = 0, time.perf_counter()
    for _ in compiled.stream({"messages": []}, stream_mode="custom"):
        count += 1
    took = time.perf_counter() - began
    assert count == words
    return {"events_s": words / took}


CASES = {"durable": durable, "many": many, "deltas": deltas}

if __name__ == "__main__":
    harness.main(CASES)
