"""A plan: everything that can be known of a run before it is trained, and nothing written for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from overfit_lab.config import Config, config_id, run_id
from overfit_lab.errors import UserError
from overfit_lab.plan import prepare
from tests.launch.plans import grid

Configure = Callable[..., Config]


def test_nothing_is_written(config: Configure, tmp_path: Path) -> None:
    plan = prepare(config("data=iris"))
    assert list(tmp_path.iterdir()) == []
    assert plan.study.directory == tmp_path / "studies" / "iris-kfold"
    assert plan.files.directory == plan.study.directory / "runs" / plan.run_id
    assert plan.run_id == run_id(plan.config)
    record = plan.study_record
    assert (record.name, record.source.name, record.source.rows, record.source.outputs) == (
        "iris-kfold",
        "iris",
        150,
        3,
    )
    assert record.split == {
        **{"kind": "kfold", "folds": 5, "test_fraction": 0.2, "repeats": 1, "seed": 0, "stratify": "auto"},
        **{"group": None, "outer_folds": None, "outer": None},
    }


def test_jobs_of_a_sweep_share_source_and_split(config: Configure) -> None:
    """Reading and cutting them again for each of thousands would take longer than to train them."""
    first, second = grid(config("data=iris"), seed=[0, 1])
    assert first.source is second.source
    assert first.split is second.split
    assert first.duplicates is second.duplicates
    assert first.network is not second.network
    other = prepare(config("data=iris", "split.seed=1"))
    assert other.source.fingerprint == first.source.fingerprint
    assert other.split is not first.split


def rows(count: object) -> object:
    """Count 1 and count true are two data sets."""
    import numpy as np

    from overfit_lab.data import Source

    x = np.random.default_rng(0).normal(size=(40, 2)) + (5 if count is True else 0)
    return Source("rows", "binary", x, np.arange(40) % 2)


def test_what_python_calls_equal_is_not_the_same_data(config: Configure) -> None:
    own = ("data=custom", "data.name=rows", "data._target_=tests.test_plan.rows")
    one, true = (prepare(config(*own, f"+data.count={count}")) for count in ("1", "true"))
    assert one.source.fingerprint != true.source.fingerprint


def test_ids_are_of_what_matters_to_the_result(config: Configure) -> None:
    plan = prepare(config())
    same = ("study.name=x", "study.report=false", "trainer.accelerator=cpu", "training.checkpoint_seconds=0")
    assert {prepare(config(override)).run_id for override in same} == {plan.run_id}
    others = ("seed=1", "penalty=none", "trainer.precision=64-true", "training.epochs=7", "data.scale_inputs=false")
    assert len({plan.run_id, *(prepare(config(override)).run_id for override in others)}) == 6
    assert config_id(prepare(config("seed=1")).config) == config_id(plan.config)


def test_runs_that_are_measured_at_other_epochs_are_other_runs_and_train_apart(config: Configure) -> None:
    plan, every, fifth = (prepare(config(*own)) for own in ((), ("training.eval_every=1",), ("training.eval_every=5",)))
    assert plan.run_id == every.run_id
    # As if there were no such key.
    assert "eval_every" not in plan.config.training.model_dump(exclude_defaults=True)
    assert fifth.run_id != plan.run_id
    assert plan.cohort_key == every.cohort_key != fifth.cohort_key


def test_runs_with_other_train_sizes_and_label_noise_share_their_source_and_study(config: Configure) -> None:
    plan, small, half, noisy = (
        prepare(config("data=iris", *own))
        for own in ((), ("data.train_size=30",), ("data.train_size=0.5",), ("data.label_noise=0.2",))
    )
    assert plan.source is small.source is noisy.source
    assert plan.split is small.split is noisy.split
    assert plan.study_record == small.study_record == noisy.study_record
    # As if there were no such keys: old runs keep their names.
    assert not {"train_size", "label_noise"} & set(plan.config.data.model_dump(exclude_defaults=True))
    assert len({p.run_id for p in (plan, small, half, noisy)}) == 4
    assert len({p.cohort_key for p in (plan, small, half, noisy)}) == 4
    for one, count in ((plan, 96), (small, 30), (half, 48), (noisy, 96)):
        rows = one.seal()
        assert [len(fold.train) for fold in rows.folds] == [count] * 5
        for own, fold in zip(rows.folds, plan.split.folds, strict=True):
            np.testing.assert_array_equal(rows.rows[own.val], fold.val)
            assert set(rows.rows[own.train]) <= set(fold.train)
            # The split is stratified, and so is what is left of its train rows.
            assert np.bincount(plan.source.y[rows.rows[own.train]]).tolist() == [count // 3] * 3
    smaller, larger = (one.seal() for one in (small, half))
    assert all(set(a.train) < set(b.train) for a, b in zip(smaller.folds, larger.folds, strict=True))
    assert plan.seal().clean is None
    np.testing.assert_array_equal(noisy.seal().clean, plan.seal().y)
    assert (noisy.seal().y != plan.seal().y).sum() == 24


def test_where_it_is_not_said_tables_are_scaled_and_images_are_not(config: Configure) -> None:
    tables, images = (prepare(config(f"data={name}", "data.scale_inputs=auto")) for name in ("iris", "digits"))
    assert (tables.scale_inputs, images.scale_inputs) == (True, False)
    assert prepare(config("data=digits")).scale_inputs
    assert not prepare(config("data=iris", "data.scale_inputs=false")).scale_inputs


def test_other_seeds_of_a_fit_have_the_same_wrong_labels_and_train_rows(config: Configure) -> None:
    own = ("data=iris", "data.label_noise=0.3", "data.train_size=40")
    first, second, split = (prepare(config(*own, word)).seal() for word in ("seed=0", "seed=1", "split.seed=1"))
    np.testing.assert_array_equal(first.y, second.y)
    np.testing.assert_array_equal(first.folds[0].train, second.folds[0].train)
    assert not np.array_equal(first.folds[0].train, split.folds[0].train)


WEIGHTS = {"0.weight", "3.weight", "6.weight"}


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ((), WEIGHTS),
        (("penalty=none",), WEIGHTS),
        (("penalty=none", "optimizer=adamw"), WEIGHTS),
        (("penalty.exclude=[0.*]",), WEIGHTS - {"0.weight"}),
        (("penalty.include=[6.bias]",), WEIGHTS | {"6.bias"}),
    ],
)
def test_which_parameters_are_weights(config: Configure, overrides: tuple[str, ...], names: set[str]) -> None:
    assert prepare(config(*overrides)).weights == names


class Unknown(torch.nn.Module):
    """Has a parameter that is in no layer."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.values = torch.nn.Parameter(torch.zeros(inputs, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.values


def test_a_parameter_of_which_nothing_is_known(config: Configure) -> None:
    """It must be said whether it is a weight, but only where that makes a difference."""
    own = ("model=custom", "model._target_=tests.test_plan.Unknown")
    assert prepare(config(*own, "penalty=none")).weights == frozenset()
    for more in ((), ("penalty=none", "optimizer=adamw")):
        with pytest.raises(UserError, match="parameter values of the network is in no known layer type"):
            prepare(config(*own, *more))
    assert prepare(config(*own, "penalty.include=[values]")).weights == {"values"}


@pytest.mark.parametrize(
    ("overrides", "form", "reason"),
    [
        ((), "layered", None),
        (("trainer.precision=bf16-mixed",), "vmapped", None),
        (("model=custom", "model._target_=tests.launch.plans.Failing"), "vmapped", None),
        (
            ("model=custom", "model._target_=tests.launch.plans.Mixing"),
            "looped",
            "layer 1 is a BatchNorm1d, which mixes the rows of a batch",
        ),
    ],
)
def test_how_fits_are_stacked(config: Configure, overrides: tuple[str, ...], form: str, reason: str | None) -> None:
    assert prepare(config(*overrides)).form == (form, reason)


def test_a_study_of_another_split_is_refused(config: Configure) -> None:
    plan = prepare(config("data=iris"))
    plan.study.directory.mkdir(parents=True)
    plan.study.record.write_text(plan.study_record.model_dump_json())
    assert prepare(config("data=iris", "seed=3")).study_record == plan.study_record
    with pytest.raises(UserError, match=r"split\.folds=3: .* is split with folds=5"):
        prepare(config("data=iris", "split.folds=3"))


def test_a_study_of_an_older_version_is_split_without_groups(config: Configure) -> None:
    plan = prepare(config("data=iris"))
    record = plan.study_record
    older = record.split.keys() - {"group", "outer_folds", "outer"}
    plan.study.directory.mkdir(parents=True)
    values = record.model_copy(update={"split": {key: record.split[key] for key in older}}).model_dump()
    del values["duplicates"]
    plan.study.record.write_text(json.dumps(values))
    assert plan.study.load().duplicates is None
    prepare(config("data=iris"))
    values["split"]["test_fraction"] = 0.0
    plan.study.record.write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"split\.outer_folds=5: .* is split with outer_folds=None; give"):
        prepare(config("data=iris", "split.test_fraction=0", "split.outer_folds=5", "split.outer=0"))


def visits() -> object:
    """Five patients; rows 0 and 9 have equal inputs and different targets."""
    import numpy as np

    from overfit_lab.data import Source

    x = np.random.default_rng(0).normal(size=(40, 2))
    x[9] = x[0]
    return Source("visits", "binary", x, np.arange(40) % 2, {"patient": np.arange(40) % 5})


def test_groups_and_duplicates(config: Configure) -> None:
    own = ("data=custom", "data.name=visits", "data._target_=tests.test_plan.visits", "split.folds=2")
    plan = prepare(config(*own, "split.group=patient"))
    assert {row % 5 for row in plan.split.test}.isdisjoint(row % 5 for row in plan.split.development)
    assert plan.run_id != prepare(config(*own)).run_id
    plan = prepare(config(*own, "split.test_fraction=0"))
    counts = plan.study_record.duplicates
    assert counts is not None
    assert (counts.rows, counts.across_test, counts.conflicting) == (2, 0, 2)
    assert "2 development rows have the inputs of another one but not its target" in counts.sentences()
    with pytest.raises(UserError, match=r"split\.group=ward: visits has no such groups; allowed are patient$"):
        prepare(config(*own, "split.group=ward"))
    with pytest.raises(UserError, match=r"split\.group=patient: iris has no groups; allowed is null$"):
        prepare(config("data=iris", "split.group=patient"))
    with pytest.raises(UserError, match=r"split\.folds=6: split\.group=patient has 5 group"):
        prepare(config(*own, "split.group=patient", "split.test_fraction=0", "split.folds=6"))


def test_duplicates_do_not_tell_studies_apart(config: Configure) -> None:
    """An older version may have counted nothing, a newer one may count otherwise."""
    plan = prepare(config("data=iris"))
    record = plan.study_record
    assert record.duplicates is not None
    # Two irises of the hundred and fifty are alike; so it is known of this data set.
    assert record.duplicates.rows == 2
    plan.study.directory.mkdir(parents=True)
    other = record.duplicates.model_copy(update={"rows": 99})
    plan.study.record.write_text(record.model_copy(update={"duplicates": other}).model_dump_json())
    prepare(config("data=iris"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is such a device here")
def test_a_device_that_is_not_here(config: Configure) -> None:
    with pytest.raises(UserError, match=r"trainer\.accelerator=cuda: there is no such device here"):
        prepare(config("trainer.accelerator=cuda"))


def words() -> object:
    import numpy as np

    from overfit_lab.data import Source

    return Source("words", "binary", np.random.default_rng(0).integers(4, size=(40, 4)), np.arange(40) % 2, tokens=4)


def test_token_numbers_are_not_scaled(config: Configure) -> None:
    data = ("data=custom", "data.name=words", "data._target_=tests.test_plan.words")
    own = (*data, "model=custom", "model._target_=tests.training.networks.Embedded")
    assert prepare(config(*own, "data.scale_inputs=false")).form.form == "vmapped"
    with pytest.raises(UserError, match=r"^data\.scale_inputs=true: the inputs of words are token numbers; allowed is"):
        prepare(config(*own))
