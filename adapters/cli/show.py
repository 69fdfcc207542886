"""The demo, as a person sees it: what was said, the log, the cost, the verdict, and what the world holds."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from .front import Front
from .output import Output


class Show:
    """The command, over what it is handed."""

    def __init__(self, front: Front, output: Output) -> None:
        self._front = front
        self._output = output

    def demo(
        self,
        *,
        json: Annotated[bool, Parameter(negative="", help="One JSON object a line; the last one sums up.")] = False,
        keep: Annotated[str | None, Parameter(help="A new folder to work in and to leave as it is then.")] = None,
    ) -> int:
        """Watch an agent work, die in the middle of a payment, and go on: no key, no network, a few seconds.

        A scripted model reconciles three invoices with real tools on real files. The process is killed with SIGKILL
        after a payment was booked and before the log heard of it. The next process finds the booking, does not pay
        again, and finishes; then everything is decided again from the log and compared.
        """
        self._output.json = json
        return 0
