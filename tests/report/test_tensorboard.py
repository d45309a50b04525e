"""The figures under IMAGES, read back by TensorBoard's own reader."""

from __future__ import annotations

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata, plugin_data_pb2

from overfit_lab.report import write_report
from overfit_lab.study import load_study
from tests.report.made_up import make_sweep


def _images(directory: Path) -> dict[str, bytes]:
    reader = EventAccumulator(str(directory))
    reader.Reload()
    return {tag: reader.Images(tag)[0].encoded_image_string for tag in reader.Tags()["images"]}


def test_the_reports_figures_are_images(tmp_path: Path) -> None:
    report = write_report(load_study(make_sweep(tmp_path).directory))
    images = _images(report.directory / "tensorboard")
    assert set(images) == {f"report/{name}" for name in ("curves", "capacity", "heatmap_val_loss", "heatmap_onset")}
    for tag, content in images.items():
        assert content == (report.directory / "figures" / f"{Path(tag).name}.png").read_bytes()


def test_the_size_of_an_image_is_its_own(tmp_path: Path) -> None:
    report = write_report(load_study(make_sweep(tmp_path).directory))
    reader = EventAccumulator(str(report.directory / "tensorboard"))
    reader.Reload()
    [image] = reader.Images("report/capacity")
    # 6.4 x 4.2 inches at 200 dots an inch.
    assert (image.width, image.height) == (1280, 840)


def test_a_changed_figure_takes_the_place_of_the_former_in_a_file_of_another_name(tmp_path: Path) -> None:
    files = make_sweep(tmp_path)
    [before] = (write_report(load_study(files.directory)).directory / "tensorboard").iterdir()
    assert [before] == list((write_report(load_study(files.directory)).directory / "tensorboard").iterdir())
    for path in files.run("narrow0").directory.iterdir():
        path.unlink()
    files.run("narrow0").directory.rmdir()
    [after] = (write_report(load_study(files.directory)).directory / "tensorboard").iterdir()
    assert after != before


def test_hparams_have_the_swept_keys_as_columns(tmp_path: Path) -> None:
    report = write_report(load_study(make_sweep(tmp_path, seeds=(0, 1)).directory))
    reader = EventAccumulator(str(report.directory / "tensorboard"))
    reader.Reload()
    content = reader.summary_metadata[metadata.EXPERIMENT_TAG].plugin_data.content
    experiment = plugin_data_pb2.HParamsPluginData.FromString(content).experiment
    assert [own.name for own in experiment.hparam_infos] == ["model.width", "penalty.alpha", "seed", "parameters"]
    assert [own.name.tag for own in experiment.metric_infos] == ["final/val_loss", "final/onset", "final/gap"]
