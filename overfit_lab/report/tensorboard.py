"""What a report adds to TensorBoard: its figures under IMAGES, and which columns HPARAMS has."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

from overfit_lab.files import write_atomically
from overfit_lab.training.event_file import VERSION, framed

# As the runs' own event files call them.
METRICS = ("final/val_loss", "final/onset", "final/gap")


def write_events(directory: Path, figures: Iterable[Path], hparams: Iterable[str], wall_time: float) -> None:
    """Write an event file, in place of that of an earlier report.

    Args:
        directory: The folder that TensorBoard takes for a run.
        figures: PNG files; each is named by its stem.
        hparams: The configuration keys that tell runs apart.
        wall_time: When they are said to be made, in seconds since 1970. The same figures at the same time give the
            same file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    values = [_columns([*hparams, "parameters"]), *map(_image, figures)]
    events = [Event(wall_time=wall_time, summary=Summary(value=[value])) for value in values]
    content = framed(Event(wall_time=wall_time, file_version=VERSION), *events)
    # TensorBoard goes on reading where it has stopped in a file, so other figures need a file of another name.
    path = directory / f"events.out.tfevents.{int(wall_time):010}.{hashlib.sha256(content).hexdigest()[:10]}"
    write_atomically(path, content)
    for stale in set(directory.glob("events.out.tfevents.*")) - {path}:
        stale.unlink(missing_ok=True)


def _columns(hparams: Iterable[str]) -> Summary.Value:
    """Say which columns HPARAMS has; without it TensorBoard shows the first five keys of the alphabet."""
    experiment = api_pb2.Experiment(
        hparam_infos=[api_pb2.HParamInfo(name=name) for name in dict.fromkeys(hparams)],
        metric_infos=[api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in METRICS],
    )
    content = plugin_data_pb2.HParamsPluginData(experiment=experiment, version=metadata.PLUGIN_DATA_VERSION)
    return Summary.Value(tag=metadata.EXPERIMENT_TAG, metadata=metadata.create_summary_metadata(content))


def _image(path: Path) -> Summary.Value:
    content = path.read_bytes()
    # A PNG begins with its signature and the head of its first chunk, then come its sizes.
    width, height = struct.unpack(">II", content[16:24])
    image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=content)
    return Summary.Value(tag=f"report/{path.stem}", image=image)
