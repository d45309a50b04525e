"""The random numbers of a step: by stream and epoch, the same in whatever company."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from overfit_lab.data.development import Stream
from overfit_lab.model import MLP
from overfit_lab.seeding import torch_generator
from overfit_lab.training.noise import NoiseSource
from overfit_lab.training.stack import StackedNetwork, stack

STREAMS = (Stream(0, 0, 1), Stream(5, 0, 1), Stream(0, 2, 1), Stream(0, 0, 0))
WIDEST = 9
CPU = torch.device("cpu")


def _stack(widths: Sequence[int], rate: float | Sequence[float] = 0.5, streams: int = len(STREAMS)) -> StackedNetwork:
    rates = [rate] * len(widths) if isinstance(rate, float) else rate
    return stack(
        [
            [MLP(4, 2, width=w, depth=2, activation="tanh", dropout=r) for w, r in zip(widths, rates, strict=True)]
            for _ in range(streams)
        ],
        "layered",
    )


def _source(
    widths: Sequence[int] = (5,),
    rate: float | Sequence[float] = 0.5,
    *,
    streams: Sequence[Stream] = STREAMS,
    seeded: bool = False,
) -> NoiseSource:
    return NoiseSource(_stack(widths, rate, len(streams)), streams, (4,), WIDEST, seeded=seeded)


def _draw(source: NoiseSource, *rows: int, epoch: int = 0) -> list[dict[str, Tensor]]:
    """The noise of an epoch's steps, of which each has so many rows."""
    source.start(epoch)
    return [dict(source.draw(n, CPU).layers) for n in rows]


def test_numbers_come_from_the_generator_of_their_stream_and_epoch() -> None:
    """Step after step, layer after layer, for the widest batch of the split."""
    source = _source()
    for epoch in (0, 3):
        steps = _draw(source, WIDEST, 7, epoch=epoch)
        for place, stream in enumerate(STREAMS):
            generator = torch_generator("dropout", *stream, epoch)
            for rows, layers in zip((WIDEST, 7), steps, strict=True):
                assert list(layers) == ["2.noise", "5.noise"]
                for values in layers.values():
                    expected = torch.rand(WIDEST, 5, generator=generator)
                    assert torch.equal(values[place, 0], expected[:rows])


def test_streams_steps_layers_and_epochs_differ() -> None:
    source = _source()
    drawn = [
        values[place, 0]
        for epoch in (0, 1)
        for layers in _draw(source, WIDEST, WIDEST, epoch=epoch)
        for values in layers.values()
        for place in range(len(STREAMS))
    ]
    assert len({tuple(values.flatten().tolist()) for values in drawn}) == 2 * 2 * 2 * len(STREAMS)


def test_an_epoch_can_be_drawn_again() -> None:
    """So an interrupted fit needs no generator state to go on."""
    source = _source()
    first = _draw(source, 9, 8, epoch=4)
    _draw(source, 9, epoch=5)
    for ours, again in zip(_draw(source, 9, 8, epoch=4), first, strict=True):
        assert all(torch.equal(ours[name], again[name]) for name in first[0])


def test_rows_do_not_depend_on_the_size_of_any_batch() -> None:
    for short, whole in zip(_draw(_source(), 3, 9, 2), _draw(_source(), 9, 9, 9), strict=True):
        for name, values in short.items():
            assert torch.equal(values, whole[name][:, :, : values.shape[2]])


def test_streams_beside_it_change_nothing() -> None:
    together = _draw(_source(), 9, 8)
    for place, stream in enumerate(STREAMS):
        for ours, all_of_them in zip(_draw(_source(streams=[stream]), 9, 8), together, strict=True):
            assert all(torch.equal(ours[name][0], all_of_them[name][place]) for name in ours)


def test_sizes_beside_it_change_nothing() -> None:
    widths = (5, 3, 8, 3)
    together = _draw(_source(widths), 9, 7, 9)
    for configuration, width in enumerate(widths):
        for ours, all_of_them in zip(_draw(_source((width,)), 9, 7, 9), together, strict=True):
            for name, values in ours.items():
                assert torch.equal(values[:, 0], all_of_them[name][:, configuration, :, :width])


def test_layout_of_one_size_is_shared_and_of_several_padded() -> None:
    (layers,) = _draw(_source((5, 5, 5)), 6)
    assert {name: tuple(v.shape) for name, v in layers.items()} == {n: (4, 1, 6, 5) for n in ("2.noise", "5.noise")}
    (layers,) = _draw(_source((5, 3, 8)), 6)
    assert {name: tuple(v.shape) for name, v in layers.items()} == {n: (4, 3, 6, 8) for n in ("2.noise", "5.noise")}
    for values in layers.values():
        assert values[:, 0, :, 5:].count_nonzero() == 0
        assert values[:, 1, :, 3:].count_nonzero() == 0
        assert values[:, 2].count_nonzero() == values[:, 2].numel()
        assert ((values >= 0) & (values < 1)).all()


def test_rates_beside_it_change_nothing() -> None:
    """One that drops nothing is handed noise where others drop; the others' is what it would be without it."""
    (mixed,), (plain,) = _draw(_source((5, 5), [0.0, 0.5]), 6), _draw(_source((5,)), 6)
    assert all(torch.equal(mixed[name], plain[name]) for name in plain)


@pytest.mark.parametrize("widths", [(5, 5), (5, 3)])
def test_where_nothing_is_dropped_nothing_is_drawn(widths: Sequence[int]) -> None:
    source = _source(widths, 0.0)
    assert [list(step) for step in _draw(source, 9, 8)] == [[], []]
    assert source.draw(9, CPU).seeds == []


def test_the_default_type_changes_no_number() -> None:
    expected = _draw(_source(), 9)
    torch.set_default_dtype(torch.float64)
    try:
        found = _draw(_source(), 9)
    finally:
        torch.set_default_dtype(torch.float32)
    for name, values in expected[0].items():
        assert found[0][name].dtype == torch.float32
        assert torch.equal(found[0][name], values)


def test_seeds_are_by_stream_epoch_and_step() -> None:
    source = _source(seeded=True)
    seeds = []
    for epoch in (0, 1):
        source.start(epoch)
        seeds += [list(source.draw(9, CPU).seeds) for _ in range(3)]
    assert len({seed for step in seeds for seed in step}) == 2 * 3 * len(STREAMS)
    # The same in other company, and when the epoch is begun anew.
    alone = _source(streams=[STREAMS[2]], seeded=True)
    alone.start(1)
    assert [list(alone.draw(4, CPU).seeds) for _ in range(3)] == [[step[2]] for step in seeds[3:]]


def test_global_generators_are_left_alone() -> None:
    source = _source(seeded=True)
    before = torch.random.get_rng_state()
    _draw(source, 9, 8)
    assert torch.equal(torch.random.get_rng_state(), before)
