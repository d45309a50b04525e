"""The map of a sweep: its runs laid out over two keys, with a value and words for each cell."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from overfit_lab.records import RunRecord
from overfit_lab.report.configurations import configured, failed_configurations, swept_keys
from overfit_lab.report.grid import grid_keys
from overfit_lab.report.labels import VERDICTS, loss_decimals, loss_value, short_names, value_label
from overfit_lab.report.page.numbers import rounded
from overfit_lab.study import Study


@dataclass(frozen=True)
class MapAxis:
    """A swept key and its values in order, as text; without a key it has one value and no name."""

    name: str
    labels: list[str]


@dataclass(frozen=True)
class MapLayer:
    """What the cells can show.

    Args:
        id: A key of a cell's `faces`.
        title: On the switch.
        caption: What the colour means, in a sentence.
    """

    id: str
    title: str
    caption: str


@dataclass(frozen=True)
class Face:
    """What a cell shows in one layer: a number to colour it by or None, its text, and a smaller line beneath."""

    value: float | None
    text: str
    beneath: str = ""


@dataclass(frozen=True)
class MapCell:
    """One cell.

    Args:
        x: Its column.
        y: Its row.
        runs: Its finished runs; more than one where seeds differ.
        state: Of the cell: `finished`, `failed` or `missing`.
        faces: By the id of the layer.
    """

    x: int
    y: int
    runs: list[str]
    state: str
    faces: dict[str, Face]


@dataclass(frozen=True)
class MapSlice:
    """The cells for one choice of the keys that are on no axis; `label` names them, and is empty without any."""

    label: str
    cells: list[MapCell]


@dataclass(frozen=True)
class StudyMap:
    """A map."""

    x: MapAxis
    y: MapAxis
    layers: list[MapLayer]
    slices: list[MapSlice]


def study_map(study: Study, loss_label: str) -> StudyMap | None:
    """Lay the runs of a study out; None where nothing was swept but the seed."""
    keys = grid_keys(study)
    if not keys:
        return None
    swept, names = study.swept(), short_names(swept_keys(study))
    across, down, *others = [*keys, ""][: max(2, len(keys))]
    places = {key: {value: i for i, value in enumerate(swept[key])} for key in keys}
    places[""] = {None: 0}
    runs: dict[tuple[int, ...], list[RunRecord]] = defaultdict(list)
    for run in study.runs:
        runs[_place(run.config, [across, down, *others], places) or ()].append(run)
    failed = {_place(config, [across, down, *others], places) for config in failed_configurations(study).values()}
    decimals = loss_decimals(study.runs)

    def cells(rest: tuple[int, ...]) -> Iterator[MapCell]:
        for y, x in itertools.product(range(len(places[down])), range(len(places[across]))):
            own = runs.get((x, y, *rest), [])
            if own:
                faces = {"val_loss": _val_loss(own, decimals), "onset": _onset(own), "gap": _gap(own, decimals)}
                yield MapCell(x, y, [run.run_id for run in own], "finished", faces)
            else:
                state, text = ("failed", "failed") if (x, y, *rest) in failed else ("missing", "no result")
                yield MapCell(x, y, [], state, {layer: Face(None, text) for layer in ("val_loss", "onset", "gap")})

    slices = []
    for rest in sorted({place[2:] for place in runs}):
        chosen = [f"{names[key]} {value_label(swept[key][i])}" for key, i in zip(others, rest, strict=True)]
        slices.append(MapSlice(", ".join(chosen), list(cells(rest))))
    x_axis = MapAxis(names[across], [value_label(value) for value in swept[across]])
    y_axis = MapAxis(names[down], [value_label(value) for value in swept[down]]) if down else MapAxis("", [""])
    return StudyMap(x_axis, y_axis, _layers(loss_label), slices)


def _layers(loss_label: str) -> list[MapLayer]:
    return [
        MapLayer("val_loss", "validation loss", f"Lowest validation loss ± standard error, {loss_label}."),
        MapLayer("onset", "onset", "Epoch at which overfitting begins [95 % interval], or why there is none."),
        MapLayer("gap", "gap", f"Validation loss less train loss at the best epoch, {loss_label}."),
    ]


def _place(config: dict[str, Any], keys: Sequence[str], places: dict[str, dict[Any, int]]) -> tuple[int, ...] | None:
    found = [places[key].get(configured(config, key) if key else None) for key in keys]
    return None if None in found else tuple(place for place in found if place is not None)


def _val_loss(runs: Sequence[RunRecord], decimals: int) -> Face:
    losses = [run.val_loss.mean for run in runs if run.val_loss.mean is not None]
    if not losses:
        return _verdict(runs)
    mean = fmean(losses)
    if len(runs) > 1:
        return Face(rounded(mean), loss_value(mean, decimals), f"mean of {len(losses)} runs")
    se = runs[0].val_loss.se
    return Face(rounded(mean), loss_value(mean, decimals), "" if se is None else f"± {loss_value(se, decimals)}")


def _onset(runs: Sequence[RunRecord]) -> Face:
    onsets = [run.onset.epoch for run in runs if run.onset.epoch is not None]
    if not onsets:
        return _verdict(runs)
    if len(runs) > 1:
        return Face(rounded(fmean(onsets)), f"{fmean(onsets):.3g}", f"mean of {len(onsets)} of {len(runs)} runs")
    interval = runs[0].onset.ci
    return Face(onsets[0], f"{onsets[0]}", "" if interval is None else f"[{interval[0]}, {interval[1]}]")


def _gap(runs: Sequence[RunRecord], decimals: int) -> Face:
    gaps = [run.gap for run in runs if run.gap is not None]
    if not gaps:
        return _verdict(runs)
    beneath = f"mean of {len(gaps)} runs" if len(runs) > 1 else ""
    return Face(rounded(fmean(gaps)), loss_value(fmean(gaps), decimals), beneath)


def _verdict(runs: Sequence[RunRecord]) -> Face:
    verdict, count = Counter(VERDICTS[run.onset.verdict] for run in runs).most_common(1)[0]
    return Face(None, verdict, f"{count} of {len(runs)} runs" if len(runs) > 1 else "")
