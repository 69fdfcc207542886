"""The tools of the demo, which copies this file into its folder: three kinds of effect on plain files beside it.

`effects.log` is what the world remembers: a line whenever a tool touched it, written by nobody else.
"""

import csv
import json
import os
from pathlib import Path

from reenact import ToolContext, tool

HERE = Path(__file__).resolve().parent
BANK = HERE / "bank.jsonl"


@tool(effect="read")
def read_invoices(path: str) -> str:
    """Read the invoices of a CSV file: number, supplier, cents, and whether each is paid."""
    _happened("read_invoices")
    with open(HERE / path, newline="") as file:
        return "; ".join(
            f"{row['number']} {row['supplier']} {row['cents']} {row['status']}" for row in csv.DictReader(file)
        )


def _booked(key: str) -> str | None:
    """What the bank says of a key: the booking made with it, None when there is none."""
    for line in BANK.read_text().splitlines():
        booking = json.loads(line)
        if booking["key"] == key:
            return f"booking {booking['booking']}: {booking['cents']} cents for {booking['invoice']}"
    return None


@tool(effect="probeable", probe=_booked)
def book_payment(invoice: str, cents: int, call: ToolContext) -> str:
    """Have the bank pay an invoice."""
    number = len(BANK.read_text().splitlines()) + 1
    booking = {"booking": number, "invoice": invoice, "cents": cents, "key": call.idempotency_key}
    _append(BANK, json.dumps(booking))
    _happened("book_payment")
    _where_the_demo_kills()
    return f"booking {number}: {cents} cents for {invoice}"


@tool(effect="idempotent")
def write_report(title: str, lines: list[str]) -> str:
    """Write the report. The same report again changes nothing."""
    _happened("write_report")
    text = "\n".join([f"# {title}", "", *(f"- {line}" for line in lines), ""])
    (HERE / "report.md").write_text(text)
    return f"report.md, {len(lines)} lines"


def _append(file: Path, line: str) -> None:
    """On the disk when it returns."""
    with open(file, "a") as to:
        to.write(line + "\n")
        to.flush()
        os.fsync(to.fileno())


def _happened(effect: str) -> None:
    _append(HERE / "effects.log", effect)


def _where_the_demo_kills() -> None:
    """The bank has booked, nobody has told the log. Say so to the demo, and never come back."""
    pipes = os.environ.get("REENACT_DEMO_PIPES")
    if pipes:
        tell, wait = map(int, pipes.split(","))
        os.write(tell, b"booked")
        os.read(wait, 1)
