import errno
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

import edgedc.commands
from edgedc import __version__, cli
from edgedc.errors import BudgetError, GateError, InputError, MissingExtra, SolverTimeout
from edgedc.workshop import workshop

HEAVY = ("torch", "transformers", "peft", "llama_cpp", "onnxruntime", "datasets")


def run(*args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgedc", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd)


REPORT = "import atexit, sys; atexit.register(lambda: print('LOADED', *sys.modules)); import edgedc"


def run_and_list_modules(code: str) -> tuple[str, set[str]]:
    """What the code prints, and the modules that its process had loaded at its end."""
    command = [sys.executable, "-c", f"{REPORT}\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    printed, _, loaded = done.stdout.rpartition("LOADED")
    return printed, set(loaded.split())


@pytest.mark.parametrize(
    "code", ["", "edgedc.cli.main(['--help'])", "edgedc.cli.main(['-h'])", "edgedc.cli.main(['--version'])"]
)
def test_importing_and_asking_for_help_loads_nothing_heavy(code: str) -> None:
    _, loaded = run_and_list_modules(f"import edgedc.cli; {code}" if code else "")
    assert "edgedc" in loaded
    assert not {*HEAVY, "httpx", "jinja2", "numpy"} & loaded


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_of_a_verb_loads_no_models_library(verb: str) -> None:
    printed, loaded = run_and_list_modules(f"import edgedc.cli; edgedc.cli.main(['{verb}', '--help'])")
    assert f"Usage: edgedc {verb}" in printed
    assert not set(HEAVY) & loaded


def test_the_list_of_verbs_is_the_folder_of_commands() -> None:
    folder = Path(str(edgedc.commands.__file__)).parent
    assert set(cli.VERBS) == {path.stem for path in folder.iterdir() if not path.stem.startswith("_")}


def test_help_and_version() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert all(f"\n  {verb} " in done.stdout for verb in cli.VERBS)
    assert run("--version").stdout == f"edgedc, version {__version__}\n"


def test_a_mistyped_verb_is_guessed() -> None:
    assert run("decompse").stderr == "edgedc: No such command 'decompse'; did you mean decompose? See  edgedc --help\n"
    assert run("xyz").stderr == "edgedc: No such command 'xyz'. See  edgedc --help\n"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a folder in use is not removed")
@pytest.mark.parametrize("verb", [["decompose"], ["ask", "--solver-model", "m"]])
def test_a_question_that_is_taken_for_a_flag_is_told_how_it_is_none(verb: list[str]) -> None:
    done = run(*verb, "-5 plus 3 is how much?")
    assert done.returncode == 2
    assert "No such option '-5'. Put  --  before a question that begins with a dash. See " in done.stderr
    assert "goes behind" not in run("models", "-5").stderr


def test_a_working_folder_that_is_gone_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    code = "import os, edgedc.cli; os.rmdir(os.getcwd()); edgedc.cli.main(['models'])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "gone", capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (1, "edgedc: the working folder is gone: go to another\n")


def test_a_closed_stdout_is_one_that_nobody_reads() -> None:
    command = f"{sys.executable} -m edgedc models >&-"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("args", [["models"], ["--version"]])
def test_a_full_disk_behind_stdout_is_one_line(args: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "edgedc", *args], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert done.returncode == 1
    assert done.stderr == b"edgedc: stdout or a file: cannot be written: No space left on device\n"


@pytest.mark.parametrize("args", [["decompse"], ["decompose", "--no-such-flag"], []])
def test_wrong_usage_exits_2_and_prints_no_result(args: list[str]) -> None:
    done = run(*args)
    assert done.returncode == 2
    assert done.stdout == ""
    if args:
        assert done.stderr.startswith("edgedc: No such")
        assert done.stderr.endswith("--help\n")
        assert done.stderr.count("\n") == 1
    else:
        assert "Usage: edgedc" in done.stderr
    assert "Traceback" not in done.stderr


def exit_of(monkeypatch: pytest.MonkeyPatch, error: BaseException | None) -> int | str | None:
    """The exit code of a verb that raises this; the verb is a real one, put where the group looks for it."""

    @click.command()
    def command() -> None:
        if error is not None:
            raise error

    module = ModuleType("edgedc.commands.trial")
    module.__dict__["command"] = command
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(cli.VERBS, "trial", "")
    with pytest.raises(SystemExit) as caught:
        cli.main(["trial"])
    return caught.value.code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, 0),
        (SolverTimeout("too slow"), 1),
        (InputError("no file"), 2),
        (MissingExtra("torch", "train"), 2),
        (GateError("not equal"), 3),
        (BudgetError("too dear"), 4),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException | None, code: int
) -> None:
    assert exit_of(monkeypatch, error) == code
    out, err = capsys.readouterr()
    assert out == ""
    if error is None:
        assert err == ""
    else:
        [line] = err.split("\n")[-2:-1]
        assert err.strip() == line  # one line, behind the end of what ^C interrupted
        assert line.startswith("edgedc: ")
        assert str(error) in line


@pytest.mark.parametrize("processes", ["1", "2"])
def test_training_without_torch_is_one_line(tmp_path: Path, processes: str) -> None:
    rows = tmp_path / "rows.jsonl"
    assert run("teach", "--limit", "4", str(rows)).returncode == 0
    train = ["train", "--num-processes", processes, str(rows), str(tmp_path / "out")]
    code = f"import sys; sys.modules['torch'] = None; from edgedc.cli import main; main({train!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr == "edgedc: torch is not installed: run  pip install 'edgedc[train]'\n"


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        exit_of(monkeypatch, ZeroDivisionError("a bug"))


def test_trouble_with_a_file_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_of(monkeypatch, PermissionError(errno.EACCES, "Permission denied", "nox/sub")) == 1
    assert exit_of(monkeypatch, OSError(errno.EFBIG, "File too large")) == 1
    nox, large = "nox/sub: Permission denied", "stdout or a file: cannot be written: File too large"
    assert capsys.readouterr().err == f"edgedc: {nox}\nedgedc: {large}\n"
    with pytest.raises(OSError, match="Bad file descriptor"):  # of no file that anybody named: a bug
        exit_of(monkeypatch, OSError(errno.EBADF, "Bad file descriptor"))


@pytest.mark.skipif(sys.platform == "win32", reason="signals there end a process at once")
@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_leaves_nothing_staged(tmp_path: Path, number: signal.Signals, ignored: bool) -> None:
    """Where Ctrl-C is ignored, as in the background of a shell's script, too."""
    job = f"""
import sys, time
from pathlib import Path
from types import ModuleType
import click
from edgedc import cli
from edgedc.files import staged_folder

@click.command()
def command():
    with staged_folder(Path({str(tmp_path / "out")!r})):
        print("staged", flush=True)
        time.sleep(60)

module = sys.modules["edgedc.commands.trial"] = ModuleType("edgedc.commands.trial")
module.command = command
cli.VERBS["trial"] = ""
cli.main(["trial"])
"""

    def begin() -> None:
        signal.signal(number, signal.SIG_DFL)  # these tests may be under nohup themselves
        if ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    with subprocess.Popen(
        [sys.executable, "-c", job],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=begin,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"staged\n"
        process.send_signal(number)
        assert process.wait(60) == 128 + number
        assert process.stderr.read().strip() == b"edgedc: terminated"
    assert not list(tmp_path.iterdir())


def test_nohup_is_heeded() -> None:
    code = "import signal; from edgedc import cli; cli._as_ctrl_c(); print(signal.getsignal(signal.SIGHUP).name)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "SIG_IGN\n"


def test_an_extra_that_is_not_installed_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "train"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "thing.py").write_text("import no_such_package_anywhere")
    (package / "other.py").write_text("import edgedc.errors as e\nraise e.MissingExtra('jinja2', 'llamacpp')")
    (package / "broken.py").write_text("from edgedc.no_such_module import x")
    for name in [name for name in sys.modules if name == "train" or name.startswith("train.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        MissingExtra, match=r"no_such_package_anywhere is not installed: run  pip install 'edgedc\[train\]'"
    ):
        workshop("train.thing")
    with pytest.raises(MissingExtra, match=r"jinja2 is not installed: run  pip install 'edgedc\[train\]'"):
        workshop("train.other")  # a backend's own extra would not be enough to train
    with pytest.raises(ModuleNotFoundError, match=r"edgedc\.no_such_module"):  # ours: a bug, not a missing extra
        workshop("train.broken")
    for name in ("train", "train.thing", "train.other", "train.broken"):
        sys.modules.pop(name, None)
