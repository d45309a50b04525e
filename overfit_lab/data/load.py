"""From a configuration to its source, wherever the rows come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from overfit_lab.config import DataConfig, FileData, HubData, Problem
from overfit_lab.data.arrays import ArrayData, has_idx, read_idx_folder, read_npz
from overfit_lab.data.frame import source_of_frame
from overfit_lab.data.hub import load_hub
from overfit_lab.data.source import Source, source_of
from overfit_lab.data.table import read_table
from overfit_lab.data.target import read_target
from overfit_lab.errors import UserError

TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")


def load(config: DataConfig, asked: Problem | None = None) -> Source:
    """Load the source that a config names.

    Args:
        config: What it names.
        asked: The problem type of a file's target, where it is not to be inferred.

    Raises:
        UserError: It is not there, cannot be read, or is no data set.
    """
    if isinstance(config, FileData):
        return _from_file(config, asked)
    if isinstance(config, HubData):
        return load_hub(config, asked)
    return source_of(config)


def _from_file(config: FileData, asked: Problem | None) -> Source:
    path = Path(config.path).expanduser()
    if path.is_dir():
        if not has_idx(path):
            raise UserError(
                f"data.path={path}: a folder without IDX files; allowed are those of MNIST, and with data=hub parquet"
            )
        return _from_arrays(config, read_idx_folder(path), asked)
    if not path.is_file():
        raise UserError(f"data.path={path}: there is no such file; it is looked for in {Path.cwd()}")
    if path.suffix == ".npz":
        return _from_arrays(config, read_npz(path, config.groups), asked)
    if not path.name.endswith(TABLES):
        raise UserError(f"data.path={path}: allowed are files that end with {', '.join(TABLES)} or .npz")
    frame, said = read_table(path)
    return source_of_frame(config, frame, asked, folder=path.parent, said=said)


def _from_arrays(config: FileData, data: ArrayData, asked: Problem | None) -> Source:
    for key, given in (("target", config.target), ("inputs", config.inputs)):
        if given is not None:
            raise UserError(f"data.{key}={given}: {config.path} has no columns with names; allowed is null")
    if len(data.x) == 0:
        raise UserError(f"data.path={config.path}: has no row; at least one is needed")
    if len(data.x) != len(data.y):
        raise UserError(f"data.path={config.path}: has inputs of {len(data.x)} rows and targets of {len(data.y)}")
    key = f"data.path={config.path}: the target"
    target = read_target(_as_columns(config, data.y), asked, key, of_images=data.shape is not None)
    return Source(
        config.name,
        target.problem,
        data.x,
        target.y,
        data.groups,
        shape=data.shape,
        official_test=data.official_test,
        said=(f"the target is {target.said}", *data.said),
    )


def _as_columns(config: FileData, y: NDArray[np.generic]) -> pl.DataFrame:
    if y.ndim > 2 or y.dtype.kind not in "buifU":
        raise UserError(
            f"data.path={config.path}: the target has shape {y.shape} and holds {y.dtype}; allowed are rows or rows x "
            "targets, of numbers, text, or true and false"
        )
    columns = y[:, None] if y.ndim == 1 else y
    return pl.DataFrame({f"y[{j}]": columns[:, j] for j in range(columns.shape[1])})
