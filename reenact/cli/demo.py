"""The demo: an agent at work with real tools on real files, killed between a payment and the log hearing of it.

It is nothing but the command line: `reenact run` in a process that is killed, `reenact resume` in the next one. The
kill waits for word from inside the tool, so it always strikes at the same place.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..events.errors import BadInput, ReenactError
from ..secrets.variables import without_secrets
from .reading import Reading

Row = dict[str, Any]

PROMPT = "Reconcile the invoices of March, pay what is open, and write a report."
DATABASE = "sqlite:///reenact.db"
PATIENCE_S = 60.0
"""How long a process of the demo may be silent."""

INVOICES = """number,supplier,cents,status
INV-101,Alder Paper,18250,paid
INV-102,Birch Hosting,125000,open
INV-103,Cedar Travel,43999,paid
"""


def script(delay_ms: int) -> list[Row]:
    """What the model of the demo says. delay_ms: of each answer, so that a person can follow."""
    return [
        {
            "text": "I start with the invoices.",
            "tool_calls": [{"name": "read_invoices", "input": {"path": "invoices.csv"}}],
            "delay_ms": delay_ms,
        },
        {
            "text": "Two of the three are paid. INV-102 of Birch Hosting is open, 1,250.00. I pay it.",
            "tool_calls": [{"name": "book_payment", "input": {"invoice": "INV-102", "cents": 125_000}}],
            "delay_ms": delay_ms,
        },
        {
            "text": "It is booked. Now the report.",
            "tool_calls": [
                {
                    "name": "write_report",
                    "input": {
                        "title": "Invoices of March",
                        "lines": [
                            "INV-101 Alder Paper 182.50: paid before",
                            "INV-102 Birch Hosting 1,250.00: paid now",
                            "INV-103 Cedar Travel 439.99: paid before",
                        ],
                    },
                }
            ],
            "delay_ms": delay_ms,
        },
        {
            "text": "All three invoices are settled, 1,872.49 in all. INV-102 was paid once, and report.md says so.",
            "delay_ms": delay_ms,
        },
    ]


class Demo:
    """One performance in a folder of its own, which is removed at the end unless `keep` names one.

    hear: given every line that the two processes print, each a JSON object; where it is None they print to this
    process's terminal, for a person. Raises BadInput for a folder that has something in it.
    """

    def __init__(
        self, *, keep: str | None = None, hear: Callable[[str], object] | None = None, delay_ms: int = 0
    ) -> None:
        self._keep = keep
        self._hear = hear
        self._folder = _folder(keep)
        self._rest = b""
        self.killed: int | None = None
        (self._folder / "invoices.csv").write_text(INVOICES)
        (self._folder / "bank.jsonl").touch()
        (self._folder / "script.json").write_text(json.dumps(script(delay_ms), indent=1))
        shutil.copyfile(Path(__file__).with_name("demo_tools.py"), self._folder / "tools.py")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keep is None:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def folder(self) -> str:
        return str(self._folder)

    @property
    def begin_command(self) -> list[str]:
        return ["run", PROMPT, "--session", "march", "-m", "scripted:script.json", "--tools", "tools.py"]

    @property
    def resume_command(self) -> list[str]:
        return ["resume", "march", "--tools", "tools.py"]

    def begin(self) -> int:
        """Run the agent in another process, and kill that with SIGKILL when the bank has booked. Returns its id."""
        booked, tell = os.pipe()
        wait, alive = os.pipe()  # `alive` closes with this process, so that the other one never waits for ever
        process = self._start(self.begin_command, pipes=(tell, wait))
        try:
            os.close(tell)
            os.close(wait)
            if not self._until(process, booked):
                raise ReenactError(f"The demo's first process ended by itself, with exit code {process.wait()}.")
        finally:
            process.kill()
            self._drain(process)
            process.wait()
            os.close(booked)
            os.close(alive)
        self.killed = process.pid
        return process.pid

    def go_on(self) -> int:
        """Take the work up in a new process, and wait for its end. Returns its exit code."""
        process = self._start(self.resume_command)
        try:
            self._until(process, None)
            return process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise ReenactError("The demo's second process does not end.") from None
        finally:
            process.kill()
            process.wait()

    def bookings(self) -> list[str]:
        """The bank's book, line by line."""
        return (self._folder / "bank.jsonl").read_text().splitlines()

    def reading(self) -> Reading:
        """The log, to read."""
        return Reading(f"sqlite:///{self._folder / 'reenact.db'}")

    def summary(self) -> Row:
        """session_id, events, effects (name -> times run in the world), resumed, replay."""
        with self.reading() as reading:
            session_id = reading.session("last")
            epochs = {recorded.epoch for recorded in reading.events(session=session_id)}
            over = reading.jobs(over=True, session=session_id)
            verdict = reading.replay(session_id)
        effects: dict[str, int] = {}
        for effect in (self._folder / "effects.log").read_text().split():
            effects[effect] = effects.get(effect, 0) + 1
        return {
            "type": "demo",
            "session_id": session_id,
            "events": verdict["events"],
            "effects": effects,
            "killed": self.killed is not None,
            "resumed": len(epochs) > 1 and all(job["state"] == "succeeded" for job in over),
            "replay": {name: verdict[name] for name in ("identical", "events", "network_calls")},
        }

    # -- processes --

    def _start(self, command: list[str], *, pipes: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
        plain = without_secrets(os.environ)
        environment = {name: value for name, value in plain.items() if not name.startswith("REENACT_")}
        if pipes:
            environment["REENACT_DEMO_PIPES"] = ",".join(map(str, pipes))
        heard = self._hear is not None
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "reenact", *command, "--db", DATABASE, *(["--json"] if heard else [])],
            cwd=self._folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if heard else None,
            pass_fds=pipes,
        )

    def _until(self, process: subprocess.Popen[bytes], word: int | None) -> bool:
        """Pass on what a process prints until there is a word in a pipe, or it has nothing more to say. Whether there
        was a word."""
        with selectors.DefaultSelector() as sources:
            if word is not None:
                sources.register(word, selectors.EVENT_READ)
            if process.stdout is not None:
                sources.register(process.stdout, selectors.EVENT_READ)
            self._rest = b""
            while sources.get_map():
                ready = sources.select(PATIENCE_S)
                if not ready:
                    raise ReenactError(f"A process of the demo has been silent for {PATIENCE_S:g} s.")
                for key, _ in ready:
                    if key.fileobj == word:
                        return bool(os.read(word, 100))
                    assert process.stdout is not None
                    if not self._pass_on(os.read(process.stdout.fileno(), 65536)):
                        sources.unregister(process.stdout)
                        if word is None:
                            return False
        return False

    def _drain(self, process: subprocess.Popen[bytes]) -> None:
        """What a killed process had printed; a line that it did not finish is left out."""
        if process.stdout is not None:
            while self._pass_on(os.read(process.stdout.fileno(), 65536)):
                pass

    def _pass_on(self, chunk: bytes) -> bool:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            if self._hear is not None:
                self._hear(line.decode("utf-8", "replace"))
        return bool(chunk)


def _folder(keep: str | None) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="reenact-demo-"))
    folder = Path(keep).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise BadInput(f"{keep} is not empty. Give a folder that is new.")
    except OSError as error:
        raise BadInput(f"{keep}: {error.strerror or error}.") from None
    return folder
