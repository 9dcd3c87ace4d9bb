"""Shared fixtures: real data where it is at hand, and small real models made here."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from edgedc.cli import main
from edgedc.files import Row, key_of
from edgedc.tasks.microworld import problems

Run = Callable[..., tuple[int, str, str]]

# A shell that starts the tests in the background has them, and the programs that they interrupt, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def _speeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("speeds")


@pytest.fixture(autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, _speeds: Path) -> None:
    """What edgedc keeps for a user is kept apart from the user's. A bundle's speed is measured once for all tests."""
    home = tmp_path_factory.mktemp("home")
    (home / "speed").symlink_to(_speeds)
    monkeypatch.setenv("EDGEDC_HOME", str(home))


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder to work in, and nothing of the person's own settings. What edgedc keeps lies in its `home`."""
    for name in list(os.environ):
        if name.startswith(("EDGEDC_", "OPENAI_")) and name != "EDGEDC_DATA":
            monkeypatch.delenv(name)
    monkeypatch.setenv("EDGEDC_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def edgedc(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `edgedc ...` in this process: exit code, stdout, stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([*map(str, words)])
        return int(end.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real data; tests that use it are skipped where it is absent."""
    folder = Path(os.environ.get("EDGEDC_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; name its folder with EDGEDC_DATA")
    return folder


def write_rows(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def demonstrations(count: int) -> list[Row]:
    """Rows as `edgedc teach` writes them, of microworld's problems."""
    rows = []
    for problem in problems("train", count):
        gold = problem.decomposition
        rows.append(
            {
                "key": key_of(problem.question),
                "id": problem.id,
                "question": problem.question,
                "status": gold.status,
                "subquestions": gold.texts,
                "over_cap": False,
            }
        )
    return rows


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A really trained model of 0.9M weights that knows the first six train problems of microworld by heart."""
    from train.fitting.sft import train
    from train.settings import TrainSettings

    folder = tmp_path_factory.mktemp("model")
    data = write_rows(folder / "demonstrations.jsonl", demonstrations(6))
    settings = TrainSettings(
        from_scratch="nano", vocabulary=512, max_steps=100, batch_size=6, learning_rate=3e-3, threads=1
    )
    return train(data, folder / "nano", settings, print).folder


@pytest.fixture(scope="session")
def bundle_folder(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That model as a bundle: GGUF f16 and q8_0, ONNX fp32, not gated (the gate has tests of its own)."""
    from export.ship import Order, ship

    out = tmp_path_factory.mktemp("bundle") / "nano-bundle"
    ship(model_folder, out, Order(("gguf", "onnx"), quantizations="f16,q8_0", gated=False), print)
    return out
