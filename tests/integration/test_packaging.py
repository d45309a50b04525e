"""The wheel: conf/ and the launcher travel in it and are found there."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel and unpack it into a folder, which is what its installation comes to."""
    built, site = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(built)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def run_installed(site: Path, code: str, folder: Path, *arguments: str) -> str:
    """Run Python where the wheel and what it depends on are installed, and the repository is not.

    Without the module site nobody reads the .pth file that makes the editable install.
    """
    path = os.pathsep.join([str(site), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    command = [sys.executable, "-S", "-c", code, *arguments]
    environment = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_the_package_and_no_more(site: Path) -> None:
    assert (site / "overfit_lab/report/style.mplstyle").is_file()
    assert {p.name for p in site.iterdir() if p.suffix != ".dist-info"} == {"overfit_lab", "hydra_plugins"}
    # A package hydra_plugins of ours would hide everybody else's plugins.
    assert not (site / "hydra_plugins/__init__.py").exists()
    assert not (site / "overfit_lab/launch/plugin").exists()


def test_conf_is_in_the_wheel_and_found_there(site: Path, tmp_path: Path) -> None:
    expected = {p.relative_to(ROOT / "conf") for p in (ROOT / "conf").rglob("*.yaml")}
    assert expected == {p.relative_to(site / "overfit_lab/conf") for p in (site / "overfit_lab/conf").rglob("*.yaml")}
    found = run_installed(site, "from overfit_lab.config import conf_directory; print(conf_directory())", tmp_path)
    assert Path(found.strip()) == site / "overfit_lab/conf"


def test_the_launcher_is_in_the_wheel_and_found_there(site: Path, tmp_path: Path) -> None:
    code = """if True:
        import sys
        from overfit_lab.cli import main
        code = main(sys.argv[1:])
        print("launcher:", sys.modules["hydra_plugins.overfit_lab_launcher"].__file__)
        sys.exit(code)
    """
    tiny = ["data=iris", "study.report=false", "training.epochs=2", "model.width=2,3"]
    said = run_installed(site, code, tmp_path, "train", "-m", "hydra/launcher=cohort", *tiny)
    assert said.splitlines()[-1] == f"launcher: {site / 'hydra_plugins/overfit_lab_launcher/__init__.py'}"
    assert len(list((tmp_path / "studies").rglob("run.json"))) == 2
