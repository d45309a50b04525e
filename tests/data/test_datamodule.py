import dataclasses
import math
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from overfit_lab.config import HoldoutSplit, KFoldSplit, Problem
from overfit_lab.data import Source, Split, make_split
from overfit_lab.data.datamodule import CohortDataModule, StackedRows
from overfit_lab.data.development import Stream, seal
from tests.data.dense import dense

PROPERTY = settings(max_examples=50, deadline=None, derandomize=True, database=None)

TARGETS: dict[Problem, Any] = {
    "binary": lambda rng, rows: rng.permutation(np.arange(rows) % 2),
    "multiclass": lambda rng, rows: rng.permutation(np.arange(rows) % 3),
    "multilabel": lambda rng, rows: rng.integers(0, 2, (rows, 3)),
    "regression": lambda rng, rows: rng.normal([5, -300], [1, 80], (rows, 2)),
    "unit_regression": lambda rng, rows: rng.uniform(size=rows),
}


def made_up(problem: Problem, rows: int = 47, seed: int = 0) -> Source:
    """Four inputs in units of their own; the first one numbers the rows."""
    rng = np.random.default_rng(seed)
    x = rng.normal([0, 10, -5, 1000], [1, 0.1, 3, 200], (rows, 4))
    x[:, 0] = np.arange(rows)
    return Source("made up", problem, x, TARGETS[problem](rng, rows))


def kfold(**changes: object) -> KFoldSplit:
    values = {"kind": "kfold", "test_fraction": 0.2, "repeats": 1, "seed": 0, "stratify": "auto", "folds": 3}
    return KFoldSplit.model_validate({**values, **changes})


def holdout(**changes: object) -> HoldoutSplit:
    values = {"kind": "holdout", "test_fraction": 0.2, "repeats": 1, "seed": 0, "stratify": "auto", "val_fraction": 0.2}
    return HoldoutSplit.model_validate({**values, **changes})


def module(
    source: Source,
    split: Split,
    streams: Sequence[Stream] | None = None,
    *,
    batch_size: int = 8,
    limit: int = 10_000,
    scale_inputs: bool = False,
    scale_targets: bool = False,
    dtype: torch.dtype = torch.float64,
) -> CohortDataModule:
    return CohortDataModule(
        seal(source, split),
        [Stream(0, fold.repeat, fold.fold) for fold in split.folds] if streams is None else streams,
        batch_size=batch_size,
        max_train_rows_measured=limit,
        scale_inputs=scale_inputs,
        scale_targets=scale_targets,
        dtype=dtype,
    )


def _val(data: CohortDataModule) -> StackedRows:
    assert data.val is not None
    return data.val


def orders(data: CohortDataModule, epoch: int = 0) -> list[list[list[int]]]:
    """For each stream and step, the source's numbers of the rows, read off the first input."""
    batches = data.train_dataloader()
    batches.sampler.set_epoch(epoch)
    steps = [batch for chunk in batches for batch in chunk]
    return [
        [dense(batch.x)[stream, :, 0][batch.weight[stream] > 0].long().tolist() for batch in steps]
        for stream in range(len(data.streams))
    ]


@PROPERTY
@given(
    rows=st.integers(8, 60),
    folds=st.integers(2, 5),
    batch_size=st.integers(1, 70),
    repeats=st.integers(1, 2),
)
def test_every_train_row_of_a_fold_comes_once_an_epoch(rows: int, folds: int, batch_size: int, repeats: int) -> None:
    source = made_up("regression", rows)
    split = make_split(source, kfold(folds=folds, repeats=repeats))
    sizes = [len(fold.train) for fold in split.folds]
    data = module(source, split, batch_size=batch_size)
    for fold, steps in zip(split.folds, orders(data), strict=True):
        assert sorted(row for step in steps for row in step) == fold.train.tolist()
        taken = [len(step) for step in steps]
        assert max(taken) - min(taken) <= 1
        # Where a batch is one row and folds differ in length, the shorter ones set the number of steps.
        exceeds = batch_size == 1 and min(sizes) < max(sizes)
        assert max(taken) <= batch_size + exceeds
        assert max(taken) <= data.widest_batch <= batch_size + exceeds
        if not exceeds:
            assert len(steps) == data.steps == math.ceil(max(sizes) / batch_size)


@pytest.mark.parametrize(("batch_size", "steps", "widest"), [(8, 1, 7), (7, 1, 7), (6, 2, 4), (3, 3, 3), (1, 6, 2)])
def test_steps_come_from_the_whole_split(batch_size: int, steps: int, widest: int) -> None:
    # 10 rows in 3 folds leave 6, 7 and 7 train rows: on its own, the first fold would fit into one batch of 6.
    source = made_up("regression", 10)
    split = make_split(source, kfold(test_fraction=0.0))
    assert [len(fold.train) for fold in split.folds] == [6, 7, 7]
    for streams in (None, [Stream(0, 0, 0)], [Stream(0, 0, 1)]):
        data = module(source, split, streams, batch_size=batch_size)
        assert (data.steps, data.widest_batch) == (steps, widest)
        assert [len(taken) for taken in orders(data)] == [steps] * len(data.streams)


def test_order_differs_between_epochs_and_streams() -> None:
    source = made_up("regression")
    split = make_split(source, kfold(repeats=2))
    streams = [Stream(0, 0, 0), Stream(1, 0, 0), Stream(2, 0, 0)]
    data = module(source, split, streams)
    seen = {str(steps) for epoch in range(3) for steps in orders(data, epoch)}
    assert len(seen) == 9


def test_order_is_the_same_in_another_data_module_and_company() -> None:
    source = made_up("regression")
    split = make_split(source, kfold(repeats=2))
    everything = [Stream(seed, fold.repeat, fold.fold) for seed in (0, 7) for fold in split.folds]
    together = module(source, split, everything)
    assert orders(module(source, split, everything), 4) == orders(together, 4)
    # Neither the other streams nor the settings that concern no row matter.
    for i, stream in enumerate(everything):
        alone = module(source, split, [stream], limit=5)
        assert orders(alone, 4) == [orders(together, 4)[i]]


@pytest.mark.parametrize("problem", list(TARGETS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_are_stacked_fold_by_fold(problem: Problem, dtype: torch.dtype) -> None:
    source = made_up(problem)
    split = make_split(source, kfold(repeats=2))
    data = module(source, split, dtype=dtype)
    assert {len(fold.train) for fold in split.folds} == {24, 25}
    for stack, parts in ((data.train, [f.train for f in split.folds]), (_val(data), [f.val for f in split.folds])):
        assert stack.sizes == tuple(len(part) for part in parts)
        assert stack.x.dtype == dtype
        assert stack.y.dtype == (torch.int64 if problem == "multiclass" else dtype)
        longest = max(stack.sizes)
        for x, y, part in zip(dense(stack.x), stack.y, parts, strict=True):
            # The shorter ones end with copies of their first row.
            rows = [*part, *[part[0]] * (longest - len(part))]
            np.testing.assert_array_equal(x.numpy(), source.x[rows].astype(x.numpy().dtype))
            np.testing.assert_array_equal(y.numpy(), source.y[rows].astype(y.numpy().dtype))


def test_streams_share_the_rows_of_their_fold() -> None:
    source = made_up("regression")
    split = make_split(source, kfold())
    data = module(source, split, [Stream(0, 0, 2), Stream(5, 0, 0), Stream(9, 0, 2)])
    assert data.fold_of_stream == [0, 1, 0]
    assert data.train.sizes == (len(split.folds[2].train), len(split.folds[0].train))
    assert sorted(row for step in orders(data)[2] for row in step) == split.folds[2].train.tolist()


def test_inputs_are_scaled_by_the_train_rows_of_each_fold() -> None:
    source = made_up("regression")
    split = make_split(source, kfold())
    data = module(source, split, scale_inputs=True)
    for i, fold in enumerate(split.folds):
        reference = StandardScaler().fit(source.x[fold.train])
        for stack, rows in ((data.train, fold.train), (_val(data), fold.val)):
            found = dense(stack.x)[i, : len(rows)].numpy()
            np.testing.assert_allclose(found, reference.transform(source.x[rows]), rtol=1e-9, atol=1e-9)
            np.testing.assert_array_equal(stack.y[i, : len(rows)].numpy(), source.y[rows])


def test_targets_are_scaled_by_the_train_rows_of_each_fold_and_back() -> None:
    source = made_up("regression")
    split = make_split(source, kfold())
    data = module(source, split, scale_targets=True)
    for i, fold in enumerate(split.folds):
        reference = StandardScaler().fit(source.y[fold.train])
        scaling = data.target_scalings[i]
        for stack, rows in ((data.train, fold.train), (_val(data), fold.val)):
            found = stack.y[i, : len(rows)].numpy()
            np.testing.assert_allclose(found, reference.transform(source.y[rows]), rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(found * scaling.scale + scaling.mean, source.y[rows], rtol=1e-12)
            np.testing.assert_array_equal(dense(stack.x)[i, : len(rows)].numpy(), source.x[rows])


def _tensors(value: object, seen: set[int] | None = None) -> Iterator[torch.Tensor | NDArray[Any]]:
    """Walk everything that can be reached from an object."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, torch.Tensor | np.ndarray):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item, seen)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _tensors(item, seen)
    elif hasattr(value, "__dict__"):
        yield from _tensors(vars(value), seen)


def _poisoned(source: Source, rows: NDArray[np.int64], x: float, y: float) -> None:
    """Overwrite rows of a finished source, past all its checks."""
    for array, value in ((source.x, x), (source.y, y)):
        owner = array if array.base is None else array.base
        assert isinstance(owner, np.ndarray)
        owner.flags.writeable = array.flags.writeable = True
        array[rows] = value


def _state(data: CohortDataModule) -> list[bytes]:
    loader = data.train_dataloader()
    batches = [batch for chunk in loader for batch in chunk]
    found = [*_tensors(data), *_tensors(loader), *_tensors(batches)]
    assert len(found) > 10
    return [np.asarray(values).tobytes() for values in found]


@pytest.mark.parametrize("config", [kfold(repeats=2), holdout()], ids=["kfold", "holdout"])
@pytest.mark.parametrize("problem", list(TARGETS))
def test_no_test_row_can_be_reached(problem: Problem, config: KFoldSplit | HoldoutSplit) -> None:
    settings: dict[str, Any] = {"scale_inputs": True, "scale_targets": problem == "regression", "limit": 15}
    source = made_up(problem)
    split = make_split(source, config)
    expected = _state(module(source, split, **settings))
    for x, y in ((np.nan, 0), (1e30, 1)):
        poisoned = made_up(problem)
        _poisoned(poisoned, split.test, x, y if problem != "regression" else x)
        assert not np.array_equal(poisoned.x, source.x)
        data = module(poisoned, split, **settings)
        assert _state(data) == expected
        assert all(np.isfinite(np.asarray(values)).all() for values in _tensors(data))
        assert max(np.abs(np.asarray(values)).max() for values in _tensors(data)) < 1e6


def test_sealed_rows_are_copies() -> None:
    source = made_up("regression")
    split = make_split(source, kfold())
    development = seal(source, split)
    assert not np.shares_memory(development.x, source.x)
    assert not np.shares_memory(development.y, source.y)
    np.testing.assert_array_equal(development.rows, split.development)
    assert len(development.x) == len(development.y) == source.rows - len(split.test)
    for sealed, fold in zip(development.folds, split.folds, strict=True):
        np.testing.assert_array_equal(development.x[sealed.train], source.x[fold.train])
        np.testing.assert_array_equal(development.y[sealed.val], source.y[fold.val])


@pytest.mark.parametrize("scale_targets", [False, True])
def test_scaled_train_rows_do_not_depend_on_val_or_test_rows(scale_targets: bool) -> None:
    source = made_up("regression")
    split = make_split(source, holdout())
    fold = split.folds[0]
    expected = module(source, split, scale_inputs=True, scale_targets=scale_targets)
    for rows in (split.test, fold.val):
        x, y = source.x.copy(), source.y.copy()
        x[rows], y[rows] = 1e5 - 3 * x[rows], 7 * y[rows] + 1e4
        found = module(dataclasses.replace(source, x=x, y=y), split, scale_inputs=True, scale_targets=scale_targets)
        assert torch.equal(dense(found.train.x), dense(expected.train.x))
        assert torch.equal(found.train.y, expected.train.y)
        assert torch.equal(dense(_val(found).x), dense(_val(expected).x)) == (rows is split.test)
        assert torch.equal(_val(found).y, _val(expected).y) == (rows is split.test)


# 50 rows: 10 for the test, 8 for validation, 32 to train on.
@pytest.mark.parametrize(("limit", "measured"), [(10_000, 32), (32, 32), (31, 8), (1, 8)])
def test_train_rows_beyond_the_limit_are_measured_on_as_many_as_there_are_val_rows(limit: int, measured: int) -> None:
    source = made_up("regression", 50)
    split = make_split(source, holdout())
    data = module(source, split, limit=limit)
    assert data.train_measured.sizes == (measured,)
    rows = dense(data.train_measured.x)[0, :, 0].long().tolist()
    assert len(set(rows)) == measured
    assert set(rows) <= set(split.folds[0].train.tolist())
    assert rows == sorted(rows)
    np.testing.assert_array_equal(data.train_measured.y[0].numpy(), source.y[rows])
    assert data.train.sizes == (32,)


def test_few_train_rows_are_measured_whole_whatever_the_limit() -> None:
    source = made_up("regression", 50)
    split = make_split(source, holdout(val_fraction=0.6))
    assert (len(split.folds[0].train), len(split.folds[0].val)) == (16, 24)
    assert module(source, split, limit=1).train_measured.sizes == (16,)


def test_measured_rows_are_the_same_in_every_data_module() -> None:
    source = made_up("multiclass", 80)
    split = make_split(source, kfold(folds=5, repeats=2))
    together = module(source, split, limit=20)
    names = [(fold.repeat, fold.fold) for fold in split.folds]
    for i, (repeat, fold) in enumerate(names):
        torch.manual_seed(i)
        np.random.seed(i)  # noqa: NPY002
        alone = module(source, split, [Stream(i, repeat, fold)], limit=20, batch_size=3)
        size = alone.train_measured.sizes[0]
        assert size == together.train_measured.sizes[i] == len(split.folds[i].val)
        assert torch.equal(dense(alone.train_measured.x)[0], dense(together.train_measured.x)[i, :size])


def test_measured_rows_are_drawn_anew_for_each_fold() -> None:
    source = made_up("regression", 75)
    split = make_split(source, kfold(folds=5, repeats=2))
    data = module(source, split, limit=20)
    places = {
        tuple(np.searchsorted(fold.train, dense(data.train_measured.x)[i, :, 0].numpy()))
        for i, fold in enumerate(split.folds)
    }
    assert len(places) == 10


@pytest.mark.parametrize("problem", ["binary", "multiclass"])
def test_measured_rows_keep_the_proportions_of_classes(problem: Problem) -> None:
    sizes = [300, 60] if problem == "binary" else [200, 100, 60]
    y = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    source = Source("uneven", problem, np.arange(360.0)[:, None], y)
    split = make_split(source, kfold(folds=6, test_fraction=0.0))
    data = module(source, split, limit=100)
    for i, fold in enumerate(split.folds):
        rows = dense(data.train_measured.x)[i, :, 0].long().numpy()
        assert len(rows) == 60
        share = np.bincount(y[fold.train]) / len(fold.train)
        assert (np.abs(np.bincount(y[rows]) - 60 * share) < 1).all()


def test_measured_rows_are_scaled_as_the_train_rows_are() -> None:
    source = made_up("regression", 50)
    split = make_split(source, holdout())
    data = module(source, split, limit=10, scale_inputs=True, scale_targets=True)
    train = {tuple(row) for row in dense(data.train.x)[0].tolist()}
    assert data.train_measured.sizes == (8,)
    assert {tuple(row) for row in dense(data.train_measured.x)[0].tolist()} <= train


@pytest.mark.parametrize(
    ("sizes", "val_fraction", "val"),
    [([60, 1], 0.2, 13), ([10] * 10, 0.05, 5), ([10] * 10, 0.46, 46)],
    ids=["a class of one row", "more classes than val rows", "a class that may vanish"],
)
def test_rows_are_measured_where_classes_are_too_small_to_stratify(
    sizes: list[int], val_fraction: float, val: int
) -> None:
    y = np.repeat(np.arange(len(sizes)), sizes)
    source = Source("small classes", "multiclass", np.arange(float(len(y)))[:, None], y)
    split = make_split(source, holdout(test_fraction=0.0, val_fraction=val_fraction, stratify=False))
    data = module(source, split, limit=val)
    assert len(split.folds[0].val) == val
    assert data.train_measured.sizes == (val,)


def test_tensors_move_to_the_device_of_the_trainer_once() -> None:
    source = made_up("multiclass", 50)
    split = make_split(source, holdout())
    whole, subset = module(source, split), module(source, split, limit=10)
    whole.setup("fit")  # without a Trainer there is nowhere to go
    assert dense(whole.train.x).device.type == "cpu"
    for data in (whole, subset):
        assert (data.train_measured is data.train) == (data is whole)
        trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("meta")))
        data.trainer = trainer
        sizes = [stack.sizes for stack in (data.train, _val(data), data.train_measured)]
        data.setup("fit")
        for stack in (data.train, _val(data), data.train_measured):
            assert dense(stack.x).device.type == stack.y.device.type == "meta"
        assert [stack.sizes for stack in (data.train, _val(data), data.train_measured)] == sizes
        assert (data.train_measured.x is data.train.x) == (data is whole)


@pytest.mark.parametrize(("limit", "measured"), [(10_000, 37), (37, 37), (20, 20)])
def test_where_nothing_is_held_back_there_are_no_validation_rows(limit: int, measured: int) -> None:
    source = made_up("binary")
    development = seal(source, make_split(source, holdout(test_fraction=0.2)))
    rows = np.arange(len(development.rows))
    assert len(rows) == 37
    whole = dataclasses.replace(development.folds[0], train=rows, val=rows[:0])
    data = CohortDataModule(
        dataclasses.replace(development, folds=(whole,)),
        [Stream(0, 0, 0)],
        batch_size=8,
        max_train_rows_measured=limit,
        scale_inputs=True,
        scale_targets=False,
    )
    assert data.val is None
    assert data.train.sizes == (37,)
    assert data.train_measured.sizes == (measured,)
    data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("meta")))  # type: ignore[assignment]
    data.setup("fit")
    assert dense(data.train.x).device.type == "meta"
    assert data.val is None
