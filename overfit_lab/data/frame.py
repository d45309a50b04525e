"""From a frame of columns to a source: which are its target, its inputs and its groups, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from overfit_lab.config import FileData, HubData, Problem
from overfit_lab.data.images import is_image, read_images
from overfit_lab.data.source import Source
from overfit_lab.data.table import is_prose, read_inputs
from overfit_lab.data.target import read_target
from overfit_lab.data.words import FrequentWords, mark_words
from overfit_lab.errors import UserError

# A column called so is the target where nobody says which one is; else the last one.
TARGET_NAMES = ("target", "label", "class", "y")
MOST_SHOWN = 20


def choose_targets(config: FileData | HubData, frame: pl.DataFrame) -> list[str]:
    """Choose the columns of the target: those that are asked for, or one with a usual name, or the last one.

    Raises:
        UserError: There is no such column, or none is left.
    """
    if config.targets:
        _check_columns(config, frame, "target", config.targets)
        return config.targets
    names = [name for name in frame.columns if name not in (*config.groups, *(config.inputs or []))]
    if not names:
        raise UserError(f"data.target is missing; {config.path} has no column beside the inputs and groups")
    usual = [name for name in names if name.lower() in TARGET_NAMES]
    return [usual[0] if len(usual) == 1 else names[-1]]


def source_of_frame(
    config: FileData | HubData,
    frame: pl.DataFrame,
    asked: Problem | None,
    *,
    official_test: NDArray[np.int64] | None = None,
    official_val: NDArray[np.int64] | None = None,
    folder: Path | None = None,
    said: Sequence[str] = (),
) -> Source:
    """Make a source of a frame by the columns that a config names.

    Args:
        config: It names the columns, or leaves them to be inferred.
        frame: `rows x columns`.
        asked: The problem type of the target, where it is not to be inferred.
        official_test: Rows that were published to test on.
        official_val: Rows to validate on, where they are not to be cut.
        folder: Where files that a column names may lie; None where there can be none.
        said: What else was done to the rows, in words.

    Raises:
        UserError: A column is not there, or cannot be what it is to be.
    """
    if frame.is_empty():
        raise UserError(f"data.path={config.path}: has no row; at least one is needed")
    place = f"data.path={config.path}"
    targets = choose_targets(config, frame)
    _check_columns(config, frame, "group", config.groups)
    names = _choose_inputs(config, frame, targets)
    key = f"data.target={','.join(targets)}" if config.targets else f"{place}: target {','.join(targets)}"
    images = any(is_image(frame[name]) for name in names)
    target = read_target(frame[targets], asked, key, of_images=images)
    common: dict[str, Any] = {
        "name": config.name,
        "problem": target.problem,
        "y": target.y,
        "groups": {name: np.array(frame[name].to_list(), dtype=object) for name in config.groups},
        "official_test": official_test,
        "official_val": official_val,
    }
    about = (f"target {', '.join(targets)} is {target.said}", *said)
    if images:
        if len(names) > 1:
            raise UserError(f"{place}: inputs are {', '.join(names)}; an image is an input alone, named by data.inputs")
        pixels = read_images(frame[names[0]], folder, place)
        return Source(x=pixels.x, shape=pixels.shape, said=(*about, pixels.said), **common)
    if len(names) == 1 and is_prose(frame[names[0]]):
        texts = frame[names[0]]
        marks = mark_words(texts.fill_null("").to_list(), f"{place}: column {names[0]}")
        words = f"the {config.words} most frequent words of {names[0]}"
        return Source(x=marks, preparation=FrequentWords(config.words), said=(*about, words), **common)
    inputs = read_inputs(frame[names], place)
    return Source(x=inputs.x, preparation=inputs.preparation, said=(*about, inputs.said), **common)


def _choose_inputs(config: FileData | HubData, frame: pl.DataFrame, targets: Sequence[str]) -> list[str]:
    if config.inputs is not None:
        _check_columns(config, frame, "inputs", config.inputs)
        for name in targets:
            if name in config.inputs:
                raise UserError(f"data.inputs={name}: it is the target; a network would only have to copy it")
        names = config.inputs
    else:
        others = [name for name in frame.columns if name not in (*targets, *config.groups)]
        # What stands beside images is a number or a name of them.
        names = [name for name in others if is_image(frame[name])] or others
    if not names:
        raise UserError(f"data.path={config.path}: has no input beside {', '.join(targets)}; at least one is needed")
    return names


def _check_columns(config: FileData | HubData, frame: pl.DataFrame, key: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"data.{key}={','.join(names)}: {name} is named twice")
        if name not in frame.columns:
            shown = ", ".join(frame.columns[:MOST_SHOWN]) + (", ..." if frame.width > MOST_SHOWN else "")
            raise UserError(f"data.{key}={name}: {config.path} has no such column; allowed are {shown}")
