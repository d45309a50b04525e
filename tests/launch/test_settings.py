"""Settings of the launchers: a wrong one gives one line with the key, the value and what is allowed."""

from __future__ import annotations

from typing import Any

import pytest
from hydra_plugins import overfit_lab_launcher as plugin

from overfit_lab.errors import UserError
from overfit_lab.launch.settings import (
    CohortSettings,
    LocalSettings,
    Settings,
    SlurmSettings,
    parse_settings,
    refuse_several_processes,
)

OURS = {"_target_": "hydra_plugins.overfit_lab_launcher.CohortLauncher"}


def parsed(place: str, **values: Any) -> Settings | None:  # noqa: ANN401 - whatever a user may give
    return parse_settings({**OURS, "place": place, **values})


@pytest.mark.parametrize(
    ("conf", "kind"),
    [
        (plugin.CohortLauncherConf, CohortSettings),
        (plugin.CohortLocalLauncherConf, LocalSettings),
        (plugin.CohortSlurmLauncherConf, SlurmSettings),
    ],
)
def test_what_hydra_hands_over_untouched_is_what_the_schema_says(conf: type[Any], kind: type[Settings]) -> None:
    """The plugin must not import the schema, so its keys and defaults stand there once more."""
    given = vars(conf())
    settings = parse_settings(given)
    assert type(settings) is kind
    assert settings == kind.model_validate({"place": given["place"]})
    assert set(given) == {"_target_", *kind.model_fields}


def test_launchers_that_are_not_ours_are_left_alone() -> None:
    assert parse_settings({"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}) is None
    assert parse_settings({"_target_": "x", "place": None, "max_fits": 0}) is None
    assert parse_settings({"_target_": "x", "place": "elsewhere", "tasks": "many"}) is None


def test_what_is_allowed_is_taken() -> None:
    assert parsed("cohort", max_fits=3, workers=2) == CohortSettings(place="cohort", max_fits=3, workers=2)
    local = parsed("cohort_local", wait=False)
    assert isinstance(local, LocalSettings)
    assert (local.wait, local.workers) == (False, None)
    slurm = parsed("cohort_slurm", gpus_per_node=1, mem_gb=8, setup=["module load cuda"], timeout_min=3, tasks=2)
    assert isinstance(slurm, SlurmSettings)
    assert (slurm.gpus_per_node, slurm.mem_gb, slurm.setup, slurm.tasks) == (1, 8.0, ["module load cuda"], 2)
    more = parsed("cohort_slurm", additional_parameters={"nice": 5, "exclusive": True, "comment": "x"})
    assert isinstance(more, SlurmSettings)
    assert more.additional_parameters == {"nice": 5, "exclusive": True, "comment": "x"}


AT_LEAST_1, POSITIVE, WHOLE = "must be greater than or equal to 1", "must be greater than 0", "must be a valid integer"
AT_LEAST_0, NUMBER, TEXT, YES_OR_NO = (
    "must be greater than or equal to 0",
    "must be a valid number",
    "must be a valid string",
    "must be a valid boolean",
)
EVERYWHERE = ("cohort", "cohort_local", "cohort_slurm")
WRONG = [
    *[(place, "max_fits", value, AT_LEAST_1) for place in EVERYWHERE for value in (0, -1)],
    *[(place, "max_fits", value, WHOLE) for place in EVERYWHERE for value in ("many", 1.5, True)],
    *[(place, "workers", 0, AT_LEAST_1) for place in EVERYWHERE[:2]],
    *[(place, "wait", value, YES_OR_NO) for place in EVERYWHERE[1:] for value in ("maybe", 1)],
    *[("cohort_slurm", key, 0, AT_LEAST_1) for key in ("tasks", "timeout_min", "cpus_per_task", "array_parallelism")],
    *[("cohort_slurm", key, "x", WHOLE) for key in ("tasks", "timeout_min", "cpus_per_task", "signal_delay_s")],
    *[("cohort_slurm", key, value, POSITIVE) for key in ("mem_gb", "gpu_mem_gb") for value in (0, -4.0)],
    *[("cohort_slurm", key, "4GB", NUMBER) for key in ("mem_gb", "gpu_mem_gb")],
    ("cohort_slurm", "mem_gb", float("inf"), "must be a finite number"),
    ("cohort_slurm", "signal_delay_s", 0, AT_LEAST_1),
    ("cohort_slurm", "gpus_per_node", -1, AT_LEAST_0),
    ("cohort_slurm", "max_num_timeout", -1, AT_LEAST_0),
    *[
        ("cohort_slurm", key, 7, TEXT)
        for key in ("partition", "account", "qos", "constraint", "gres", "nodelist", "exclude", "name")
    ],
    ("cohort_slurm", "setup", "module load cuda", "must be a valid list"),
    ("cohort_slurm", "additional_parameters", ["nice"], "must be a valid dictionary"),
    ("cohort_slurm", "stderr_to_stdout", "yes", YES_OR_NO),
    *[("cohort", key, 1, "there is no such key") for key in ("wait", "tasks", "partition", "n_jobs")],
    *[("cohort_local", key, 1, "there is no such key") for key in ("tasks", "timeout_min", "mem_gb")],
    *[
        ("cohort_slurm", key, 1, "there is no such key")
        for key in ("workers", "tasks_per_node", "nodes", "mem_per_cpu")
    ],
]


@pytest.mark.parametrize(("place", "key", "value", "allowed"), WRONG)
def test_a_wrong_value_is_named_with_what_is_allowed(place: str, key: str, value: object, allowed: str) -> None:
    with pytest.raises(UserError) as caught:
        parsed(place, **{key: value})
    assert str(caught.value).startswith(f"hydra.launcher.{key}={value}: ")
    assert allowed in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "named"),
    [({"setup": ["ls", 7]}, "hydra.launcher.setup.1=7: "), ({"additional_parameters": {"nice": [1]}}, "nice")],
)
def test_a_wrong_value_inside_another_is_named(values: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError) as caught:
        parsed("cohort_slurm", **values)
    assert str(caught.value).startswith("hydra.launcher.")
    assert named in str(caught.value)


def test_several_gpus_for_one_cohort_are_refused() -> None:
    with pytest.raises(UserError) as caught:
        parsed("cohort_slurm", gpus_per_node=2)
    assert str(caught.value) == (
        "hydra.launcher.gpus_per_node=2: a cohort trains on one GPU; allowed are 0 and 1, "
        "and hydra.launcher.tasks=N spreads the sweep over N of them"
    )


@pytest.mark.parametrize("delay", [60, 3600])
def test_the_signal_comes_before_the_end(delay: int) -> None:
    with pytest.raises(UserError) as caught:
        parsed("cohort_slurm", timeout_min=1, signal_delay_s=delay)
    assert str(caught.value) == (
        f"hydra.launcher.signal_delay_s={delay}: must be less than the 60 seconds of hydra.launcher.timeout_min"
    )
    assert parsed("cohort_slurm", timeout_min=1, signal_delay_s=59) is not None


def test_a_short_task_does_not_stumble_over_a_default() -> None:
    """Two minutes are the default of signal_delay_s, which the user has not given: the line names both keys."""
    with pytest.raises(UserError, match=r"hydra\.launcher\.signal_delay_s=120: .*hydra\.launcher\.timeout_min"):
        parsed("cohort_slurm", timeout_min=2)


@pytest.mark.parametrize("key", ["tasks_per_node", "nodes", "gpus_per_node", "gpus_per_task"])
@pytest.mark.parametrize("target", ["SlurmLauncher", "LocalLauncher"])
def test_jobs_that_would_run_side_by_side_are_refused(key: str, target: str) -> None:
    """Hydra's own launchers allow it; each run would be trained several times, into one folder."""
    launcher = {"_target_": f"hydra_plugins.hydra_submitit_launcher.submitit_launcher.{target}", key: 2}
    with pytest.raises(UserError) as caught:
        refuse_several_processes(launcher, {})
    message = str(caught.value)
    assert message.startswith(f"hydra.launcher.{key}=2: ")
    assert "hydra/launcher=cohort (the GPUs of this machine)" in message
    assert "hydra/launcher=cohort_slurm (a cluster)" in message
    assert message.endswith("allowed is 1")
    for value in (1, 0, None, "auto"):
        refuse_several_processes({**launcher, key: value}, {})


@pytest.mark.parametrize("name", ["WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_a_command_that_was_started_several_times_is_refused(name: str) -> None:
    with pytest.raises(UserError) as caught:
        refuse_several_processes({}, {name: "4"})
    message = str(caught.value)
    assert message.startswith(f"{name}=4: this command was started 4 times side by side; ")
    assert "hydra/launcher=cohort" in message
    for value in ("1", "0", "", "x", "-2"):
        refuse_several_processes({}, {name: value})


def test_the_environment_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="WORLD_SIZE=2"):
        refuse_several_processes({})
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS", raising=False)
    refuse_several_processes({})
