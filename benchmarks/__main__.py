"""The benchmarks: `./dev bench [--quick] [--peers] [--json] [QUESTION ...] [--write]`.

Every figure is the median over repeats, each in a fresh process; ours and theirs take turns in the same run, so what
counts is the ratio. Exit 0 when every goal that was measured holds, 1 when one does not, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if not __package__:  # run by its path
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import rivals
from benchmarks.harness import ROOT, calibration_ms, fresh, instructions, machine, median_of, scratch, sync_ms

Found = dict[str, Any]


class Figure(dict[str, Any]):
    """One line: name, ours, unit, peer, theirs, ratio, goal, holds. holds: None where there is no goal."""

    def __init__(
        self,
        name: str,
        ours: float,
        unit: str,
        *,
        peer: str | None = None,
        theirs: float | None = None,
        ratio: float | None = None,
        at_least: float | None = None,
        at_most: float | None = None,
        note: str | None = None,
    ) -> None:
        if ratio is None and theirs:
            ratio = ours / theirs
        value = ours if theirs is None and ratio is None else ratio
        holds, goal, times = None, None, "" if value is ours else "x"
        assert value is not None
        if at_least is not None:
            holds, goal = value >= at_least, f">= {at_least:,g}{times or ' ' + unit}"
        elif at_most is not None:
            holds, goal = value <= at_most, f"<= {at_most:,g}{times or ' ' + unit}"
        super().__init__(
            name=name, ours=_short(ours), unit=unit, peer=peer, theirs=_short(theirs), ratio=_short(ratio), goal=goal
        )
        self["holds"] = holds
        if note:
            self["note"] = note


QUICK_S = 40.0
"""After so long a quick run makes nothing a second time. Each once takes a minute on a quiet machine."""


class Bench:
    """One run: how often, how much, with whom."""

    def __init__(self, *, quick: bool, peers: bool) -> None:
        self.quick = quick
        self.peers = peers
        self.repeats = 2 if quick else 5
        self.began = time.monotonic()
        self.machine: list[tuple[float, float]] = []
        self.noisy = 0
        self.curves: dict[str, dict[str, float]] = {}
        self.digests: dict[str, Any] = {}

    def look(self) -> float:
        """Note how fast the machine is now; how long a sync takes, in ms."""
        with scratch() as folder:
            self.machine.append((calibration_ms(), sync_ms(folder)))
        return self.machine[-1][1]

    def take_turns(self, runs: dict[str, Callable[[], Found]], *, repeats: int | None = None) -> dict[str, Found]:
        """Each of them once, then each again: a slow minute of the machine is everybody's. The medians.

        A round before or after which a sync took more than twice as long as the quickest of the run says more of the
        disk's other users than of anybody here: it is made again, up to as often as there are rounds, and counted.
        Whether a round counts is decided by the syncs alone, never by what it found. A quick run makes none again.
        """
        wanted = repeats or self.repeats
        most = wanted if self.quick else 2 * wanted
        quiet: list[dict[str, Found]] = []
        noisy: list[dict[str, Found]] = []
        while len(quiet) < wanted and len(quiet) + len(noisy) < most:
            if self.quick and (quiet or noisy) and time.monotonic() - self.began > QUICK_S:
                break
            before = self.look()
            found = {name: run() for name, run in runs.items()}
            worst = max(before, self.look())
            (quiet if worst <= 2 * min(sync for _, sync in self.machine) else noisy).append(found)
        self.noisy += len(noisy)
        rounds = (quiet + noisy)[:wanted]
        return {name: median_of([found[name] for found in rounds]) for name in runs}

    def rivals(self, case: str, names: tuple[str, ...], **numbers: Any) -> dict[str, Callable[[], Found]]:
        if not self.peers:
            return {}
        return {name: lambda name=name: rivals.measure(name, case, **numbers) for name in names}  # type: ignore[misc]

    def once(
        self, beside: dict[str, Callable[[], Found]], others: dict[str, Callable[[], Found]]
    ) -> Iterator[tuple[str, Found, Found]]:
        """Each of the slow ones once, and ours once more right before: name, ours, theirs."""
        for name, run in others.items():
            found = self.take_turns({**beside, name: run}, repeats=1)
            yield name, found["ours"], found[name]

    # -- the questions --

    def turn(self) -> Iterator[Figure]:
        disk: dict[int, float] = {}
        for count in (100, 500):
            runs = {
                "ours": lambda count=count: fresh("bench_turn", "durable", turns=count),
                "floor": lambda count=count: fresh("floor", "durable", turns=count),
            }
            if not self.quick:
                runs |= {
                    "handed_over": lambda count=count: fresh("floor", "handed_over", turns=count),
                    "decided": lambda count=count: fresh("bench_sessions", "decided", sessions=1, turns=count),
                    "without_rules": lambda count=count: fresh("bench_turn", "durable", turns=count, governed=False),
                }
            if count == 100 and not self.quick:
                runs |= {
                    "stored_watched": lambda: fresh("bench_turn", "durable", turns=100, watched="stored"),
                    "streamed": lambda: fresh("bench_turn", "durable", turns=100, streamed=True),
                }
            runs |= self.rivals("durable", ("langgraph", "dbos"), turns=count)
            found = self.take_turns(runs, repeats=3 if count == 500 and self.peers and not self.quick else None)
            ours, floor = found["ours"], found["floor"]
            self.digests[f"turn_{count}"] = ours["digest"]
            self.curves["reenact"], self.curves["floor"] = ours["curve"], floor["curve"]
            share = {100: 0.6, 500: 0.5}[count]
            yield Figure(
                f"turn_{count}",
                ours["turns_s"],
                "turns/s",
                peer="floor (msgspec + sqlite3)",
                theirs=floor["turns_s"],
                at_least=share,
            )
            if "handed_over" in found:
                yield Figure(
                    f"turn_{count}",
                    ours["turns_s"],
                    "turns/s",
                    peer="floor, handed to a thread",
                    theirs=found["handed_over"]["turns_s"],
                )
                yield Figure(
                    f"turn_{count}_decided_alone",
                    found["decided"]["turns_s"],
                    "turns/s",
                    peer="floor (msgspec + sqlite3)",
                    theirs=floor["turns_s"],
                )
            disk[count] = ours["disk"]
            for name, goal in (("langgraph", {100: 7, 500: 20}[count]), ("dbos", {100: 4.5, 500: None}[count])):
                if name in found:
                    self.curves[rivals.TITLES[name]] = found[name]["curve"]
                    yield Figure(
                        f"turn_{count}",
                        ours["turns_s"],
                        "turns/s",
                        peer=rivals.TITLES[name],
                        theirs=found[name]["turns_s"],
                        at_least=goal,
                    )
            for kind in ("without_rules", "stored_watched", "streamed"):
                if kind in found:
                    yield Figure(f"turn_{count}_{kind}", found[kind]["turns_s"], "turns/s")
            yield Figure(f"turn_{count}_cpu", ours["cpu_ms_turn"], "ms/turn")
            yield Figure(f"turn_{count}_bytes", ours["bytes_turn"] / 1024, "KB/turn", at_most=3)
            if "without_rules" in found:
                yield Figure(
                    f"turn_{count}_without_rules_bytes", found["without_rules"]["bytes_turn"] / 1024, "KB/turn"
                )
        yield Figure("turn_bytes_each_more", (disk[500] - disk[100]) / 400 / 1024, "KB/turn", at_most=3)
        yield Figure("turn_growth", ours["turn_last_ms"] / ours["turn_10_ms"], "turn 500 / turn 10", at_most=1.3)
        others = self.rivals("durable", ("llamaw", "openai", "pydanticai", "adk"), turns=100)
        beside = {"ours": lambda: fresh("bench_turn", "durable", turns=100)}
        for name, ours, theirs in self.once(beside, others):
            self.curves[rivals.TITLES[name]] = theirs["curve"]
            yield Figure(
                "turn_100_once", ours["turns_s"], "turns/s", peer=rivals.TITLES[name], theirs=theirs["turns_s"]
            )

    def sessions(self) -> Iterator[Figure]:
        runs = {
            "ours": lambda: fresh("bench_sessions", "many", sessions=1000),
            "floor": lambda: fresh("floor", "many", sessions=1000),
        }
        if not self.quick:
            runs |= {
                "stored_watched": lambda: fresh("bench_sessions", "many", sessions=1000, watched="stored"),
                "streamed": lambda: fresh("bench_sessions", "many", sessions=1000, streamed=True),
                "in_memory": lambda: fresh("bench_sessions", "many", sessions=1000, in_memory=True),
                "without_rules": lambda: fresh("bench_sessions", "many", sessions=1000, governed=False),
                "decided_alone": lambda: fresh("bench_sessions", "decided", sessions=1000),
            }
        found = self.take_turns(runs)
        ours = found["ours"]
        self.digests["sessions"] = ours["digest"]
        yield Figure("sessions_1000x3", ours["turns_s"], "turns/s", at_least=5000)
        yield Figure("sessions_1000x3_memory", ours["peak_mb"], "MB peak", at_most=120)
        yield Figure("sessions_1000x3_cpu", ours["cpu_ms_turn"], "ms/turn")
        for kind in (kind for kind in found if kind not in ("ours", "floor")):
            yield Figure(f"sessions_1000x3_{kind}", found[kind]["turns_s"], "turns/s")
        yield Figure(
            "sessions_1000x3",
            ours["turns_s"],
            "turns/s",
            peer="floor (msgspec + sqlite3)",
            theirs=found["floor"]["turns_s"],
        )
        others = self.rivals("many", ("autogen", "llamaw", "langgraph", "dbos"), sessions=1000)
        beside = {"ours": lambda: fresh("bench_sessions", "many", sessions=1000)}
        for name, ours, theirs in self.once(beside, others):
            yield Figure(
                "sessions_1000x3_once", ours["turns_s"], "turns/s", peer=rivals.TITLES[name], theirs=theirs["turns_s"]
            )

    def start(self) -> Iterator[Figure]:
        runs = {
            "lazy": lambda: fresh("bench_start", "imported", statement="import reenact"),
            "runtime": lambda: fresh("bench_start", "imported", statement="from reenact import Runtime, tool"),
            "cold": lambda: fresh("bench_start", "cold", messages=1000),
        }
        found = self.take_turns(runs)
        self.digests["start"] = found["cold"]["digest"]
        yield Figure("import", found["lazy"]["wall_ms"], "ms", at_most=150)
        yield Figure("import_runtime", found["runtime"]["wall_ms"], "ms", at_most=150)
        yield Figure("import_bare_python", found["runtime"]["bare_ms"], "ms")
        yield Figure("cold_start_1000", found["cold"]["ready_ms"], "ms", at_most=200)
        yield Figure("cold_start_1000_to_model", found["cold"]["asked_ms"], "ms")

    def stream(self) -> Iterator[Figure]:
        runs = {
            "one": lambda: fresh("bench_stream", "deltas", words=100_000, subscribers=1),
            "hundred": lambda: fresh("bench_stream", "deltas", words=5_000, subscribers=100),
        }
        if not self.quick:
            runs["view"] = lambda: fresh("bench_stream", "deltas", words=100_000, subscribers=1, views=True)
            runs["views"] = lambda: fresh("bench_stream", "deltas", words=5_000, subscribers=100, views=True)
        found = self.take_turns(runs)
        self.digests["stream"] = [found[name]["digest"] for name in runs]
        yield Figure("deltas_1", found["one"]["events_s"], "events/s", at_least=200_000)
        yield Figure("deltas_100", found["hundred"]["deliveries_s"], "deliveries/s", at_least=100_000)
        if "view" in found:
            yield Figure("deltas_1_iterated", found["view"]["events_s"], "events/s")
            yield Figure("deltas_100_iterated", found["views"]["deliveries_s"], "deliveries/s")
        if self.peers:
            for name, case, ours, numbers in (
                ("langgraph", "one", "events_s", {"words": 10_000}),
                ("autogen", "hundred", "deliveries_s", {"words": 500, "subscribers": 100}),
            ):
                theirs = {name: lambda name=name, numbers=numbers: rivals.measure(name, "deltas", **numbers)}  # type: ignore[misc]
                for _, mine, other in self.once({"ours": runs[case]}, theirs):
                    yield Figure(
                        {"one": "deltas_1_once", "hundred": "deltas_100_once"}[case],
                        mine[ours],
                        ours.replace("_s", "/s"),
                        peer=_DELTAS[name],
                        theirs=other[ours],
                    )

    def idle(self) -> Iterator[Figure]:
        runs = {
            "default": lambda: fresh("bench_idle", "idle", actors=100_000),
            "awake": lambda: fresh("bench_idle", "idle", actors=100_000, awake=100_000),
        }
        found = self.take_turns(runs, repeats=1)
        self.digests["idle"] = found["awake"]["digest"]
        yield Figure("idle_100000", found["default"]["memory_mb"], "MB", at_most=150)
        yield Figure("idle_100000_awake_and_loaded", found["awake"]["memory_mb"], "MB", at_most=150)
        yield Figure("idle_awake_and_loaded", found["awake"]["bytes_actor"], "bytes/actor")

    def replay(self) -> Iterator[Figure]:
        found = self.take_turns({"replay": lambda: fresh("bench_replay", "redriven", turns=500)})["replay"]
        self.digests["replay"] = found["digest"]
        yield Figure("replay", found["events_s"], "events/s", at_least=100_000)
        yield Figure("replay_with_reading", found["with_reading_s"], "events/s")

    def tables(self) -> Iterator[Figure]:
        found = self.take_turns({"tables": lambda: fresh("bench_tables", "caught_up", turns=2000)})["tables"]
        self.digests["tables"] = found["digest"]
        yield Figure("tables_caught_up", found["events_s"], "events/s", at_least=100_000)

    def tools_disk(self) -> Iterator[Figure]:
        found = fresh("bench_tools_disk", "calls", calls=100)
        self.digests["tools_disk"] = found["digest"]
        yield Figure("disk_100_calls_2KB", found["disk_mb"], "MB", at_most=0.45)

    def policy(self) -> Iterator[Figure]:
        asked = self.take_turns({"checks": lambda: fresh("bench_policy", "checks", calls=100_000)})["checks"]
        self.digests["policy"] = asked["digest"]
        yield Figure("policy_check", asked["known_us"], "us/call", at_most=5)
        yield Figure("policy_check_new_name", asked["new_us"], "us/call")
        yield Figure("policy_layers_made_ready", asked["made_us"], "us")
        runs = {
            "plain": lambda: fresh("bench_turn", "durable", turns=100, governed=False),
            "governed": lambda: fresh("bench_turn", "durable", turns=100),
        }
        found = self.take_turns(runs)
        yield Figure(
            "policy_turn_cpu",
            found["governed"]["cpu_ms_turn"],
            "ms/turn",
            peer="the same without rules",
            theirs=found["plain"]["cpu_ms_turn"],
            at_most=1.15,
        )
        yield Figure(
            "policy_turn_100",
            found["governed"]["turns_s"],
            "turns/s",
            peer="the same without rules",
            theirs=found["plain"]["turns_s"],
        )

    def budget(self) -> Iterator[Figure]:
        """What limits of a scope and of each run add to a turn, and those with three layers of policy."""
        runs = {
            "plain": lambda: fresh("bench_turn", "durable", turns=100, governed=False),
            "limited": lambda: fresh("bench_turn", "durable", turns=100, governed=False, limited=True),
            "controlled": lambda: fresh("bench_turn", "durable", turns=100, limited=True),
        }
        found = self.take_turns(runs)
        for name, case in (("budget_turn", "limited"), ("turn_controlled", "controlled")):
            yield Figure(
                f"{name}_cpu",
                found[case]["cpu_ms_turn"],
                "ms/turn",
                peer="the same without limits or rules",
                theirs=found["plain"]["cpu_ms_turn"],
                at_most=1.15,
            )
            yield Figure(
                f"{name}_100",
                found[case]["turns_s"],
                "turns/s",
                peer="the same without limits or rules",
                theirs=found["plain"]["turns_s"],
            )

    def instructions(self) -> Iterator[Figure]:
        """What one turn more takes of the processor, whatever the hour; by valgrind, where that is installed."""
        if self.quick or shutil.which("valgrind") is None:
            return

        def of(**case: bool) -> float:
            few, many = (instructions("bench_turn", "counted", turns=turns, **case) for turns in (20, 70))
            return (many - few) / 50 / 1e6

        plain = of(governed=False)
        yield Figure("turn_instructions_without_rules", plain, "million/turn")
        for name, case in (
            ("turn_instructions", {}),
            ("budget_turn_instructions", {"governed": False, "limited": True}),
            ("turn_controlled_instructions", {"limited": True}),
        ):
            yield Figure(
                name, of(**case), "million/turn", peer="the same without limits or rules", theirs=plain, at_most=1.15
            )


_DELTAS = {"langgraph": "langgraph stream_mode=custom", "autogen": "autogen-core publish_message"}

QUESTIONS = (
    "turn",
    "sessions",
    "start",
    "stream",
    "idle",
    "replay",
    "tables",
    "tools_disk",
    "policy",
    "budget",
    "instructions",
)


def _short(value: float | None) -> float | None:
    if value is None:
        return None
    return round(value) if abs(value) >= 1000 else float(f"{value:.4g}")


def _line(figure: Figure) -> str:
    theirs = "" if figure["theirs"] is None else f"{figure['peer']} {figure['theirs']:,}, {figure['ratio']:g}x"
    held = {None: "", True: "holds", False: "MISSED"}[figure["holds"]]
    return f"{figure['name']:28} {figure['ours']:>11,} {figure['unit']:20} {theirs:52} {figure['goal'] or '':16} {held}"


def _usage(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("only", nargs="*", metavar="QUESTION", help=f"some of: {', '.join(QUESTIONS)}")
    parser.add_argument("--quick", action="store_true", help="two repeats; done in two minutes")
    parser.add_argument(
        "--peers", action="store_true", help="install the peers (once) and measure them in the same run"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a figure, on stdout")
    parser.add_argument(
        "--write", action="store_true", help="add the run to benchmarks/RESULTS.md, and draw the picture"
    )
    options = parser.parse_args(argv)
    unknown = [name for name in options.only if name not in QUESTIONS]
    if unknown:
        parser.error(f"no question {unknown[0]!r}; there are: {', '.join(QUESTIONS)}")
    if options.write and importlib.util.find_spec("matplotlib") is None:
        parser.error("--write draws a picture and needs matplotlib: pip install 'reenact[bench]'")
    return options


def main(argv: list[str]) -> int:
    options = _usage(argv)
    if options.peers:
        for name in rivals.PEERS:
            rivals.install(name)
    bench = Bench(quick=options.quick, peers=options.peers)
    figures: list[Figure] = []
    print(f"# {machine()}", file=sys.stderr)
    for name in options.only or QUESTIONS:
        for figure in getattr(bench, name)():
            figures.append(figure)
            print(json.dumps(figure) if options.json else _line(figure), flush=True)
    loops, syncs = zip(*bench.machine, strict=True) if bench.machine else ((0.0,), (0.0,))
    speed = f"calibration {min(loops):.0f}-{max(loops):.0f} ms, fdatasync {min(syncs):.2f}-{max(syncs):.2f} ms"
    speed += f"; {bench.noisy} rounds made again because the disk was busy" if bench.noisy else ""
    print(f"# {speed}; digests {json.dumps(bench.digests)}", file=sys.stderr)
    if options.write:
        _write(bench, figures, speed, argv)
    return 1 if any(figure["holds"] is False for figure in figures) else 0


def _write(bench: Bench, figures: list[Figure], speed: str, argv: list[str]) -> None:
    """Add the run to RESULTS.md above the older ones, and draw turn time against conversation length."""
    from importlib.metadata import version

    import reenact

    used = ", ".join(f"{name} {version(name)}" for name in ("msgspec", "pykka", "eventsourcing", "reactivex"))
    said = [
        f"## {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        "",
        f"`./dev bench {' '.join(argv)}`, reenact {reenact.__version__}{_commit()} with {used}. {machine()}; {speed}.",
        f"{bench.repeats} repeats, 3 of turn_500 beside the peers, 1 of what is named once. Input: one turn is a"
        " question of 94 characters, one tool call, 63 bytes of output, an answer of 79 characters; four commits, 13"
        " events; three layers of policy, and one watcher of everything, unless a figure says otherwise.",
    ]
    if bench.peers:
        said.append(f"Peers: {', '.join(' '.join(packages) for packages in rivals.PEERS.values())}.")
    said += ["", "| figure | ours | unit | peer | theirs | ratio | goal | holds |", "|---|---|---|---|---|---|---|---|"]
    for one in figures:
        cells = [one["name"], f"{one['ours']:,}", one["unit"], one["peer"] or ""]
        cells += [
            "" if one["theirs"] is None else f"{one['theirs']:,}",
            "" if one["ratio"] is None else str(one["ratio"]),
        ]
        cells += [one["goal"] or "", {None: "", True: "yes", False: "**no**"}[one["holds"]]]
        said.append(f"| {' | '.join(cells)} |")
    path = ROOT / "benchmarks" / "RESULTS.md"
    mark = "<!-- runs, newest first -->\n"
    before, _, after = path.read_text().partition(mark) if path.exists() else ("# Results\n\n", "", "")
    path.write_text(f"{before}{mark}\n" + "\n".join(said) + f"\n{after}")
    if len(bench.curves) > 1:
        _draw(bench.curves)


def _commit() -> str:
    """Of which commit it is, where that can be told."""
    try:
        told = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return ""
    return f" at {told.stdout.strip()}" if told.returncode == 0 else ""


def _draw(curves: dict[str, dict[str, float]]) -> None:
    os.environ.setdefault("MPLBACKEND", "Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for name, curve in curves.items():
        marks = sorted((int(turn), took) for turn, took in curve.items())
        style = {"reenact": {"linewidth": 3, "color": "black"}, "floor": {"linestyle": "--", "color": "grey"}}.get(
            name, {}
        )
        label = "floor: msgspec + sqlite3 alone" if name == "floor" else name
        axes.plot(*zip(*marks, strict=True), marker="o", markersize=3, label=label, **style)
    axes.set(xlabel="turn of the conversation", ylabel="ms a turn (log scale)", yscale="log")
    axes.set_title("A durable turn: question, tool call, result, answer; every step synced")
    axes.grid(True, which="both", alpha=0.2)
    axes.legend(fontsize="small")
    figure.savefig(ROOT / "benchmarks" / "turn_time.png", dpi=130)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
