"""Data sets of the public hub, by the library `datasets`, and folders of parquet files of the same layout."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl

from overfit_lab.config import HubData, Problem
from overfit_lab.data.frame import choose_targets, source_of_frame
from overfit_lab.data.parquet import Splits, read_parquet_folder
from overfit_lab.data.source import Source
from overfit_lab.errors import UserError, first_line

VALIDATION = ("validation", "valid", "val", "dev")
# Kinds of files that hold rows; others name further files, or need decoders of their own.
READ = ("parquet", "csv", "json", "arrow", "text", "cache")
_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_PUT = "or put its parquet files (train-*.parquet, test-*.parquet) into a folder and give that: data.path=FOLDER"


def load_hub(config: HubData, asked: Problem | None) -> Source:
    """Load a data set of the hub, or of a folder that is laid out as one.

    What was published as the test set is the test rows of every split; the rows of train and validation sets are
    development rows, to be cut anew.

    Args:
        config: Which one, and which of its columns.
        asked: The problem type of the target, where it is not to be inferred.

    Raises:
        UserError: It is not there, must not or cannot be fetched, or is no data set to learn from.
    """
    folder = Path(config.path).expanduser()
    if folder.is_file():
        raise UserError(f"data.path={folder}: is a file; allowed with data=hub is a folder or a name, see data=file")
    splits = read_parquet_folder(folder, config.subset) if folder.is_dir() else _fetch(config)
    frame, test, said = _join(splits, config)
    val = None
    if config.validate_on_test:
        if test is None:
            raise UserError(
                f"data.validate_on_test=true: {config.path} has no test rows with targets; allowed is false"
            )
        val = test
    return source_of_frame(config, frame, asked, official_test=test, official_val=val, folder=splits.folder, said=said)


def _join(splits: Splits, config: HubData) -> tuple[pl.DataFrame, np.ndarray | None, list[str]]:
    """Put the rows of the splits together: the rows, which of them are test rows, and what was done in words."""
    frames = {name: _with_class_names(frame, splits) for name, frame in splits.frames.items()}
    if "train" not in frames and (len(frames) > 1 or "test" in frames):
        raise UserError(f"data.path={config.path}: there is no split train; it has {', '.join(frames)}")
    train = frames.pop("train") if "train" in frames else frames.popitem()[1]
    targets = choose_targets(config, train)
    if config.inputs is not None:
        # What nobody asks for need not be in every split.
        train = train.select(column for column in train.columns if column in (*config.inputs, *targets, *config.groups))
    parts, said = [train], []
    for name in VALIDATION:
        if name in frames:
            parts.append(_like(train, frames.pop(name), name, config))
            said.append(f"{len(parts[-1])} rows of {name} are joined with those of train")
    test = frames.pop("test", None)
    if test is not None and any(_hides(test, train, name) for name in targets):
        said.append(f"{len(test)} rows of test have no target and are left out")
        test = None
    if frames:
        said.append(f"left out: {', '.join(frames)}")
    development = sum(map(len, parts))
    if test is not None:
        parts.append(_like(train, test, "test", config))
        said.append(f"{len(test)} rows of test are {'validated on' if config.validate_on_test else 'the test rows'}")
    try:
        joined = pl.concat(parts)
    except pl.exceptions.PolarsError as error:
        raise UserError(f"data.path={config.path}: its splits do not fit together: {first_line(error)}") from error
    return joined, None if test is None else np.arange(development, len(joined)), said


def _hides(test: pl.DataFrame, train: pl.DataFrame, target: str) -> bool:
    """Say whether a test set keeps its targets to itself: it has none, or -1 throughout, as the hub has it."""
    if target not in test or test[target].is_null().all():
        return True
    numbers = test[target].dtype.is_integer() and train[target].dtype.is_integer()
    return numbers and bool((test[target] == -1).all()) and not bool((train[target] == -1).any())


def _like(train: pl.DataFrame, other: pl.DataFrame, name: str, config: HubData) -> pl.DataFrame:
    """Give a split the columns of train, in their order; what it has beside them is no input."""
    missing = [column for column in train.columns if column not in other]
    if missing:
        raise UserError(
            f"data.path={config.path}: split {name} has no column {', '.join(missing)}, which train has; name columns "
            "that both have by data.inputs"
        )
    return other.select(train.columns)


def _with_class_names(frame: pl.DataFrame, splits: Splits) -> pl.DataFrame:
    """Give the numbers of classes their names, in the publisher's order; -1 stands for none."""
    columns = [
        frame[column].replace_strict(range(len(names)), names, default=None, return_dtype=pl.Enum(names)).alias(column)
        for column, names in splits.classes.items()
        if column in frame and frame[column].dtype.is_integer() and len(set(names)) == len(names)
    ]
    return frame.with_columns(columns)


def _fetch(config: HubData) -> Splits:
    """Read a data set of the public hub: what was downloaded before, or where that is asked for, anew."""
    if not _NAME.fullmatch(config.path):
        raise UserError(f"data.path={config.path}: there is no such folder, and no data set of the hub is called so")
    try:
        import datasets
    except ImportError as error:
        why = first_line(error)
        raise UserError(f"data=hub: needs the library datasets ({why}); install overfit_lab[hub], {_PUT}") from error
    with _quietly(offline=not config.download):
        try:
            builder = datasets.load_dataset_builder(config.path, config.subset)
            kind = type(builder).__module__.split(".")[-1]
            if kind not in READ:
                raise UserError(f"data.path={config.path}: its files are of kind {kind}; allowed are {', '.join(READ)}")
            # The library writes into a folder of another name, which becomes the data set when it is complete.
            builder.download_and_prepare()
            found = builder.as_dataset()
        except UserError:
            raise
        # It reaches for files, for the network and for what others wrote, and each may fail in its own way.
        except Exception as error:
            raise UserError(_missing(config, error)) from error
        features = next(iter(found.values())).features
        classes = {name: own.names for name, own in features.items() if isinstance(own, datasets.ClassLabel)}
        # Encoded as they are: what decodes them later opens no file that a data set names.
        images = [name for name, own in features.items() if isinstance(own, datasets.Image)]
        frames = {}
        for split, rows in found.items():
            for name in images:
                rows = rows.cast_column(name, datasets.Image(decode=False))
            frames[str(split)] = rows.to_polars()
    return Splits(frames, classes)


def _missing(config: HubData, error: Exception) -> str:
    why = f"({type(error).__name__}: {first_line(error)})"
    if not config.download:
        return (
            f"data.path={config.path}: there is no such folder, and it was not downloaded before {why}; "
            f"data.download=true fetches it from the hub, {_PUT}"
        )
    return f"data.path={config.path}: it cannot be fetched from the hub {why}; try again, {_PUT}"


@contextmanager
def _quietly(*, offline: bool) -> Iterator[None]:
    """Keep the library from talking, and where it shall be offline, from reaching for the network."""
    import datasets
    import huggingface_hub.constants as hub
    from huggingface_hub.utils import logging as hub_logging

    before = datasets.config.HF_HUB_OFFLINE, hub.HF_HUB_OFFLINE
    levels = datasets.logging.get_verbosity(), hub_logging.get_verbosity()
    bars = datasets.are_progress_bars_disabled()
    # Both read the environment once, when they are imported.
    datasets.config.HF_HUB_OFFLINE, hub.HF_HUB_OFFLINE = offline or before[0], offline or before[1]
    datasets.logging.set_verbosity(logging.ERROR)
    hub_logging.set_verbosity(logging.ERROR)
    if offline:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, hub.HF_HUB_OFFLINE = before
        datasets.logging.set_verbosity(levels[0])
        hub_logging.set_verbosity(levels[1])
        if not bars:
            datasets.enable_progress_bars()
