"""How well the onset of overfitting is found on curves whose onset is known, beside three common rules.

    scripts/bench onset [--repeats 200] [--seed 0] [--out FILE]

For curves that overfit: detection / bias / standard deviation in epochs, then how often the confidence interval covers
the true onset and how wide it is. For the others: how often overfitting is claimed. In brackets, what is expected.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from overfit_lab.analysis.onset import Onset, estimate_onset
from overfit_lab.analysis.rules import ArgMin, GeneralisationLoss, Rule, Up
from scripts.benchmarks.scenarios import SCENARIOS, Scenario
from scripts.benchmarks.simulate import print_tables

RULES: tuple[Rule, ...] = (ArgMin(), GeneralisationLoss(5), Up(3))
ESTIMATOR = "paired trend bootstrap"
WIDTH = 140
METHODS = (*(rule.name for rule in RULES), ESTIMATOR)

EXPECTED: dict[str, tuple[str, ...]] = {
    "clear U": ("1/+.4/2.4", "1/+.4/2.4", "1/+.4/2.4", "1/0/1.8", ".95/7"),
    "clear U, every 5th epoch": ("-", "-", "-", "-", "-"),
    "shallow U": ("1/+2.9/8.2", ".95/+2.9/8.1", ".63/+1.6/7.5", "1/+.9/5.7", ".97/19"),
    "early, T=20": ("1/-.3/.5", "1/-.3/.5", "1/-.3/.5", "1/-.4/.5", "1.0/4"),
    "clear U, 3 spikes": ("-", "-", "-", "-", "-"),
    "early, T=20, 1 spike": ("-", "-", "-", "-", "-"),
    "epoch-wise double descent": (".83/+80/2.8", "1/+.3/1.4", "1/+.3/1.4", "1/0/1.0", ".99/5"),
    "heavy jitter": ("1/+2.2/6.3", "1/-13.5/3.9", ".91/+2.2/6.3", "1/+.1/5.0", ".98/17"),
    "heavy-tailed U": ("-", "-", "-", "-", "-"),
    "plateau": (".97", ".08", ".28", ".05", ""),
    "plateau, every 5th epoch": ("-", "-", "-", "-", ""),
    "plateau, 3 spikes": ("-", "-", "-", "-", ""),
    "plateau, 5 % jitter": (".97", "1.0", ".35", ".10", ""),
    "still falling": (".54", "0", "0", "0", ""),
    "falling with drift": (".91", ".29", ".27", ".03", ""),
    "AR(.5) jitter": (".97", "1.0", ".30", ".38", ""),
    "heavy-tailed plateau": ("-", "-", "-", "-", ""),
}


@dataclass(frozen=True)
class Outcome:
    """What one method found in repeated draws of one scenario.

    Attributes:
        onsets: epoch found in every draw; None where the method claims no overfitting.
    """

    onsets: tuple[int | None, ...]

    @property
    def detection(self) -> float:
        """Fraction of draws in which overfitting is claimed; the false-positive rate where there is none."""
        return sum(onset is not None for onset in self.onsets) / len(self.onsets)

    def bias(self, true_onset: int) -> float:
        """Mean of the onsets found, less the true one, in epochs."""
        return float(np.mean(self._found)) - true_onset

    @property
    def sd(self) -> float:
        """Standard deviation of the onsets found, in epochs; not a number for fewer than two."""
        return float(np.std(self._found, ddof=1)) if len(self._found) > 1 else float("nan")

    @property
    def _found(self) -> list[int]:
        return [onset for onset in self.onsets if onset is not None]


@dataclass(frozen=True)
class Intervals:
    """The confidence intervals of the estimator, and how often it reports a second descent.

    Attributes:
        cover: fraction that holds the true onset.
        width: mean of upper less lower end, in epochs.
        second_descent: fraction of the detections.
    """

    cover: float
    width: float
    second_descent: float


def measure(scenario: Scenario, repeats: int, seed: int) -> tuple[dict[str, Outcome], list[Onset]]:
    """Draw a scenario repeatedly, and let every method read the same curves.

    Args:
        scenario: what to draw from.
        repeats: number of draws.
        seed: of the first; the others follow from it.

    Returns:
        The outcome by name of the method, and the estimator's full reports.
    """
    found: dict[str, list[int | None]] = {method: [] for method in METHODS}
    reports = []
    for repeat in range(repeats):
        sample = scenario.draw(np.random.default_rng([seed, repeat]))
        val_loss = sample.val_losses.mean(axis=1)
        for rule in RULES:
            row = rule.stop(val_loss, sample.train_loss).epoch
            found[rule.name].append(None if row is None else int(sample.epochs[row - 1]))
        reports.append(estimate_onset(sample.val_losses, sample.train_loss, epochs=sample.epochs, seed=repeat))
        found[ESTIMATOR].append(reports[-1].epoch)
    return {method: Outcome(tuple(onsets)) for method, onsets in found.items()}, reports


def intervals(reports: Sequence[Onset], true_onset: int) -> Intervals:
    """Sum up the confidence intervals of the reports that claim overfitting.

    Args:
        reports: of the estimator.
        true_onset: of the population, in completed passes.
    """
    claimed = [report for report in reports if report.ci is not None]
    ends = np.array([report.ci for report in claimed])
    return Intervals(
        cover=float(np.mean((ends[:, 0] <= true_onset) & (true_onset <= ends[:, 1]))),
        width=float(np.mean(ends[:, 1] - ends[:, 0])),
        second_descent=float(np.mean([report.second_descent for report in claimed])),
    )


def tabulate(repeats: int, seed: int, scenarios: Sequence[Scenario] = SCENARIOS) -> Table:
    """Measure the scenarios and set the figures beside the expected ones.

    Args:
        repeats: draws of each.
        seed: of all of them.
        scenarios: rows of the table.
    """
    title = f"Onset of overfitting: measured (expected), {repeats} draws, seed {seed}"
    table = Table(title=title, caption="detection / bias / sd; nulls: false positives", show_lines=True)
    table.add_column("case (true onset)")
    for column in (*METHODS, "its 95 % CI: cover / width"):
        table.add_column(column)
    for scenario in scenarios:
        outcomes, reports = measure(scenario, repeats, seed)
        cells = [_cell(outcomes[method], scenario.onset) for method in METHODS]
        cells.append("")
        if scenario.onset is not None and outcomes[ESTIMATOR].detection > 0:
            summary = intervals(reports, scenario.onset)
            cells[-1] = f"{summary.cover:.2f}/{summary.width:.1f}"
            if summary.second_descent > 0:
                cells[-1] += f", second descent {summary.second_descent:.2f}"
        label = scenario.name if scenario.onset is None else f"{scenario.name} ({scenario.onset})"
        beside = zip(cells, EXPECTED[scenario.name], strict=True)
        table.add_row(label, *(f"{cell}\n({figure})" if figure else cell for cell, figure in beside))
    return table


def _cell(outcome: Outcome, true_onset: int | None) -> str:
    if true_onset is None or outcome.detection == 0:
        return f"{outcome.detection:.2f}"
    return f"{outcome.detection:.2f}/{outcome.bias(true_onset):+.1f}/{outcome.sd:.1f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, and write it to a file if asked to.

    Args:
        arguments: of the command line.
    """
    print_tables(
        "Measure how well the onset of overfitting is found.",
        lambda repeats, seed: [tabulate(repeats, seed)],
        arguments,
        repeats=100,
        width=WIDTH,
    )


if __name__ == "__main__":
    main()
