"""TensorBoard event files, read back by TensorBoard's own reader."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from overfit_lab.data import load_source
from overfit_lab.objective import Penalty
from overfit_lab.training import History
from overfit_lab.training.events import EventWriter
from tests.training.cohorts import make_cohort


@pytest.fixture
def events(tmp_path: Path) -> tuple[EventAccumulator, dict[str, list[float]]]:
    writer = EventWriter(tmp_path, configuration=1)
    cohort = make_cohort(
        load_source("wine"),
        epochs=3,
        penalties=[Penalty(0.0, 0.0), Penalty(0.0, 0.5)],
        metrics=["accuracy"],
        listeners=[writer],
    )
    history = cohort.train(tmp_path / "c.ckpt")
    writer.finish({"model.width": 8, "penalty.kind": "l2", "nothing": None}, {"val_loss": 0.25, "onset": None})
    reader = EventAccumulator(str(tmp_path))
    reader.Reload()
    return reader, {split: history.curve(split, "loss")[:, 1].mean(0).tolist() for split in ("train", "val")}


def test_train_and_val_against_the_epoch(events: tuple[EventAccumulator, dict[str, list[float]]]) -> None:
    reader, curves = events
    for split in ("train", "val"):
        scalars = reader.Scalars(f"loss/{split}")
        assert [s.step for s in scalars] == [0, 1, 2, 3]
        np.testing.assert_allclose([s.value for s in scalars], curves[split], rtol=1e-6)
    assert [s.step for s in reader.Scalars("training/running_loss")] == [1, 2, 3]
    assert all(s.value > 0 for s in reader.Scalars("training/penalty"))
    assert {"accuracy/train", "accuracy/val"} <= set(reader.Tags()["scalars"])
    assert "loss/running_loss" not in reader.Tags()["scalars"]


def test_an_interrupted_run_shows_every_epoch_once(tmp_path: Path) -> None:
    """The first process has written epochs 0 to 2 and died; the second goes on from epoch 2."""
    history = History()
    first = EventWriter(tmp_path, configuration=0)
    for epoch in range(5):
        for split in ("train", "val"):
            history.append(split, "loss", torch.full((1, 1), 10.0 + epoch))
        if epoch < 3:
            first(history)
        if epoch == 2:
            first.close()
            second = EventWriter(tmp_path, configuration=0)
        if epoch >= 2:
            second(history)
    second.close()
    reader = EventAccumulator(str(tmp_path))
    reader.Reload()
    assert [(s.step, s.value) for s in reader.Scalars("loss/val")] == [(epoch, 10.0 + epoch) for epoch in range(5)]


def test_one_chart_for_each_metric(events: tuple[EventAccumulator, dict[str, list[float]]]) -> None:
    reader, _ = events
    content = reader.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    (category,) = layout_pb2.Layout.FromString(content).category
    charts = {chart.title: list(chart.multiline.tag) for chart in category.chart}
    assert charts == {"loss": ["loss/train", "loss/val"], "accuracy": ["accuracy/train", "accuracy/val"]}


def test_hparams_are_written_once_with_their_final_metrics(
    events: tuple[EventAccumulator, dict[str, list[float]]],
) -> None:
    reader, _ = events
    content = reader.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert set(start.hparams) == {"model.width", "penalty.kind"}
    assert start.hparams["model.width"].number_value == 8
    assert [s.value for s in reader.Scalars("final/val_loss")] == [0.25]
    (onset,) = reader.Scalars("final/onset")
    assert math.isnan(onset.value)
    assert "hp_metric" not in reader.Tags()["scalars"]
