"""The configurations of a study that can be compared, with their validation losses averaged over seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from overfit_lab.analysis.pooling import pool_rows
from overfit_lab.analysis.summary import summarise
from overfit_lab.config import config_id, parse, run_id
from overfit_lab.errors import UserError
from overfit_lab.records import LeftOut, RunFiles, RunRecord, ValLosses
from overfit_lab.study.study import Study, flatten


@dataclass(frozen=True, eq=False)
class Candidate:
    """A configuration, with what its runs on the common seeds have shown on validation rows.

    Args:
        runs: One for each seed, in order.
        files: Their files.
        epochs: `epochs`, those whose losses are kept, in completed passes, from 1.
        fold_losses: `epochs x folds`, the mean loss of each (repeat, fold).
        best: The place of its best epoch in `epochs`.
        row_losses: `rows`, its pooled losses there.
        settings: What tells its configuration from the others', by dotted keys.
        layout: Which rows its losses are of, and how they fall into folds; what two candidates must share for their
            losses to be compared row by row.
        val_train_ratio: Validation rows of a fold by its train rows, where `data.train_size` leaves fewer of these than
            the split does; else None.
    """

    runs: tuple[RunRecord, ...]
    files: tuple[RunFiles, ...]
    epochs: NDArray[np.int64]
    fold_losses: NDArray[np.float64]
    best: int
    row_losses: NDArray[np.float64]
    settings: Mapping[str, Any]
    layout: tuple[bytes, ...]
    val_train_ratio: float | None = None

    @property
    def config_id(self) -> str:
        """The configuration's name."""
        return self.runs[0].config_id

    @property
    def config(self) -> Mapping[str, Any]:
        """The configuration, with the first of the seeds."""
        return self.runs[0].config

    @property
    def parameters(self) -> int:
        """How many its network has."""
        return self.runs[0].parameters

    @property
    def alpha(self) -> float:
        """The strength of its penalty or, without one, of its decoupled decay."""
        return float(self.config["penalty"].get("alpha") or self.config["optimizer"].get("decoupled_decay") or 0)

    @property
    def epoch(self) -> int:
        """Its best epoch."""
        return int(self.epochs[self.best])

    @property
    def horizon(self) -> int:
        """How long it was trained."""
        return int(self.config["training"]["epochs"])

    @property
    def loss(self) -> float:
        """Its mean validation loss at its best epoch."""
        return float(self.row_losses.mean())

    @property
    def se(self) -> float | None:
        """The standard error of `loss` over rows."""
        rows = len(self.row_losses)
        return float(self.row_losses.std(ddof=1) / np.sqrt(rows)) if rows > 1 else None

    @cached_property
    def metrics(self) -> dict[str, float | None]:
        """The mean of each validation metric over fits at its best epoch; None where it is not finite."""
        at_best = (pl.col("split") == "val") & (pl.col("metric") != "loss") & (pl.col("epoch") == self.epoch)
        curves = pl.concat([files.load_curves().filter(at_best) for files in self.files])
        means = curves.group_by("metric", maintain_order=True).agg(pl.col("value").mean())
        return {name: value if np.isfinite(value) else None for name, value in means.iter_rows()}

    def load_losses(self) -> NDArray[np.float64]:
        """Read its pooled losses again, `epochs x rows`: those of all candidates need not fit into memory."""
        kept, losses = _average(self.files)
        return pool_rows(losses[:, 1:], kept.rows)

    def load_folds(self) -> NDArray[np.int64]:
        """Read the fold of each column of its losses, where rows are validated once: `rows`."""
        folds: NDArray[np.int64] = self.files[0].load_val_losses().folds[0]
        return folds


def gather_candidates(study: Study) -> tuple[list[Candidate], list[LeftOut], tuple[int, ...]]:
    """Find what can be selected.

    Runs that differ in seed alone are one configuration; its losses are means over the seeds that all configurations
    share, so that none is favoured by the luck of a seed of its own.

    Returns:
        The candidates, those that are left out, and the common seeds.

    Raises:
        UserError: There is none, or their losses cannot be compared.
    """
    if not study.runs:
        raise UserError(f"{study.files.directory}: no run is finished; train one first")
    _check_unedited(study)
    _check_comparable(study)
    groups: dict[str, list[RunRecord]] = defaultdict(list)
    for run in study.runs:
        groups[run.config_id].append(run)
    left_out = []
    for name, runs in list(groups.items()):
        why = _fault(runs, study)
        if why is not None:
            left_out.append(LeftOut(config_id=name, why=why))
            del groups[name]
    if not groups:
        raise UserError(f"{study.files.directory}: no configuration can be selected; {_first_reasons(left_out)}")
    seeds = sorted(set.intersection(*({_seed(run) for run in runs} for runs in groups.values())))
    if not seeds:
        raise UserError(
            f"{study.files.directory}: its configurations have no seed in common, so a difference between them may be "
            "the seeds'; train all of them with one seed"
        )
    swept = [key for key in study.swept() if key != "seed"]
    candidates = []
    for name, runs in groups.items():
        common = sorted((run for run in runs if _seed(run) in seeds), key=_seed)
        candidate = _make(common, study, swept)
        if candidate is None:
            why = "its validation loss is not finite at any epoch"
            left_out.append(LeftOut(config_id=name, why=why))
        else:
            candidates.append(candidate)
    if not candidates:
        raise UserError(f"{study.files.directory}: no configuration can be selected; {_first_reasons(left_out)}")
    return sorted(candidates, key=lambda c: c.loss), left_out, tuple(seeds)


def _check_unedited(study: Study) -> None:
    """Refuse a record whose configuration is not the one that it is named by."""
    for run in study.runs:
        config = parse(run.config)
        if (run_id(config), config_id(config)) != (run.run_id, run.config_id):
            raise UserError(
                f"{study.files.run(run.run_id).record}: its configuration is not the one that run {run.run_id} of "
                f"configuration {run.config_id} was named by; it was edited"
            )


def _check_comparable(study: Study) -> None:
    """Refuse losses in different units, and records that belong to another split."""
    for run in study.runs:
        for key, value in study.record.split.items():
            own = run.config["split"].get(key, value)
            if own != value:
                raise UserError(
                    f"{study.files.run(run.run_id).record}: split.{key}={own}, but the study is split with "
                    f"{key}={value}; their losses are of different rows and cannot be compared"
                )
    units = {
        "task.loss": study.losses(),
        "data.scale_targets": {str(run.config["data"]["scale_targets"]) for run in study.runs},
    }
    for key, values in units.items():
        if len(values) > 1:
            raise UserError(
                f"{key}: the runs have {' and '.join(sorted(values))}, so their losses have different units and cannot "
                "be compared; give each its own study.name"
            )
    noise = sorted({float(run.config["data"].get("label_noise", 0)) for run in study.runs})
    if len(noise) > 1:
        raise UserError(
            f"data.label_noise: the runs have {' and '.join(f'{share:g}' for share in noise)}, so they were validated "
            "on different labels and their losses cannot be compared; give each its own study.name"
        )


def _fault(runs: Sequence[RunRecord], study: Study) -> str | None:
    """Say why a configuration cannot be selected, or None."""
    for run in runs:
        folds, expected = {(fit.repeat, fit.fold) for fit in run.fits}, _folds(study)
        if folds != expected:
            missing = ", ".join(f"repeat {r} fold {f}" for r, f in sorted(expected - folds)) or "none"
            return f"run {run.run_id} has {len(folds)} of {len(expected)} folds; missing: {missing}"
        if run.status == "diverged":
            return f"run {run.run_id} diverged"
    return None


def _folds(study: Study) -> set[tuple[int, int]]:
    split = study.record.split
    return {(r, f) for r in range(split["repeats"]) for f in range(split.get("folds", 1))}


def _seed(run: RunRecord) -> int:
    return int(run.config["seed"])


def _first_reasons(left_out: Sequence[LeftOut]) -> str:
    reasons = [f"{one.config_id}: {one.why}" for one in left_out[:3]]
    more = len(left_out) - len(reasons)
    return "; ".join(reasons) + (f"; and {more} more" if more else "")


def _make(runs: Sequence[RunRecord], study: Study, swept: Sequence[str]) -> Candidate | None:
    files = tuple(study.files.run(run.run_id) for run in runs)
    for own, run in zip(files, runs, strict=True):
        _check_losses(own, run)
    kept, losses = _average(files)
    # Epoch 0 is no training.
    epochs, losses = kept.epochs[1:], losses[:, 1:]
    pooled = pool_rows(losses, kept.rows)
    # A single run's record holds the same estimate.
    epoch = runs[0].val_loss.epoch if len(runs) == 1 else summarise(pooled, None, epochs)[1]
    if epoch is None:
        return None
    best = int(np.searchsorted(epochs, epoch))
    return Candidate(
        runs=tuple(runs),
        files=files,
        epochs=epochs,
        fold_losses=_fold_means(losses, kept.folds),
        best=best,
        row_losses=pooled[best],
        settings={key: value for key, value in flatten(runs[0].config).items() if key in swept},
        layout=(kept.rows.tobytes(), kept.folds.tobytes()),
        val_train_ratio=_val_train_ratio(runs[0], study),
    )


def _val_train_ratio(run: RunRecord, study: Study) -> float | None:
    size = run.config["data"].get("train_size")
    if size is None:
        return None
    development = study.files.load_split().filter(pl.col("role") == "dev")
    folds = development.drop_nulls("fold").group_by("repeat", "fold").len()["len"]
    per_repeat = development.group_by("repeat").len()["len"]
    val = float(np.mean(folds.to_numpy()))
    train = size if size >= 1 else size * (float(np.mean(per_repeat.to_numpy())) - val)
    return float(val / train)


def _check_losses(files: RunFiles, run: RunRecord) -> None:
    """Refuse losses that are not those that the record was made of."""
    kept, said = files.load_val_losses(), run.val_loss
    shape = (len(kept.rows), len(kept.epochs), kept.rows.shape[-1])
    fits = kept.losses.shape == shape and kept.folds.shape == kept.rows.shape
    if fits and said.epoch is not None and said.mean is not None:
        own = kept.losses[:, kept.epochs == said.epoch].astype(np.float64)
        fits = own.shape[1] == 1 and bool(np.isclose(own.mean(), said.mean, rtol=1e-6, atol=0))
    if not fits:
        raise UserError(f"{files.val_losses} does not hold the losses that {files.record.name} beside it tells of")


def _average(files: Sequence[RunFiles]) -> tuple[ValLosses, NDArray[np.float64]]:
    """Average the kept losses of runs that differ in seed alone; the first ones say of which rows they are."""
    first, *others = (one.load_val_losses() for one in files)
    total = first.losses.astype(np.float64)
    for other in others:
        total = total + other.losses
    return first, total / len(files)


def _fold_means(losses: NDArray[np.float64], folds: NDArray[np.int64]) -> NDArray[np.float64]:
    """Average `repeats x epochs x columns` over the columns of each (repeat, fold): `epochs x folds`."""
    means = [own[:, fold == f].mean(1) for own, fold in zip(losses, folds, strict=True) for f in np.unique(fold)]
    return np.stack(means, axis=1)
