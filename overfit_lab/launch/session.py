"""The jobs of one command: how many there are, what became of them, and what a person sees of it."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from overfit_lab.launch.job import Outcome, config_of, overrides_of, run_job
from overfit_lab.objective import parameter_roles
from overfit_lab.plan import Plan, prepare
from overfit_lab.training.history import History


class Session:
    """Runs the jobs that Hydra hands over, one after another.

    On a terminal there is a bar for the sweep, with the time left, and one for the cohort that is training; below
    them a line for every finished job. Where stdout is no terminal there are the lines alone.

    Args:
        console: Where it is said.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.outcomes: list[Outcome] = []
        self._total: int | None = None
        self._shared: set[str] = set()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._jobs = self._progress.add_task("runs", total=None)
        self._epochs = self._progress.add_task("epochs", total=None, visible=False)

    def __enter__(self) -> Session:
        """Show the bars, on a terminal."""
        if self.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Remove the bars."""
        if self.console.is_terminal:
            self._progress.stop()

    def expect(self, jobs: list[list[str]]) -> None:
        """Learn which jobs there will be, each by its overrides."""
        self._total = len(jobs)
        if len(jobs) > 1:
            self._shared = set.intersection(*map(set, jobs))
        self._progress.update(self._jobs, total=len(jobs))

    @property
    def studies_to_report(self) -> list[Path]:
        """The studies of the jobs so far, without those whose config says not to report."""
        return list(dict.fromkeys(o.study for o in self.outcomes if o.report))

    def run(self, composed: DictConfig) -> Outcome:
        """Run one job: Hydra's task function; with `hydra.verbose=true`, show first which parameters are penalised.

        Raises:
            UserError: The job cannot be what was asked for.
        """
        hydra = HydraConfig.get()
        plan = prepare(config_of(composed))
        if hydra.verbose:
            self.console.print(_parameter_table(plan))
        self._progress.reset(self._epochs, total=plan.config.training.epochs, visible=True)

        def show_epoch(history: History) -> None:
            self._progress.update(self._epochs, completed=history.epochs)

        outcome = run_job(plan, overrides_of(hydra), [show_epoch])
        self.outcomes.append(outcome)
        self._progress.advance(self._jobs)
        self.console.print(self._line(outcome), highlight=False, markup=False, soft_wrap=True)
        return outcome

    def _line(self, outcome: Outcome) -> str:
        number = f"[{len(self.outcomes)}/{self._total or '?'}]"
        # What all jobs of a sweep share tells none of them apart.
        what = " ".join(o for o in outcome.overrides if o not in self._shared) or outcome.run_id
        if outcome.record is None:
            return f"{number} {what}: failed: {outcome.error}"
        when = "finished before" if outcome.status == "present" else f"{outcome.record.seconds:.1f} s"
        return f"{number} {what}: {outcome.record.onset} ({when})"


def _parameter_table(plan: Plan) -> Table:
    """Show what the network's parameters are, and which of them are penalised or decay."""
    table = Table("parameter", "shape", "role", "penalised", title="parameters")
    shapes = {name: tuple(value.shape) for name, value in plan.network.named_parameters()}
    for name, role in parameter_roles(plan.network).items():
        shape = " x ".join(map(str, shapes[name]))
        # A network of the user's own may have any names: Text, which is not markup.
        table.add_row(Text(name), shape, role or "unknown", "yes" if name in plan.weights else "no")
    return table
