"""The sweep that nested cross-validation is: the jobs that were asked for, once for each outer fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from overfit_lab.config import conf_directory, literal
from overfit_lab.errors import UserError
from overfit_lab.launch.explain import explain
from overfit_lab.launch.job import config_of

OUTER_FOLDS = 5
_OWN = ("split.outer", "study.report")
# They leave rows and labels to validate on as they are, and may be swept as any of a run's settings.
_OF_FITS = ("data.scale_inputs", "data.train_size")


@dataclass(frozen=True)
class NestedSweep:
    """A sweep whose studies are outer folds.

    Args:
        overrides: For `train -m`.
        studies: The directory of each outer fold's study.
    """

    overrides: tuple[str, ...]
    studies: tuple[Path, ...]


def nested_sweep(overrides: Sequence[str]) -> NestedSweep:
    """Turn the overrides of a sweep into those of its nested cross-validation.

    Args:
        overrides: As for `train -m`. `split.outer_folds` is 5 unless it is given.

    Raises:
        UserError: They cannot be read, sweep source, split or study, or set what the outer folds set.
    """
    for word in overrides:
        if word.startswith("-"):
            raise UserError(f"{word}: nested takes no flags of Hydra; allowed are overrides, as for train -m")
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        shared = []
        for word, override in zip(overrides, parsed, strict=True):
            key = override.get_key_element().lstrip("+~")
            if key in _OWN:
                raise UserError(f"{word}: nested sets it itself")
            if key.split("@")[0].split(".")[0] not in ("data", "split", "study"):
                continue
            if override.is_sweep_override():
                if key in _OF_FITS:
                    continue
                raise UserError(f"{word}: a nested cross-validation has one source and one split, of one study")
            if key == "split.test_fraction" and override.value():
                raise UserError(f"{word}: the test rows of nested are the outer folds; leave it out")
            shared.append(word)
        with initialize_config_dir(version_base="1.3", config_dir=str(conf_directory())):
            # What the sweep adds stands in `conf/`: it is a configuration as it is.
            outer = ("split.outer=0", "split.test_fraction=0")
            config = config_of(compose("config", overrides=[f"split.outer_folds={OUTER_FOLDS}", *shared, *outer]))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from error
    study, folds = config.study, config.split.outer_folds
    assert folds is not None  # else the schema had refused `split.outer`
    root = study.directory.with_name(f"{study.directory.name}-nested")
    own = [
        # A `${` would be an interpolation.
        "study.root=" + literal(str(root).replace("${", r"\${"), '"'),
        "study.name=outer-${split.outer}",
        "study.report=false",
        "split.test_fraction=0",
        f"split.outer_folds={folds}",
        f"split.outer={','.join(map(str, range(folds)))}",
    ]
    kept = [word for word in overrides if word.split("=")[0] not in {o.split("=")[0] for o in own}]
    return NestedSweep((*kept, *own), tuple(root / f"outer-{fold}" for fold in range(folds)))
