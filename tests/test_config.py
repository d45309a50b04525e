"""Configurations: what is refused and how, and how runs are named."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from overfit_lab.config import (
    Config,
    CustomModel,
    FileData,
    StudyConfig,
    conf_directory,
    config_id,
    import_object,
    parse,
    run_id,
    typed,
)
from overfit_lab.errors import UserError

Compose = Callable[..., Config]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.width=0"], "model.width=0: must be greater than or equal to 1"),
        (["model.width=2.5"], "model.width=2.5: must be a valid integer"),
        (["model.width=true"], "model.width=True: must be a valid integer"),
        (["model.depth=-1"], "model.depth=-1: must be greater than or equal to 1"),
        (["model.dropout=1"], "model.dropout=1: must be at least 0 and below 1"),
        (["model.activation=foo"], "model.activation=foo: must be 'relu', 'tanh'"),
        (["model=cnn", "model.kernel=4"], "model.kernel=4: must be odd"),
        (["model=cnn", "model.channels=0"], "model.channels=0: must be greater than or equal to 1"),
        (["model=resnet", "+model.depth=3"], "model.depth=3: there is no such key"),
        (["model=transformer", "model.heads=3"], "model.heads=3: must divide model.embedding=32"),
        (["model=random_features", "model.features=0"], "model.features=0: must be greater than or equal to 1"),
        (["model=linear", "model.bias=1"], "model.bias=1: must be a valid boolean"),
        (["model=linear", "model.initial=ones"], "model.initial=ones: must be 'random' or 'zero'"),
        (["penalty.alpha=-0.1"], "penalty.alpha=-0.1: must be greater than or equal to 0"),
        (["penalty.alpha=inf"], "penalty.alpha=inf: must be a finite number"),
        (["penalty=elastic_net", "penalty.l1_ratio=2"], "penalty.l1_ratio=2: must be less than or equal to 1"),
        (["split.folds=1"], "split.folds=1: must be greater than or equal to 2"),
        (["split.repeats=0"], "split.repeats=0: must be greater than or equal to 1"),
        (["split=holdout", "split.val_fraction=0"], "split.val_fraction=0: must be above 0 and below 1"),
        (["split=holdout", "split.val_fraction=1"], "split.val_fraction=1: must be above 0 and below 1"),
        (["split.test_fraction=1"], "split.test_fraction=1: must be at least 0 and below 1"),
        (["split.stratify=maybe"], "split.stratify=maybe: must be 'auto' or a valid boolean"),
        (["split.group=3"], "split.group=3: must be a valid string"),
        (["split.outer_folds=1"], "split.outer_folds=1: must be greater than or equal to 2"),
        (["split.outer=-1", "split.outer_folds=5"], "split.outer=-1: must be greater than or equal to 0"),
        (["split.outer=5", "split.outer_folds=5"], "split.outer=5: with split.outer_folds=5 allowed is 0 to 4"),
        (["split.outer=0"], "split.outer=0: without split.outer_folds allowed is null"),
        (["split.outer_folds=5"], "split.outer=null: with split.outer_folds=5 allowed is 0 to 4"),
        (
            ["split=holdout", "split.outer=0", "split.outer_folds=5"],
            "split.test_fraction=0.2: with split.outer the test rows are an outer fold; allowed is 0",
        ),
        (["split.kind=loo"], "split.kind=loo: allowed are 'holdout', 'kfold'"),
        (["training.epochs=0"], "training.epochs=0: must be greater than or equal to 1"),
        (["training.batch_size=0"], "training.batch_size=0: must be greater than or equal to 1"),
        (["optimizer.lr=0"], "optimizer.lr=0: must be greater than 0"),
        (["optimizer.lr=fast"], "optimizer.lr=fast: must be a valid number"),
        (["optimizer.kind=newton"], "optimizer.kind=newton: allowed are 'sgd', 'momentum', 'adam', 'adamw', 'rmsprop'"),
        (["seed=-1"], "seed=-1: must be greater than or equal to 0"),
        (["task.name=ranking"], "task.name=ranking: must be 'auto', 'binary'"),
        (["task.loss=hinge"], "task.loss=hinge: must be 'auto', 'binary_cross_entropy'"),
        (["trainer.precision=16"], "trainer.precision=16: must be '32-true', '64-true' or 'bf16-mixed'"),
        (["study.name=''"], "study.name=: must have at least 1 character"),
        (["+model.widht=3"], "model.widht=3: there is no such key"),
        (["+foo=1"], "foo=1: there is no such key"),
        (["~training.epochs"], "training.epochs is missing; give it as training.epochs=..."),
        (["data=custom"], "data.name is missing; give it as data.name=..."),
        (["data=file"], "data.path is missing; give it as data.path=..."),
        (["data=hub", "data.path=a/b", "data.download=maybe"], "data.download=maybe: must be a valid boolean"),
        (
            ["data=file", "data.path=a.csv", "data.target=3"],
            "data.target=3: must be a valid string or a valid list; a text of digits is given in quotes, "
            "\"data.target='3'\"",
        ),
        (
            ["data=file", "data.path=a.csv", "data.scale_inputs=no"],
            "data.scale_inputs=no: must be 'auto' or a valid boolean",
        ),
        (
            ["data=file", "data.path='~nosuch/a.csv'"],
            "data.path=~nosuch/a.csv: there is no user whose folder ~nosuch could be; for a file of that name allowed",
        ),
        (["data=hub", "data.path='~x.csv'", "data.name=x"], "data.path=~x.csv: there is no user whose folder ~x.csv"),
        (
            ["study.root='~nosuch/a'"],
            "study.root=~nosuch/a: there is no user whose folder ~nosuch could be",
        ),
        (["data=file", "data.path=a.csv", "data.words=0"], "data.words=0: must be greater than or equal to 1"),
    ],
)
def test_bad_values_are_named_in_one_line(config: Compose, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        config(*overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


GROUPS = [
    f"{group.name}={file.stem}"
    for group in sorted(conf_directory().iterdir())
    if group.is_dir()
    for file in sorted(group.glob("*.yaml"))
    if file.stem not in ("custom", "file", "hub")
]


@pytest.mark.parametrize("choice", GROUPS)
def test_every_yaml_file_composes_and_fits_its_schema(config: Compose, choice: str) -> None:
    group, _, name = choice.partition("=")
    section = config(choice).model_dump(by_alias=True).get(group)
    if section is None:  # an overlay: see tests/integration
        assert group in ("sweep", "experiment")
        return
    expected = OmegaConf.to_container(OmegaConf.load(conf_directory() / group / f"{name}.yaml"))
    assert isinstance(expected, dict)
    # A file that says something of other groups, too, names its own.
    assert section == expected.get(group, expected)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("rows.csv", "rows"),
        ("/elsewhere/rows.tsv.gz", "rows"),
        ("~/a.b.parquet", "a.b"),
        ("x.npz", "x"),
        ("data/mnist/", "mnist"),
        ("stanfordnlp/imdb", "imdb"),
        ("v1.0", "v1.0"),
        (".csv", ".csv"),
        ("../up/..", Path.cwd().parent.name),
    ],
)
def test_data_of_the_users_are_called_as_their_file(config: Compose, path: str, name: str) -> None:
    for kind in ("file", "hub"):
        composed = config(f"data={kind}", f"data.path='{path}'")
        expected = OmegaConf.to_container(OmegaConf.load(conf_directory() / "data" / f"{kind}.yaml"), resolve=False)
        assert isinstance(expected, dict)
        assert composed.data.model_dump(by_alias=True) == {**expected, "name": name, "path": path}
        assert composed.study.name == f"{name}-kfold"


def test_columns_are_a_name_or_several(config: Compose) -> None:
    one, many = (config("data=file", "data.path=a.csv", f"data.target={names}").data for names in ("y", "[y,z]"))
    assert isinstance(one, FileData)
    assert isinstance(many, FileData)
    assert (one.targets, many.targets) == (["y"], ["y", "z"])


def test_run_ids_name_what_matters_to_the_result(config: Compose) -> None:
    base = config()
    same = [
        ["study.name=other"],
        ["study.root=elsewhere"],
        ["study.report=false"],
        ["training.checkpoint_seconds=1"],
        ["trainer.accelerator=cpu"],
        ["penalty.alpha=0"],
    ]
    other = [
        ["seed=1"],
        ["model.width=65"],
        ["penalty.alpha=1e-9"],
        ["penalty=l1"],
        ["data=digits"],
        ["split.seed=1"],
        ["split.group=patient"],
        ["split.test_fraction=0"],
        ["split.test_fraction=0", "split.outer_folds=3", "split.outer=0"],
        ["split.test_fraction=0", "split.outer_folds=3", "split.outer=1"],
        ["split=holdout"],
        ["training.epochs=101"],
        ["trainer.precision=64-true"],
        ["task.metrics=[]"],
        ["optimizer=adamw"],
    ]
    assert {run_id(config(*overrides)) for overrides in same} == {run_id(base)}
    ids = [run_id(config(*overrides)) for overrides in other]
    assert len({run_id(base), *ids}) == len(ids) + 1


@pytest.mark.parametrize("split", ["kfold", "holdout"])
def test_run_ids_of_configurations_that_lack_later_keys_are_the_same(config: Compose, split: str) -> None:
    values = config(f"split={split}").model_dump(by_alias=True)
    for key in ("group", "outer_folds", "outer"):
        del values["split"][key]
    assert run_id(parse(values)) == run_id(config(f"split={split}"))


def test_config_ids_leave_the_seed_out(config: Compose) -> None:
    assert config_id(config("seed=1")) == config_id(config("seed=2"))
    assert config_id(config("model.width=3")) != config_id(config("model.width=4"))
    assert config_id(config()) != run_id(config())


def test_run_ids_are_the_same_in_every_process(config: Compose) -> None:
    """Hash randomisation must not reach them; the value itself is part of what studies on disk rely on."""
    values = config("study.root=studies").model_dump(by_alias=True)
    code = f"from overfit_lab.config import parse, run_id; print(run_id(parse({values!r})))"
    printed = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert printed == {run_id(config())}


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("breast_cancer-kfold", "breast_cancer-kfold"),
        ("two words", "two words"),
        ("../../etc", "%2E.%2F..%2Fetc"),
        ("..", "%2E."),
        (".hidden", "%2Ehidden"),
        ("/abs", "%2Fabs"),
        ("<script>alert(1)</script>", "%3Cscript%3Ealert(1)%3C%2Fscript%3E"),
        ("nul\0", "nul%00"),
        ("[a]*?", "[a]%2A%3F"),
    ],
)
def test_a_study_stays_inside_its_root(name: str, folder: str) -> None:
    directory = StudyConfig(name=name, root="root", report=False).directory
    assert directory == Path("root") / folder
    assert directory.resolve().parent == Path("root").resolve()


def test_a_root_in_the_home_folder() -> None:
    assert StudyConfig(name="a", root="~/studies", report=False).directory == Path.home() / "studies" / "a"


def test_a_name_that_is_too_long_for_a_folder(config: Compose) -> None:
    with pytest.raises(UserError, match=r"study\.name=.*must be shorter; as the name of a folder"):
        config(f"study.name='{chr(0x65E5) * 30}'")


def test_custom_sections_take_any_further_key(config: Compose) -> None:
    model = config("model=custom", "model._target_=a.B", "+model.hidden=3").model
    assert isinstance(model, CustomModel)
    assert model.arguments == {"hidden": 3}


@pytest.mark.parametrize("path", ["no_such_module.X", "math.nope", "", "a b"])
def test_what_cannot_be_imported_is_named(path: str) -> None:
    with pytest.raises(UserError, match=r"model\._target_="):
        import_object("model._target_", path)


def test_an_empty_configuration_is_refused() -> None:
    with pytest.raises(UserError, match="data is missing"):
        parse({})


@pytest.mark.parametrize("shell", ["bash", "sh"])
@pytest.mark.parametrize(
    "text", ["~/d.csv", "2020", "it's", 'a"b', "a$HOME b", r"C:\ünï\\", "`it's`", "!x\\", "'", '"', r"\'", "\\"]
)
def test_what_is_typed_in_a_shell_is_the_text(shell: str, text: str) -> None:
    done = subprocess.run([shell, "-c", f"printf %s {typed('a.b', text)}"], capture_output=True, text=True, check=True)
    override = OverridesParser.create().parse_override(done.stdout)
    assert (override.key_or_group, override.value()) == ("a.b", text)
