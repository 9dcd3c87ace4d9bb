"""The wheel holds everything and runs without the checkout; the editable install finds train/ and export/ in it."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from edgedc import __version__
from edgedc.cli import VERBS

ROOT = Path(__file__).parents[1]
CLEAN = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=300, check=False, cwd=cwd, env=CLEAN
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="the build backend is not installed, and a test downloads nothing")
    out = tmp_path_factory.mktemp("wheel")
    build = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    run(*build, "-w", out, ROOT, cwd=out)
    [made] = out.glob("edgedc-*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment that has edgedc from the wheel.

    Other packages are lent by this environment: its folder is on the path, behind the new one's own. Python does not
    process the .pth files of a folder that is itself on the path by a .pth file, so the editable edgedc is not lent.
    """
    place = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(place, with_pip=False, symlinks=True)
    python = place / "bin" / "python"
    [packages] = place.glob("lib/python*/site-packages")
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        wheel,
        cwd=place,
    )
    (packages / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for package, inside in (("edgedc", "edgedc"), ("train", "edgedc/train"), ("export", "edgedc/export")):
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"{inside}/{path.relative_to(ROOT / package).as_posix()}" in names
    assert "edgedc/prices.json" in names
    assert "edgedc/models/demo-base/model.safetensors" in names
    assert "edgedc/train/recipes/smoke.toml" in names
    tops = {name.split("/")[0] for name in names}
    assert tops == {"edgedc", f"edgedc-{__version__}.dist-info"}  # no generic `train` in site-packages


def test_the_installed_wheel_runs_without_the_checkout(installed: Path, tmp_path: Path) -> None:
    where = run(installed, "-c", "import edgedc; print(edgedc.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parents[1])
    edgedc = installed.with_name("edgedc")
    assert run(edgedc, "--version", cwd=tmp_path).split()[-1] == __version__
    assert "Verbs" in run(edgedc, "--help", cwd=tmp_path)
    for verb in VERBS:
        assert f"Usage: edgedc {verb}" in run(edgedc, verb, "--help", cwd=tmp_path)
    run(installed, "-c", "from edgedc.prices import load_prices; assert load_prices()", cwd=tmp_path)
    (recipe, *_), names = RECIPES, run(installed, "-c", LISTED, cwd=tmp_path).split()
    assert names == RECIPES
    assert "Usage: edgedc merge" in run(edgedc, "merge", "--recipe", recipe, "--help", cwd=tmp_path)


RECIPES = sorted(path.stem for path in (ROOT / "train" / "recipes").glob("*.toml"))
LISTED = "from edgedc.recipes import known_recipes; print(*known_recipes())"

WORKSHOPS = """
import importlib, pkgutil
from edgedc.workshop import workshop
from edgedc.errors import MissingExtra
for package in ("train", "export"):
    inside = importlib.import_module(f"edgedc.{package}").__path__
    for found in pkgutil.walk_packages(inside, f"edgedc.{package}."):
        try:
            print(workshop(found.name.removeprefix("edgedc.")).__name__)
        except MissingExtra:
            assert found.name.endswith(".ray_engine")  # the one that needs an extra of its own
"""


def test_the_installed_wheel_has_its_workshops_inside(installed: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the train extra is not installed")
    names = run(installed, "-c", WORKSHOPS, cwd=tmp_path).split()
    assert "edgedc.train.fitting.sft" in names
    assert "edgedc.export.ship" in names
    assert all(name.startswith(("edgedc.train.", "edgedc.export.")) for name in names)


def test_the_editable_install_finds_them_in_the_checkout(tmp_path: Path) -> None:
    code = "import edgedc, train, export; print(edgedc.__file__, train.__file__, export.__file__)"
    files = run(sys.executable, "-c", code, cwd=tmp_path).split()
    assert [Path(file).parents[1] for file in files] == [ROOT, ROOT, ROOT]
    code = "from edgedc.workshop import workshop; print(workshop('train.settings').__name__)"
    assert run(sys.executable, "-c", code, cwd=tmp_path).split() == ["train.settings"]
