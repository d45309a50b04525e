"""The overrides of a nested cross-validation, composed by Hydra as the command does it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from overfit_lab.config import Config, StudyConfig, conf_directory
from overfit_lab.errors import UserError
from overfit_lab.launch.job import config_of, register_resolvers
from overfit_lab.launch.nested import NestedSweep, nested_sweep

# As they are typed in Hydra's grammar, and what they mean.
ODD = [
    ("'a b'", "a b"),
    ("'it\\'s'", "it's"),
    ("'say \"x\"'", 'say "x"'),
    (r"'a\b'", r"a\b"),
    (r"'a\\'", "a\\"),
    ("'q\\\\\"'", 'q\\\\"'),
    ("'a,b=c'", "a,b=c"),
    (r"'\${seed}'", "${seed}"),
    ("'(x)[y]{z}'", "(x)[y]{z}"),
    ("'caf\u00e9 %41'", "caf\u00e9 %41"),
    ("'#;: ~'", "#;: ~"),
]


def _jobs(sweep: NestedSweep) -> list[Config]:
    """Compose the job of each outer fold, of a sweep over nothing else."""
    register_resolvers()
    *shared, outer = sweep.overrides
    key, _, folds = outer.partition("=")
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        return [config_of(compose("config", [*shared, f"{key}={fold}"])) for fold in folds.split(",")]


def test_each_outer_fold_is_a_study_of_its_own() -> None:
    sweep = nested_sweep(["data=iris", "split.outer_folds=3", "model.width=4"])
    assert sweep.studies == tuple(Path(f"studies/iris-kfold-nested/outer-{fold}") for fold in range(3))
    jobs = _jobs(sweep)
    assert [job.study.directory for job in jobs] == list(sweep.studies)
    assert [(job.split.outer_folds, job.split.outer, job.split.test_fraction) for job in jobs] == [
        (3, fold, 0) for fold in range(3)
    ]
    assert {job.study.report for job in jobs} == {False}
    assert {job.data.name for job in jobs} == {"iris"}


def test_there_are_five_outer_folds_unless_given() -> None:
    assert len(nested_sweep([]).studies) == 5
    # A test set of nothing is what it has anyway.
    assert len(nested_sweep(["split.test_fraction=0", "split=holdout"]).studies) == 5
    assert nested_sweep(["split=holdout"]).studies[0].parent.name == "breast_cancer-holdout-nested"


def test_what_leaves_the_rows_as_they_are_may_be_swept() -> None:
    sweep = nested_sweep(["data=iris", "data.train_size=20,40", "data.scale_inputs=true,false", "split.outer_folds=2"])
    swept = ("data.train_size=20,40", "data.scale_inputs=true,false", "split.outer=0,1")
    assert set(swept) <= set(sweep.overrides)
    assert sweep.studies == tuple(Path(f"studies/iris-kfold-nested/outer-{fold}") for fold in range(2))


@pytest.mark.parametrize(("typed", "name"), ODD)
def test_odd_names_of_studies_and_roots(typed: str, name: str) -> None:
    sweep = nested_sweep([f"study.name={typed}", f"study.root={typed}", "split.outer_folds=2"])
    folder = StudyConfig(name=name, root=name, report=False).directory
    assert sweep.studies == tuple(folder.with_name(f"{folder.name}-nested") / f"outer-{fold}" for fold in range(2))
    assert [job.study.directory for job in _jobs(sweep)] == list(sweep.studies)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-m"], "-m: nested takes no flags of Hydra"),
        (["--cfg", "job"], "--cfg: nested takes no flags of Hydra"),
        (["split.outer=0"], "split.outer=0: nested sets it itself"),
        (["+split.outer=0"], "+split.outer=0: nested sets it itself"),
        (["~split.outer"], "~split.outer: nested sets it itself"),
        (["study.report=true"], "study.report=true: nested sets it itself"),
        (["data=iris,wine"], "data=iris,wine: a nested cross-validation has one source and one split, of one study"),
        (["data.label_noise=0,0.1"], "data.label_noise=0,0.1: a nested cross-validation has one source"),
        (["split.seed=0,1"], "split.seed=0,1: a nested cross-validation has one source and one split"),
        (["split.outer_folds=3,5"], "split.outer_folds=3,5: a nested"),
        (["study.name=a,b"], "study.name=a,b: a nested"),
        (["split.test_fraction=0.2"], "split.test_fraction=0.2: the test rows of nested are the outer folds"),
        (["++split.test_fraction=0.2"], "split.test_fraction=0.2: the test rows of nested are the outer folds"),
        (["split.outer_folds=1"], "split.outer_folds=1: must be greater than or equal to 2"),
        (["split.outer_folds=0"], "split.outer_folds=0: must be greater than or equal to 2"),
        (["split.outer_folds=many"], "split.outer_folds=many: must be a valid integer"),
        (["study.name=''"], "study.name=: must have at least 1 character"),
        (["data=mnits"], "data=mnits: allowed are breast_cancer, custom"),
        (["data=custom"], "data.name is missing"),
        (["split.foo=1"], "there is no key split.foo"),
        (["study.name=${nope}"], "study.name: Interpolation key 'nope' not found"),
        (["model.width=["], r"model.width=[ cannot be read as KEY=VALUE"),
    ],
)
def test_what_cannot_be_nested(words: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        nested_sweep(words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
