"""Jobs composed from templates against the same jobs composed by Hydra alone."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import Container, DictConfig, ListConfig, Node, OmegaConf, open_dict

from overfit_lab.config import conf_directory
from overfit_lab.launch.compose import compose_from_templates
from overfit_lab.launch.job import register_resolvers

Jobs = list[list[str]]

# Composed from a template: nothing in them is unusual.
USUAL: Jobs = [
    [],
    ["model.width=3"],
    ["model.width=4", "optimizer.lr=0.1", "seed=3"],
    ["seed=3", "optimizer.lr=0.1", "model.width=4"],
    ["model.width=4", "model.width=5"],
    ["data=digits", "split=holdout", "training.epochs=7"],
    ["training.epochs=7", "data=digits"],
    ["optimizer=sgd", "optimizer.lr=.1"],
    ["optimizer.lr=.1", "optimizer=sgd"],
    ["penalty=none"],
    ["penalty=elastic_net", "penalty.alpha=1e-3"],
    ["sweep=capacity_by_decay"],
    ["study.name=plain"],
    ["study.name='a, b = c'"],
    ['study.name="it\'s"'],
    ["study.name='caf\u00e9 \u03b1'"],
    ["study.name=${data.name}_${seed}"],
    ["study.name=${data.name}", "study.name=x"],
    ["study.root=a/b c", "study.report=false"],
    ["model.dropout=null"],
    ["model.width=???"],
    ["model.width=[1,2,[3,null]]"],
    ["trainer={precision:64-true}"],
    ["model={width:7}"],
    ["model.width=${seed}", "seed=9"],
    ["+data.x=1"],
    ["++data.x=1", "data.x=2"],
    ["model.width=3", "++model.width=5"],
    ["++model.width=5", "model.width=3"],
    ["+new.deep.key={a:[1,{b:c}]}", "model.width=3"],
    ["+model={extra:1}"],
    ["~model.width"],
    ["model.width=3", "~model.width"],
    ["++study.name=x"],
    ["~study.name"],
    ["+name=${seed}", "++name=3"],
    ["+copied=${training}", "++copied.epochs=3"],
    ["~penalty"],
    ["~seed", "+seed=4"],
    ["+x=[1,2]", "x=[3]"],
    ["+x=sort([3,1])", "study.name=str(3)"],
]

# Left to Hydra, with a result.
UNUSUAL: Jobs = [
    ["hydra.verbose=true"],
    ["hydra.job.name=other", "model.width=3"],
    ["hydra/launcher=basic", "model.width=3"],
    ["hydra={job:{config_name:x}}"],
    ["model.width=3", "~model.width=3"],
    ["data=digits", "~data=digits"],
]

WRONG: Jobs = [
    ["nope=1"],
    ["model.nope=1"],
    ["model.width=3", "model.nope=1"],
    ["data=nope"],
    ["data=nope", "model.width=3"],
    ["data=3"],
    ["sweep=null"],
    ["study.name=caf\u00e9"],
    ["study.name=nofunction(x)"],
    ["trainer={nope:1}"],
    ["+copied=${model}", "copied.width=3"],
    ["+data=digits"],
    ["data@here=digits"],
    ["model.width@here=3"],
    ["+seed=4"],
    ["seed=3", "+seed=4"],
    ["~nope"],
    ["~nope=3"],
    ["~model.width=77"],
    ["+name=${hydra.job.config_name}", "~name=config"],
    ["~model.width", "model.width=3"],
    ["++data=digits"],
    ["model.width.deep=3"],
    ["model.width=["],
    ["=3"],
    ["seed=1,2"],
    ["seed=choice(1,2)"],
    ["seed=range(1,3)"],
    ["~hydra"],
    ["hydra.nope=3"],
    ["hydra={job:3}"],
    ["hydra.job.name=a,b"],
]


class Counting(ConfigLoaderImpl):
    """Hydra's loader, which notes what it composes."""

    composed: Jobs

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        self.composed.append(list(sweep_overrides))
        return super().load_sweep_config(master_config, sweep_overrides)


@pytest.fixture(scope="module")
def search_path() -> ConfigSearchPath:
    register_resolvers()
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        return GlobalHydra.instance().config_loader().get_search_path()


@pytest.fixture
def loader(search_path: ConfigSearchPath) -> Counting:
    loader = Counting(search_path)
    loader.composed = []
    compose_from_templates(loader)
    return loader


@pytest.fixture(scope="module")
def master(search_path: ConfigSearchPath) -> DictConfig:
    return make_master(ConfigLoaderImpl(search_path))


def make_master(loader: ConfigLoaderImpl, *overrides: str) -> DictConfig:
    """Compose the configuration of a sweep."""
    return loader.load_configuration("config", ["seed=1,2", *overrides], RunMode.MULTIRUN)


def by_hydra(loader: ConfigLoaderImpl, master: DictConfig, job: list[str]) -> DictConfig:
    return ConfigLoaderImpl.load_sweep_config(loader, master, job)


def describe(node: object) -> object:
    """All there is to a configuration: keys in their order, values, types, flags."""
    assert isinstance(node, Node)
    if not isinstance(node, Container) or isinstance(node._value(), str | None):
        return type(node), vars(node._metadata), node._value()
    inside: object
    if isinstance(node, DictConfig):
        inside = [(key, describe(node._get_node(key))) for key in node]
    else:
        assert isinstance(node, ListConfig)
        inside = [describe(node._get_node(index)) for index in range(len(node))]
    return type(node), vars(node._metadata), inside


def assert_same(composed: DictConfig, expected: DictConfig) -> None:
    assert OmegaConf.to_yaml(composed) == OmegaConf.to_yaml(expected)
    assert describe(composed) == describe(expected)


def test_what_hydra_composes(loader: Counting, master: DictConfig) -> None:
    """Each job comes after others of the same template, and before others: none leaves anything behind."""
    jobs = [*USUAL, *UNUSUAL]
    expected = [by_hydra(loader, master, job) for job in jobs]
    for job, same in [*zip(jobs, expected, strict=True), *zip(reversed(jobs), reversed(expected), strict=True)]:
        assert_same(loader.load_sweep_config(master, job), same)


def chain(error: BaseException | None) -> list[tuple[type, str]]:
    return [] if error is None else [(type(error), str(error)), *chain(error.__cause__), *chain(error.__context__)]


@pytest.mark.parametrize("job", USUAL, ids=" ".join)
def test_usual_jobs_need_a_template_alone(loader: Counting, master: DictConfig, job: list[str]) -> None:
    for _ in range(3):
        loader.load_sweep_config(master, job)
    groups = "|".join(path.name for path in conf_directory().iterdir() if path.is_dir())
    assert loader.composed == [[line for line in job if re.fullmatch(rf"~?({groups})(=\w+)?", line)]]


@pytest.mark.parametrize("job", UNUSUAL, ids=" ".join)
def test_unusual_jobs_are_left_to_hydra(loader: Counting, master: DictConfig, job: list[str]) -> None:
    loader.load_sweep_config(master, job)
    assert loader.composed[-1] == job


@pytest.mark.parametrize("job", WRONG, ids=" ".join)
def test_what_is_wrong_hydra_says(loader: Counting, master: DictConfig, job: list[str]) -> None:
    with pytest.raises(Exception) as expected:  # noqa: PT011 - whatever Hydra raises
        by_hydra(loader, master, job)
    with pytest.raises(Exception) as raised:  # noqa: PT011
        loader.load_sweep_config(master, job)
    # With its causes, of which explain() reads.
    assert chain(raised.value) == chain(expected.value)


def test_hydra_composes_once_for_each_choice_of_groups(loader: Counting, master: DictConfig) -> None:
    for width in range(20):
        for optimizer in ("sgd", "adam"):
            job = [f"model.width={width}", f"optimizer={optimizer}", f"+x={width}"]
            assert loader.load_sweep_config(master, job).model.width == width
    assert loader.composed == [["optimizer=sgd"], ["optimizer=adam"]]


def test_a_sweep_with_other_overrides_of_hydra_has_templates_of_its_own(loader: Counting) -> None:
    job = ["model.width=3"]
    for overrides in ([], ["hydra.verbose=true"], ["hydra.job.config.override_dirname.kv_sep=-"]):
        master = make_master(loader, *overrides)
        assert_same(loader.load_sweep_config(master, job), by_hydra(loader, master, job))


def test_a_group_that_the_search_path_of_a_sweep_adds(loader: Counting, tmp_path: Path) -> None:
    """The same key is a value for one sweep and a group for another."""
    (tmp_path / "extra").mkdir()
    (tmp_path / "extra" / "many.yaml").write_text("# @package _global_\nseed: 77\n")
    plain, extended = make_master(loader), make_master(loader, f"hydra.searchpath=[{tmp_path}]")
    for master in (plain, extended, plain):
        composed = loader.load_sweep_config(master, ["+extra=many", "model.width=3"])
        assert_same(composed, by_hydra(loader, master, ["+extra=many", "model.width=3"]))
    assert loader.composed == [[], ["+extra=many"]]


def test_a_function_is_called_for_each_job(loader: Counting, master: DictConfig) -> None:
    job = ["+x=shuffle([1,2,3,4,5,6,7,8])"]
    assert len({str(loader.load_sweep_config(master, job).x) for _ in range(9)}) > 1


def test_what_a_caller_changes_is_his_own(loader: Counting, master: DictConfig) -> None:
    job = ["data=digits", "model.width=3", "+x=[1,{a:2}]"]
    first = loader.load_sweep_config(master, job)
    with open_dict(first):
        first.hydra.job.id = first.hydra.job.num = 5
        first.model.width = 99
        first.x[1].a = 99
        first.hydra.overrides.task.append("more")
    assert_same(loader.load_sweep_config(master, job), by_hydra(loader, master, job))


def test_the_process_as_it_is_now(loader: Counting, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The working directory and the environment may have changed since the template was composed."""
    monkeypatch.setenv("OVERFIT_LAB_TEST", "first")
    master = make_master(loader, "hydra.job.env_copy=[OVERFIT_LAB_TEST]")
    for value in ("before", "after"):
        (tmp_path / value).mkdir()
        monkeypatch.chdir(tmp_path / value)
        monkeypatch.setenv("OVERFIT_LAB_TEST", value)
        composed = loader.load_sweep_config(master, [])
        assert_same(composed, by_hydra(loader, master, []))
        assert composed.hydra.runtime.cwd == str(tmp_path / value)
        assert composed.hydra.job.env_set == {"OVERFIT_LAB_TEST": value}
    monkeypatch.delenv("OVERFIT_LAB_TEST")
    with pytest.raises(KeyError):
        loader.load_sweep_config(master, [])


def test_cached_resolutions_are_those_of_the_sweep(loader: Counting) -> None:
    """`${now:...}` names one moment in all jobs of a sweep."""
    master = make_master(loader)
    OmegaConf.get_cache(master)["now"] = {("%Y",): "1999"}
    composed = loader.load_sweep_config(master, ["study.name=${now:%Y}"])
    assert composed.study.name == "1999"
    # And the next sweep has its own.
    OmegaConf.get_cache(master)["now"] = {("%Y",): "2001"}
    assert loader.load_sweep_config(master, ["study.name=${now:%Y}"]).study.name == "2001"


def test_resolvers_see_the_job(loader: Counting, master: DictConfig) -> None:
    """`overfit_lab.run_folder` reads the whole configuration, of which a copy was made."""
    folders = set()
    for job in (["model.width=3"], ["model.width=4"], ["data=digits", "study.name=other"]):
        composed, expected = loader.load_sweep_config(master, job), by_hydra(loader, master, job)
        assert composed.hydra.sweep.subdir == expected.hydra.sweep.subdir
        assert composed.hydra.run.dir == expected.hydra.run.dir
        folders.add(composed.hydra.sweep.subdir)
    assert len(folders) == 3


def test_a_second_time_changes_nothing(loader: Counting) -> None:
    installed = loader.load_sweep_config
    compose_from_templates(loader)
    assert loader.load_sweep_config is installed


def test_a_copied_loader_still_composes(loader: Counting) -> None:
    """Hydra's own test fixtures copy whatever hangs on its singletons."""
    copied = copy.deepcopy(loader)
    master = make_master(copied)
    assert_same(copied.load_sweep_config(master, ["seed=3"]), by_hydra(copied, master, ["seed=3"]))
