"""How long a sweep takes, beside the other ways of training the same grid on the same machine.

    scripts/bench sweep [--out benchmark.json] [--repeats 3] [--only NAME,...] [--jax-python PATH] [--quick]

Whole processes are measured, imports included: scikit-learn's digits, 7 widths x 6 alphas x 5 folds = 210 fits of 100
epochs, batch 32, float32, train and validation loss and accuracy after every epoch. `grid` is all of it, `small_widths`
its widths up to 32. A ratio is the time of the other over ours. What would take hours is measured on a part of it and
scaled, and the table says so.

A second table (`steps` in --only) shows milliseconds for one optimizer step of a single cohort.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from rich.console import Console
from rich.table import Table

from scripts.benchmarks.competitors import (
    HANDWRITTEN,
    JAX,
    LABELS,
    LIGHTNING,
    OURS,
    Result,
    Stage,
    ours_step_ms,
)
from scripts.benchmarks.processes import OneLineParser, median, positive, tell
from scripts.benchmarks.sweep_competitors.grid import WIDTHS, Work
from scripts.benchmarks.sweep_competitors.grid import accelerator as grid_accelerator

SMALL = 32
STEPS = "steps"
COHORTS = ((16, 16), (64, 16), (256, 16), (30, 256))  # fits, width
SINGLE_WIDTH = 64
WIDTH = 150
BUSY = 0.5  # load average above which the figures are not to be trusted
QUICK_PARTS = {"grid": Work((4, 8), epochs=4), "small_widths": Work((4,), epochs=4)}
PARTS = {"grid": Work(), "small_widths": Work(tuple(width for width in WIDTHS if width <= SMALL))}

Results: TypeAlias = dict[str, dict[str, Result]]  # by part, then by competitor
Steps: TypeAlias = dict[str, dict[str, float]]  # by cohort, then by competitor


def measure(stage: Stage, parts: dict[str, Work], names: Sequence[str], repeats: int) -> Results:
    """Measure competitors on parts of the grid by turns, so that a slow minute of the machine meets all of them.

    Args:
        stage: where they are started.
        parts: of the grid, by name.
        names: of the competitors.
        repeats: measurements of each, of which the median is taken.
    """
    for name in names:
        stage.warm_up(name)
    found: dict[str, dict[str, list[Result]]] = {part: {name: [] for name in names} for part in parts}
    for repeat in range(repeats):
        for part, work in parts.items():
            for name in names:
                result = stage.train(name, work)
                found[part][name].append(result)
                tell(f"{part}, {LABELS[name]}, {repeat + 1} of {repeats}: {result.measured.seconds:.1f} s")
    return {
        part: {
            name: replace(results[0], measured=median([result.measured for result in results]))
            for name, results in of_part.items()
        }
        for part, of_part in found.items()
    }


def measure_steps(stage: Stage, names: Sequence[str], repeats: int, *, quick: bool) -> Steps:
    """Measure single cohorts, in milliseconds for an optimizer step.

    Args:
        stage: where they are started.
        names: of the competitors; those that train no cohorts are left out.
        repeats: measurements of each, of which the median is taken.
        quick: whether a few epochs are enough.
    """
    # A difference of two commands has to be long beside the seconds that one needs to start.
    few, some, many = ((1, 3), 3, 3) if quick else ((5, 65), 60, 200)
    found: dict[str, dict[str, list[float]]] = {}

    def keep(cohort: str, name: str, value: float) -> None:
        found.setdefault(cohort, {}).setdefault(name, []).append(value)
        tell(f"{cohort}, {name}: {value:.2f} ms per step")

    for _ in range(repeats):
        for fits, width in COHORTS:
            cohort = f"{fits} fits, w={width}"
            if OURS in names:
                keep(cohort, OURS, ours_step_ms(fits, width, many if fits <= 16 else some))
            for name in (HANDWRITTEN, JAX):
                if name in names:
                    for kind, value in stage.steps(name, fits, width, 36 if quick else 180).items():
                        keep(cohort, f"{name}_{kind}", value)
        cohort = f"1 fit, w={SINGLE_WIDTH}"
        if OURS in names:
            keep(cohort, OURS, ours_step_ms(1, SINGLE_WIDTH, many))
        if LIGHTNING in names:
            keep(cohort, LIGHTNING, stage.lightning_step_ms(SINGLE_WIDTH, few))
    return {
        cohort: {name: statistics.median(values) for name, values in of_cohort.items()}
        for cohort, of_cohort in found.items()
    }


def tabulate(part: str, work: Work, results: dict[str, Result]) -> Table:
    """Set the competitors of a part beside each other."""
    table = Table(title=f"{part}: {work.fits} fits, {work.epochs} epochs", caption="ratio: its time over ours")
    for column in ("", "seconds", "ratio", "peak MB", "val loss", "scaled from"):
        table.add_column(column, justify="left" if column in ("", "scaled from") else "right")
    for name, label in LABELS.items():
        result = results.get(name)
        if result is None:
            table.add_row(label, "-", "-", "-", "-", "not measured")
            continue
        ratio = _ratio(result, results.get(OURS))
        table.add_row(
            label,
            f"{result.measured.seconds:.1f}",
            "-" if ratio is None else f"{ratio:.2f}",
            f"{result.measured.peak / 1e6:.0f}" if result.measured.peak else "-",
            f"{result.val_loss:.3f}",
            result.scaled,
        )
    return table


def tabulate_steps(steps: Steps) -> Table:
    """Set the cohorts beside each other."""
    table = Table(
        title="milliseconds for one optimizer step",
        caption="ours and Lightning: all that an epoch costs, measurement included, over its steps",
    )
    columns = {
        OURS: "overfit-lab",
        f"{HANDWRITTEN}_with_measurement": "by hand, measured",
        f"{HANDWRITTEN}_training": "by hand, training only",
        f"{JAX}_with_measurement": "JAX, measured",
        f"{JAX}_training": "JAX, training only",
        LIGHTNING: "plain Lightning",
    }
    for column in ("", *columns.values()):
        table.add_column(column, justify="right" if column else "left")
    for cohort, found in steps.items():
        table.add_row(cohort, *(f"{found[name]:.2f}" if name in found else "-" for name in columns))
    return table


def report(stage: Stage, results: Results, steps: Steps, load: float) -> dict[str, object]:
    """Put all figures together for the file; competitors that were not measured are None.

    Args:
        stage: where they were started.
        results: by part of the grid and competitor.
        steps: milliseconds by cohort and competitor.
        load: of the machine before.
    """
    by_part = {part: {name: of_part.get(name) for name in LABELS} for part, of_part in results.items()}
    return {
        "ratios": {
            part: {name: _ratio(result, found[OURS]) for name, result in found.items() if name != OURS}
            for part, found in by_part.items()
        },
        "seconds": {
            part: {name: result and result.measured.seconds for name, result in found.items()}
            for part, found in by_part.items()
        },
        "peak_bytes": {
            part: {name: result and result.measured.peak for name, result in found.items()}
            for part, found in by_part.items()
        },
        "scaled_from": {
            part: {name: result.scaled for name, result in found.items() if result and result.scaled}
            for part, found in by_part.items()
        },
        "steps": steps,
        "machine": _machine(stage, load),
    }


def _ratio(other: Result | None, ours: Result | None) -> float | None:
    return None if other is None or ours is None else other.measured.seconds / ours.measured.seconds


def _machine(stage: Stage, load: float) -> dict[str, object]:
    packages = ("torch", "lightning", "scikit-learn", "numpy")
    return {
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": _processor(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in packages},
        "jax": None if stage.jax_python is None else _jax_version(stage.jax_python),
        "accelerator": grid_accelerator(),
        "load_before": load,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _jax_version(python: str) -> str | None:
    try:
        told = subprocess.run([python, "-c", "import jax; print(jax.__version__)"], capture_output=True, text=True)
    except OSError:
        return None
    return told.stdout.strip() if told.returncode == 0 else None


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in (*LABELS, STEPS)]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r}; allowed are {', '.join((*LABELS, STEPS))}")
    return names


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="scripts/bench sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=Path, default=Path("benchmark.json"), help="JSON file (default benchmark.json)")
    parser.add_argument("--repeats", type=positive, default=1, help="measurements of each (default 1)")
    parser.add_argument("--only", type=_names, default=[*LABELS, STEPS], help=f"of {', '.join((*LABELS, STEPS))}")
    parser.add_argument("--jax-python", help="an interpreter with jax, numpy and scikit-learn")
    parser.add_argument("--launcher", default="cohort", help="Hydra's launcher for ours (default cohort)")
    parser.add_argument("--accelerator", choices=("cpu", "cuda"), default="cpu", help="of ours and plain Lightning")
    parser.add_argument("--quick", action="store_true", help="only see that everything runs")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables, and write the figures to a file.

    Args:
        arguments: of the command line.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    os.environ["BENCH_ACCELERATOR"] = options.accelerator
    jax_python = options.jax_python
    if jax_python is None and importlib.util.find_spec("jax") is not None:
        jax_python = sys.executable
    if jax_python is None:
        tell("jax is left out: it is not installed here; --jax-python names an interpreter that has it")
    elif _jax_version(jax_python) is None:
        parser.error(f"--jax-python {jax_python}: it cannot import jax")
    if (load := os.getloadavg()[0]) > BUSY:
        tell(f"the machine is busy (load {load:.1f}): threads that wait for each other take many times as long")
    here = [name for name in LABELS if name != JAX or jax_python is not None]
    asked = [name for name in here if name in options.only]
    parts = QUICK_PARTS if options.quick else PARTS
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder), options.launcher, jax_python)
        results = measure(stage, parts, asked, options.repeats)
        # `--only steps` by itself means the steps of everybody.
        steps = (
            measure_steps(stage, asked or here, options.repeats, quick=options.quick) if STEPS in options.only else {}
        )
    console = Console(width=WIDTH)
    if asked:
        for part, of_part in results.items():
            console.print(tabulate(part, parts[part], of_part))
    if steps:
        console.print(tabulate_steps(steps))
    options.out.write_text(json.dumps(report(stage, results, steps, load), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
