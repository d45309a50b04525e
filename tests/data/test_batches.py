import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from overfit_lab.data.batches import Batch, BatchLoader
from tests.data.dense import dense

PROPERTY = settings(max_examples=60, deadline=None, derandomize=True, database=None)
Name = tuple[int, int, int]


def loader(
    sizes: Sequence[int],
    steps: int,
    *,
    folds: Sequence[int] | None = None,
    names: Sequence[Name] | None = None,
    features: int = 2,
    dtype: torch.dtype = torch.float32,
) -> BatchLoader:
    """Streams whose rows tell where they come from: x and y are 1000 times the fold plus the row's number."""
    folds = range(len(sizes)) if folds is None else folds
    names = [(0, 0, fold) for fold in folds] if names is None else names
    label = 1000 * torch.arange(max(folds) + 1)[:, None] + torch.arange(max(sizes))
    x = label[:, :, None].expand(-1, -1, features).to(dtype)
    return BatchLoader(x, label[:, :, None], sizes=sizes, folds=folds, names=names, steps=steps)


def epoch_of(batches: BatchLoader, epoch: int = 0) -> list[Batch]:
    batches.sampler.set_epoch(epoch)
    return [batch for chunk in batches for batch in chunk]


def real_rows(batch: Batch, stream: int) -> list[int]:
    """The rows of one stream that count."""
    labels: list[int] = batch.y[stream, :, 0][batch.weight[stream] > 0].tolist()
    return labels


def order_of(batches: BatchLoader, stream: int, epoch: int = 0) -> list[int]:
    return [row for batch in epoch_of(batches, epoch) for row in real_rows(batch, stream)]


@PROPERTY
@given(data=st.data())
def test_an_epoch_visits_every_row_of_every_stream_once(data: st.DataObject) -> None:
    smallest = data.draw(st.integers(1, 40))
    sizes = data.draw(st.lists(st.integers(smallest, smallest + 3), min_size=1, max_size=4))
    steps = data.draw(st.integers(1, min(sizes)))
    batches = loader(sizes, steps)
    for epoch in (0, 1):
        taken = epoch_of(batches, epoch)
        assert len(taken) == steps
        for stream, size in enumerate(sizes):
            rows = [row for batch in taken for row in real_rows(batch, stream)]
            assert sorted(rows) == [1000 * stream + row for row in range(size)]
            in_batches = [len(real_rows(batch, stream)) for batch in taken]
            assert max(in_batches) - min(in_batches) <= 1
            assert min(in_batches) >= 1


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-7), (torch.float64, 1e-15)])
@pytest.mark.parametrize(("sizes", "steps"), [([20], 3), ([17, 16, 19], 6), ([3, 4], 3), ([7, 7], 1)])
def test_rows_weigh_one_over_their_batch_and_padding_nothing(
    sizes: list[int], steps: int, dtype: torch.dtype, tolerance: float
) -> None:
    for batch in epoch_of(loader(sizes, steps, dtype=dtype)):
        assert batch.weight.dtype == batch.x.dtype == dtype
        assert batch.weight.shape == batch.x.shape[:2] == batch.y.shape[:2]
        for weights in batch.weight.tolist():
            count = sum(weight > 0 for weight in weights)
            expected = [1 / count] * count + [0] * (len(weights) - count)
            assert weights == pytest.approx(expected, rel=tolerance, abs=0)
            assert sum(weights) == pytest.approx(1, rel=4 * tolerance)


def test_a_batch_is_no_wider_than_its_longest_stream() -> None:
    # 17 rows in 6 steps: 2 or 3 rows; 16 rows: the same, but not at the same steps.
    widths = [batch.x.shape[1] for batch in epoch_of(loader([17, 16], 6))]
    assert set(widths) <= {2, 3}
    assert sum(widths) >= 17
    assert [batch.x.shape[1] for batch in epoch_of(loader([12], 4))] == [3, 3, 3, 3]


def test_inputs_and_targets_belong_together() -> None:
    for batch in epoch_of(loader([17, 16], 5)):
        assert batch.x.shape[2] == 2
        for feature in range(2):
            assert torch.equal(dense(batch.x)[:, :, feature].long(), batch.y[:, :, 0])


def test_class_indices_need_no_second_dimension() -> None:
    x = torch.arange(10.0)[None, :, None]
    batches = BatchLoader(x, torch.arange(10)[None], sizes=[10], folds=[0], names=[(0, 0, 0)], steps=3)
    for batch in epoch_of(batches):
        assert batch.y.shape == batch.x.shape[:2]
        assert torch.equal(dense(batch.x)[:, :, 0].long(), batch.y)


def test_streams_of_one_fold_take_its_rows_each_in_an_order_of_its_own() -> None:
    names = [(0, 0, 1), (1, 0, 1), (0, 0, 0)]
    batches = loader([15, 15, 15], 4, folds=[1, 1, 0], names=names)
    orders = [order_of(batches, stream) for stream in range(3)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(1000, 1015))
    assert orders[0] != orders[1]
    assert sorted(orders[2]) == list(range(15))


@pytest.mark.parametrize("name", [(1, 0, 0), (0, 1, 0), (0, 0, 1)], ids=["seed", "repeat", "fold"])
def test_order_differs_between_streams(name: Name) -> None:
    batches = loader([30, 30], 4, folds=[0, 0], names=[(0, 0, 0), name])
    assert order_of(batches, 0) != order_of(batches, 1)


def test_order_differs_between_epochs_and_depends_on_the_epoch_alone() -> None:
    batches = loader([30], 4)
    orders = [order_of(batches, 0, epoch) for epoch in range(5)]
    assert len({tuple(order) for order in orders}) == 5
    assert list(range(30)) not in orders
    # An interrupted run goes on at an epoch without the ones before it.
    assert order_of(loader([30], 4), 0, epoch=3) == orders[3]
    assert order_of(batches, 0, epoch=1) == orders[1]


def test_first_epoch_is_epoch_0() -> None:
    fresh = [row for chunk in loader([30], 4) for batch in chunk for row in real_rows(batch, 0)]
    assert fresh == order_of(loader([30], 4), 0, epoch=0)


@pytest.mark.parametrize(
    ("sizes", "names"),
    [([17, 17], [(0, 0, 0), (5, 0, 0)]), ([17, 18], [(0, 0, 0), (0, 0, 1)]), ([17, 16], [(0, 0, 0), (0, 0, 1)])],
    ids=["as long", "longer", "shorter"],
)
def test_batches_of_a_stream_do_not_depend_on_the_company(sizes: list[int], names: list[Name]) -> None:
    alone = epoch_of(loader(sizes[:1], 5, names=names[:1]), epoch=2)
    torch.manual_seed(123)
    first = epoch_of(loader(sizes, 5, names=names), epoch=2)
    last = epoch_of(loader(sizes[::-1], 5, folds=[1, 0], names=names[::-1]), epoch=2)
    for stream, batches in ((0, first), (1, last)):
        assert [real_rows(batch, stream) for batch in batches] == [real_rows(batch, 0) for batch in alone]
        for batch, expected in zip(batches, alone, strict=True):
            own = batch.weight[stream] > 0
            assert torch.equal(dense(batch.x)[stream][own], dense(expected.x)[0][expected.weight[0] > 0])
            assert torch.equal(batch.weight[stream][own], expected.weight[0][expected.weight[0] > 0])


def test_shuffling_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    epoch_of(loader([30, 31], 4))
    assert torch.equal(torch.get_rng_state(), before)


# 33 and 32 rows in 7 steps: at most 5 rows a stream, so 2 * 5 * 3 = 30 elements a step.
@pytest.mark.parametrize(
    ("limit", "chunks"), [(1, [1] * 7), (30, [1] * 7), (89, [2, 2, 2, 1]), (90, [3, 3, 1]), (10**6, [7])]
)
def test_chunks_hold_the_same_batches(monkeypatch: pytest.MonkeyPatch, limit: int, chunks: list[int]) -> None:
    expected = epoch_of(loader([33, 32], 7, features=3), epoch=1)
    monkeypatch.setattr("overfit_lab.data.batches.CHUNK_ELEMENTS", limit)
    batches = loader([33, 32], 7, features=3)
    batches.sampler.set_epoch(1)
    found = list(batches)
    assert [len(chunk) for chunk in found] == chunks
    assert len(batches) == len(chunks)
    for batch, other in zip([batch for chunk in found for batch in chunk], expected, strict=True):
        _assert_equal(batch, other)


def _assert_equal(batch: Batch, other: Batch) -> None:
    assert torch.equal(dense(batch.x), dense(other.x))
    assert torch.equal(batch.y, other.y)
    assert torch.equal(batch.weight, other.weight)
    assert batch.sizes == other.sizes


def test_small_epochs_are_one_chunk_by_default() -> None:
    # Lightning's cost per training_step is paid once for many optimizer steps.
    assert len(loader([400, 401], math.ceil(401 / 32), features=30)) == 1
