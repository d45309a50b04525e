"""The words of a command line, looked at before Hydra reads them."""

from __future__ import annotations

import pytest

from overfit_lab.config import conf_directory
from overfit_lab.errors import UserError
from overfit_lab.launch.words import check_flags, choose_groups

GROUPS = sorted(folder.name for folder in conf_directory().iterdir() if folder.is_dir())


@pytest.mark.parametrize(
    "words",
    [
        ["data=iris", "model.width=4,8", "-m", "--cfg", "job"],
        ["data=iris,wine", "data=[iris]", "data={label_noise: 0.1}", "data=glob(i*)", "data='iris'", "data="],
        ["~sweep", "~logger=null", "model.seed=null", "split.group=null", "data.path=~/x.csv", "=", "nonsense"],
    ],
)
def test_what_hydra_can_read_stays_as_it_is(words: list[str]) -> None:
    assert choose_groups(words) == words


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        (["sweep=null", "data=iris"], ["data=iris"]),
        (["experiment=null", "-m"], ["-m"]),
        (["data=iris", "logger=null"], ["data=iris", "logger=tensorboard"]),
        (["experiment=grokking", "data=iris", "experiment=null"], ["data=iris"]),
        (["experiment=null", "experiment=grokking"], ["experiment=grokking"]),
        (["logger=csv", "logger=null"], ["logger=tensorboard"]),
    ],
)
def test_null_chooses_none(words: list[str], chosen: list[str]) -> None:
    assert choose_groups(words) == chosen


@pytest.mark.parametrize("group", [group for group in GROUPS if group not in ("sweep", "experiment", "logger")])
@pytest.mark.parametrize("value", ["null", "3", "true", "1,2", "range(1,3)"])
def test_elsewhere_a_choice_is_a_name(group: str, value: str) -> None:
    with pytest.raises(UserError) as caught:
        choose_groups([f"{group}={value}"])
    names = ", ".join(sorted(file.stem for file in (conf_directory() / group).iterdir()))
    assert str(caught.value) == f"{group}={value}: allowed are {names}"


def test_a_group_of_hydras_own() -> None:
    with pytest.raises(UserError, match=r"^hydra/launcher=null: allowed is the name of a choice$"):
        choose_groups(["hydra/launcher=null"])


@pytest.mark.parametrize("words", [[], ["-m", "a=1"], ["--multirun", "--cfg", "job", "a=1,2"], ["--help"]])
def test_flags_of_hydra(words: list[str]) -> None:
    check_flags(words)


@pytest.mark.parametrize("words", [["--data=iris"], ["-x", "a=1"], ["--cfg", "nosuch"], ["--config-name"]])
def test_other_flags(words: list[str]) -> None:
    with pytest.raises(UserError, match="allowed are KEY=VALUE, without dashes, and the flags of"):
        check_flags(words)
