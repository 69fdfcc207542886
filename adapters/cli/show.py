"""The demo, as a person sees it: an agent at work, its death, the work taken up, what the log and the world say."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

from .front import Demo, Front, Row
from .look import conversation, cost_columns, event_line, in_words
from .output import Output, short
from .table import table

_DELAY_MS = 500


class Show:
    """The command, over what it is handed."""

    def __init__(self, front: Front, output: Output) -> None:
        self._front = front
        self._output = output

    def demo(
        self,
        *,
        keep: Annotated[str | None, Parameter(help="A new folder to work in, which then stays.")] = None,
        json: Annotated[
            bool, Parameter(negative="", show_default=False, help="Every event as JSON, a line each; the last sums up.")
        ] = False,
    ) -> int:
        """Watch an agent work, die in the middle of a payment, and go on: no key, no network, a few seconds.

        A scripted model reconciles three invoices with real tools on real files. Its process is killed with SIGKILL
        when the bank has booked a payment and the log has not heard of it. The next process finds the booking, does
        not pay again, and finishes. Then all is decided again from the log, and compared.
        """
        self._output.json = json
        if json:
            with self._front.demo(keep=keep, hear=lambda line: self._output.write(line + "\n"), delay_ms=0) as demo:
                demo.begin()
                demo.go_on()
                summary = demo.summary()
                self._output.row(summary)
            return exit_code(summary)
        watched = self._output.shows and self._output.tells
        hear = None if watched else _unheard
        with self._front.demo(keep=keep, hear=hear, delay_ms=_DELAY_MS if watched else 0) as demo:
            self._act("An agent works", demo.begin_command)
            pid = demo.begin()
            self._died(demo, pid)
            self._act("Another process goes on", demo.resume_command)
            demo.go_on()
            return self._look_back(demo, keep)

    def _died(self, demo: Demo, pid: int) -> None:
        if self._output.tells:
            # What the dead process left on its line.
            self._output.err.write("\r\033[K")
            self._output.err.flush()
        self._output.line()
        self._style(f"SIGKILL: process {pid} died in book_payment, paid and unrecorded.", "bold red")
        for booking in demo.bookings():
            self._output.line(f"the bank   {short(booking, self._output.columns - 12)}")
        with demo.reading() as reading:
            session_id = reading.session("last")
            *_, newest = reading.events(session=session_id)
        self._output.line(f"the log    {event_line(newest, session=None, room=self._output.columns - 12).strip()}")

    def _look_back(self, demo: Demo, keep: str | None) -> int:
        summary = demo.summary()
        session_id = summary["session_id"]
        with demo.reading() as reading:
            self._act("What was said", ["messages", "march"])
            conversation(self._output, reading, session_id)
            self._act("The log", ["events", "--session", "march"])
            for event in reading.events(session=session_id):
                self._output.write(event_line(event, session=None, room=self._output.columns - 1) + "\n")
            self._act("What it cost", ["cost"])
            table(self._output, cost_columns("model", self._front.short), reading.cost("model"), none="nothing")
            self._act("Decided again from the log", ["replay", "march"])
            self._style(in_words(reading.replay(session_id)), "green" if summary["replay"]["identical"] else "red")
        self._output.line()
        self._style("What happened in the world", "bold")
        for effect, times in summary["effects"].items():
            self._output.line(f"{effect:<16}{'once' if times == 1 else f'{times} times'}")
        if keep is not None:
            self._output.line()
            self._output.line(f"Kept in {demo.folder}: cd there, and every command above works.")
        return exit_code(summary)

    def _act(self, title: str, command: Sequence[str]) -> None:
        self._output.line()
        self._style(title, "bold")
        self._style("$ " + shlex.join(["reenact", *command]), "dim")

    def _style(self, text: str, style: str) -> None:
        if self._output.shows:
            self._output.console(self._output.out).print(text, style=style, soft_wrap=True)
        else:
            self._output.line(text)


def _unheard(line: str) -> None:
    """Nobody watches: what is said is printed when all is over."""


def exit_code(summary: Row) -> int:
    """0 when it went as told: taken up, decided again alike, and nothing done twice."""
    once = all(times == 1 for times in summary["effects"].values())
    return 0 if summary["resumed"] and summary["replay"]["identical"] and once else 1
