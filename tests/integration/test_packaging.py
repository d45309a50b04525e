"""The wheel: conf/ travels in it and is found there."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_conf_is_in_the_wheel_and_found_there(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    expected = {p.relative_to(ROOT / "conf") for p in (ROOT / "conf").rglob("*.yaml")}
    assert expected == {p.relative_to(site / "overfit_lab/conf") for p in (site / "overfit_lab/conf").rglob("*.yaml")}
    assert (site / "overfit_lab/report/style.mplstyle").is_file()
    assert not (site / "tests").exists()
    code = "from overfit_lab.config import conf_directory; print(conf_directory())"
    # First on the path, before the editable install.
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(site)}, capture_output=True, text=True
    )
    assert Path(found.stdout.strip()) == site / "overfit_lab/conf"
