"""What a person sees of a command's jobs: bars on a terminal, and a line for every job that is done."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from overfit_lab.data.source import Source
from overfit_lab.errors import printable
from overfit_lab.launch.job import Outcome
from overfit_lab.objective import parameter_roles
from overfit_lab.plan import Plan
from overfit_lab.training.history import Listener


class Display:
    """On a terminal there is a bar for the jobs and one for what is training, with the time left.

    Below them stands a line for every finished job. Where stdout is no terminal there are the lines alone.

    Args:
        console: Where it is said.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._total: int | None = None
        self._lines = 0
        self._shared: set[str] = set()
        self._warned: set[str] = set()
        self._inferred: set[str] = set()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._jobs = self._bars.add_task("runs", total=None)
        self._training = self._bars.add_task("training, %", total=100, visible=False)

    def __enter__(self) -> Display:
        """Show the bars, on a terminal."""
        if self.console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Remove the bars."""
        if self.console.is_terminal:
            self._bars.stop()

    def expect(self, jobs: list[list[str]]) -> None:
        """Learn which jobs there will be, each by its overrides."""
        self._total = len(jobs)
        if len(jobs) > 1:
            self._shared = set.intersection(*map(set, jobs))
        self._bars.update(self._jobs, total=len(jobs))

    def announce(self, plan: Plan, *, verbose: bool) -> None:
        """Say what should be known of a run before it trains.

        Args:
            plan: The run.
            verbose: Whether to show which of its parameters are penalised.
        """
        if verbose:
            self.console.print(_parameter_table(plan))
        self._say_of_source(plan.source)
        target = getattr(plan.config.model, "target", "")
        if plan.form.form == "looped" and target not in self._warned:
            self._warned.add(target)
            line = f"model._target_={target} cannot be stacked, so its fits are trained one by one: {plan.form.reason}"
            print(f"overfit-lab: {line}", file=sys.stderr)

    def _say_of_source(self, source: Source) -> None:
        """Say what was inferred from a file or done to it, once, however many runs there are."""
        line = f"overfit-lab: {source.name}: {'; '.join(source.said)}"
        if source.said and line not in self._inferred:
            self._inferred.add(line)
            # Names of columns and classes come from files, and could steer a terminal.
            print(printable(line), file=sys.stderr)

    def progress(self, done: float) -> None:
        """Show how much of what is training is done, from 0 to 1."""
        if done == 0:
            self._bars.reset(self._training, visible=True)
        self._bars.update(self._training, completed=int(100 * done))

    def finish(self, outcome: Outcome) -> None:
        """Say what has become of a job."""
        self._lines += 1
        self._bars.advance(self._jobs)
        number = f"[{self._lines}/{self._total or '?'}]"
        # What all jobs of a sweep share tells none of them apart.
        what = " ".join(o for o in outcome.overrides if o not in self._shared) or outcome.run_id
        if outcome.record is None:
            line = f"{number} {what}: {outcome.status}" + (f": {outcome.error}" if outcome.error else "")
        else:
            when = "finished before" if outcome.status == "present" else f"{outcome.record.seconds:.1f} s"
            line = f"{number} {what}: {outcome.record.onset} ({when})"
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


def _parameter_table(plan: Plan) -> Table:
    """Show what the network's parameters are, and which of them are penalised or decay."""
    table = Table("parameter", "shape", "role", "penalised", title="parameters")
    shapes = {name: tuple(value.shape) for name, value in plan.network.named_parameters()}
    for name, role in parameter_roles(plan.network).items():
        shape = " x ".join(map(str, shapes[name]))
        # A network of the user's own may have any names: Text, which is not markup.
        table.add_row(Text(name), shape, role or "unknown", "yes" if name in plan.weights else "no")
    return table


@contextmanager
def retraining_bar(console: Console) -> Iterator[Listener]:
    """Show, on a terminal, how many epochs of a retraining are done; lend what is to be told of each."""
    if not console.is_terminal:
        # Older versions of rich end even a bar that is disabled with a line.
        yield lambda _: None
        return
    with Progress(TextColumn("{task.description}"), console=console, transient=True) as bar:
        task = bar.add_task("")
        yield lambda history: bar.update(task, description=f"retraining, epoch {history.epochs}")
