"""The command line: the options read, a command run, and how it ended said in an exit code.

0 fine, 1 the work failed, 2 wrong usage, 130 stopped by Ctrl-C. A failure is one line on stderr, never a traceback.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from ...events.errors import BadInput, DiskFull, Owned, ReenactError
from .output import Output, standard
from .stop import INTERRUPTED

if TYPE_CHECKING:
    from cyclopts import App

    from .front import Front

OK, FAILED, USAGE = 0, 1, 2

_USAGE_CHARS = 600

_LEVELS = ("debug", "info", "warning", "error", "critical")

_HELP = """AI agents as event-sourced actors: kill them anywhere, replay them to the byte."""

_EPILOGUE = """The log is `reenact.db` in this folder unless `--db` or `REENACT_DATABASE_URL` says otherwise. Ids may be
given by their beginning or their end. `LOG_LEVEL` (default info) says how much is told on stderr; `NO_COLOR` switches
colours off.

Exit codes: 0 fine, 1 the work failed, 2 wrong usage, 130 stopped by Ctrl-C."""


def main(
    argv: Sequence[str],
    front: Front,
    *,
    stdin: TextIO | None = None,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
) -> int:
    """Run one command line and return its exit code. Streams are this process's own unless they are given."""
    output = standard() if stdout is None else Output(stdout, stderr or sys.stderr)
    with front.discreet() as output.hidden:
        return _ended(argv, front, output, stdin)


def _ended(argv: Sequence[str], front: Front, output: Output, stdin: TextIO | None) -> int:
    try:
        return _run(argv, front, output, stdin)
    except ReenactError as error:
        output.error(_said(error))
        return USAGE if isinstance(error, BadInput) else FAILED
    except KeyboardInterrupt:
        output.say("")
        return INTERRUPTED
    except BrokenPipeError:
        return OK
    except OSError as error:
        output.error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return FAILED
    except RecursionError:
        output.error("something is nested too deeply.")
        return FAILED
    except Exception as error:
        logging.getLogger("reenact").debug("unexpected", exc_info=True)
        output.error(f"{type(error).__name__}: {error} (a fault of the program; LOG_LEVEL=debug shows where)")
        return FAILED


def _run(argv: Sequence[str], front: Front, output: Output, stdin: TextIO | None) -> int:
    from cyclopts import CycloptsError

    app = application(front, output, stdin)
    # What a tool prints is no answer, and no line of JSON.
    with _telling(output), contextlib.redirect_stdout(output.err):
        try:
            code = app(_tokens(argv), exit_on_error=False, print_error=False)
        except CycloptsError as error:
            output.error(_usage(error))
            return USAGE
    return code if isinstance(code, int) else OK


def application(front: Front, output: Output, stdin: TextIO | None = None) -> App:
    """All commands over what they are handed."""
    from cyclopts import App, Group

    from .approvals import Approvals
    from .budget import Budgets
    from .policy import Rules
    from .read import Read
    from .show import Show
    from .work import Work

    app = App(
        name="reenact",
        help=_HELP,
        help_epilogue=_EPILOGUE,
        version=front.release,
        console=output.page(),
        result_action="return_value",
        suppress_keyboard_interrupt=False,
        # A word after the command may be a prompt; "--" ends the options for one that begins with a dash.
        end_of_options_delimiter="--",
    )
    work, read, show = Work(front, output, stdin), Read(front, output), Show(front, output)
    doing, looking, sundry = Group("Work", sort_key=1), Group("Look", sort_key=2), Group("More", sort_key=3)
    for group, commands in (
        (doing, (show.demo, work.run, work.chat, work.resume)),
        (
            looking,
            (read.ps, read.images, read.sessions, read.messages, read.events, read.replay, read.cost, read.audit),
        ),
        (sundry, (read.sql, read.export, read.verify, read.doctor)),
    ):
        for command in commands:
            app.command(command, group=group, sort_key=len(list(app)))
    asked, money = Approvals(front, output, stdin), Budgets(front, output)
    answers = (
        asked.show,
        asked.approve,
        asked.deny,
        asked.edit,
        asked.answer,
        asked.cancel,
        asked.grants,
        asked.revoke,
    )
    several: tuple[tuple[str, str, Group, tuple[Callable[..., int], ...]], ...] = (
        ("approvals", "Answer what waits for a person: calls to allow, and questions.", doing, (asked.ls, *answers)),
        (
            "budget",
            "Look at limits of what may be spent, set them, lift them.",
            doing,
            (money.show, money.set, money.rm),
        ),
        ("policy", "Look at rules in files of TOML, without a log.", sundry, (Rules(front, output).check,)),
    )
    for name, help, group, under in several:
        noun = App(name=name, help=help, group=group, sort_key=len(list(app)), result_action="return_value")
        if len(under) > 1:
            noun.default(under[0])  # its name alone is the first of them
        for number, command in enumerate(under):
            noun.command(command, sort_key=number)
        app.command(noun)
    app["--help"].group = sundry
    app["--version"].group = sundry
    return app


def _tokens(argv: Sequence[str]) -> list[str]:
    """A lone `-` as what it stands for; options that came before the command, after it."""
    from .options import STDIN

    tokens = [STDIN if token == "-" else token for token in argv]
    early: list[str] = []
    while tokens:
        if tokens[0] == "--json" or tokens[0].startswith("--db="):
            early.append(tokens.pop(0))
        elif tokens[0] == "--db" and len(tokens) > 1:
            early += [tokens.pop(0), tokens.pop(0)]
        else:
            break
    return tokens[:1] + early + tokens[1:] if tokens else early


def _said(error: ReenactError) -> str:
    text = str(error)
    if isinstance(error, Owned):
        return f"{text.partition(' Stop it,')[0]} Stop it, or wait for its end; commands that read work beside it."
    return text


def _usage(error: Any) -> str:
    """What was wrong with the options, in one line, and where to read on."""
    from cyclopts import MissingArgumentError, UnusedCliTokensError

    from .options import STDIN

    command = " ".join(["reenact", *(error.command_chain or ())])
    text = " ".join(str(error).split()).replace(STDIN, "-")  # a value may have lines
    if len(text) > _USAGE_CHARS:
        text = f"{text[: _USAGE_CHARS // 2]} … {text[-_USAGE_CHARS // 2 :]}"
    if isinstance(error, UnusedCliTokensError):
        rest = " ".join(error.unused_tokens or ())
        text = f"what is {rest!r} for? Put quotes around a text of several words."
    elif isinstance(error, MissingArgumentError) and error.argument is not None:
        positional = error.argument.field_info.is_positional_only
        name = error.argument.name.lstrip("-").upper() if positional else error.argument.name
        text = f"{name} is missing."
    return f"{text} See: {command} --help"


@contextlib.contextmanager
def _telling(output: Output) -> Iterator[None]:
    """What the program tells of itself goes to stderr, above a line that moves."""
    wanted = os.environ.get("LOG_LEVEL", "").strip().lower() or "info"
    level = wanted if wanted in _LEVELS else "info"
    ours, root = logging.getLogger("reenact"), logging.getLogger()
    handler = _Teller(output)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    before = ours.level, root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if level == "debug" else logging.WARNING)
    ours.setLevel(level.upper())
    if level != wanted:
        output.note(f"LOG_LEVEL={wanted!a} is none of {', '.join(_LEVELS)}; it is taken for info.")
    try:
        yield
    finally:
        root.removeHandler(handler)
        ours.setLevel(before[0])
        root.setLevel(before[1])


class _Teller(logging.Handler):
    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.args, tuple) and any(isinstance(each, DiskFull) for each in record.args):
            return  # it ends the command, and is its one line
        with contextlib.suppress(OSError, ValueError):  # stderr is closed: there is nobody to tell
            self._output.say(self.format(record), style="dim")
