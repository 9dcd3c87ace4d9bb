"""`edgedc distill`: the whole chain by a recipe; stopped and run again, it ends where an undisturbed run does."""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import write_rows
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from edgedc import cli
from edgedc.bundle import read_manifest, write_manifest
from edgedc.catalogue import find_weights
from edgedc.errors import GateError, InputError
from edgedc.files import read_rows, sha256_of
from edgedc.solvers.loopback import Timing
from edgedc.solvers.simulated import MODEL, Skill, simulated_server
from edgedc.tasks.microworld import problems

SMALL = """
[teach]
limit = 16

[train]
max_steps = 6
batch_size = 4
lora_rank = 4
checkpoint_every = 2
threads = 1

[export]
quantization = "f16"
gate = false
"""


def distill(recipe: Path, out: Path, *flags: object) -> None:
    cli.cli.main(["distill", str(recipe), "--out", str(out), *map(str, flags)], standalone_mode=False)


def weights(out: Path) -> list[str]:
    return [sha256_of(out / name) for name in ("student/model.safetensors", "bundle/student-f16.gguf")]


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("distill")
    recipe = write(folder / "small.toml", SMALL)
    distill(recipe, folder / "out")
    return recipe, folder / "out"


@pytest.fixture
def copy(made: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """The recipe, and what it made, to be run again."""
    subprocess.run(["cp", "-a", *map(str, made), str(tmp_path)], check=True)
    return tmp_path / "small.toml", tmp_path / "out"


def made_in(out: Path) -> set[str]:
    """Without the log that is written where TensorBoard is installed."""
    return {path.name for path in out.iterdir() if path.suffix != ".tensorboard"}


def test_it_makes_a_bundle_whose_manifest_has_the_recipe(made: tuple[Path, Path]) -> None:
    recipe, out = made
    assert made_in(out) == {"demonstrations.jsonl", "adapter", "student", "bundle"}
    manifest = read_manifest(out / "bundle")
    assert [(a.path, a.passed) for a in manifest.artifacts] == [("student-f16.gguf", None)]
    assert (manifest.recipe["max_steps"], manifest.recipe["seed"]) == (6, 0)
    told = manifest.recipe["sources"]
    assert (told["max_steps"], told["seed"]) == (f"recipe {recipe}", "default")
    assert manifest.recipe["merge"]["agreement"]["top1"] >= 0.99
    assert manifest.recipe["export"]["quantizations"] == ["f16"]
    assert manifest.recipe["export"]["sources"]["gated"] == f"recipe {recipe}"


def test_what_is_there_stays_and_what_changed_is_made_again(
    copy: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, out = copy
    before = weights(out), read_manifest(out / "adapter").created
    monkeypatch.setenv("EDGEDC_TRAIN_CHECKPOINT_EVERY", "3")  # leads to the same weights
    distill(recipe, out)
    said = capsys.readouterr()
    assert f"{out / 'adapter'}: there already" in said.err
    assert f"{out / 'student'}: there already" in said.err
    assert f"{out / 'bundle'}: there already" in said.err
    assert "$ edgedc train" not in said.err
    assert "there already" in said.out  # the table
    assert (weights(out), read_manifest(out / "adapter").created) == before

    monkeypatch.setenv("EDGEDC_MERGE_DTYPE", "float32")
    distill(recipe, out)
    said = capsys.readouterr()
    assert "$ edgedc train" not in said.err
    assert "$ edgedc merge" in said.err
    assert "$ edgedc export" in said.err
    assert read_manifest(out / "student").recipe["merge"]["sources"]["dtype"] == "environment"
    assert weights(out)[0] != before[0][0]


def test_what_calls_without_a_row_may_have_cost_is_in_the_table(
    copy: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = copy
    write_rows(out / "demonstrations.jsonl.spending", [{"key": "gone", "lost": 0.25, "asked": 0.5}])
    distill(recipe, out)
    assert "$0.7500" in capsys.readouterr().out


def test_a_held_out_file_that_has_changed_is_looked_into_again(
    copy: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = copy
    asked = [{"question": row["question"]} for row in read_rows(out / "demonstrations.jsonl")]
    held = write_rows(tmp_path / "held.jsonl", asked[:1])
    recipe.write_text(SMALL.replace("[train]", f'[train]\nheld_out = "{held}"\nexclude_leaks = true'), "utf-8")
    distill(recipe, out)
    assert read_manifest(out / "bundle").data[0].rows == 15
    os.utime(held)  # it is only newer
    capsys.readouterr()
    distill(recipe, out)
    assert "$ edgedc train" not in capsys.readouterr().err
    write_rows(held, asked[:3])
    os.utime(held, (1, 1))  # a copy may be older than what it takes the place of
    distill(recipe, out)
    assert read_manifest(out / "bundle").data[0].rows == 13


def test_questions_that_types_are_fitted_to_are_known_by_what_they_are(
    copy: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = copy
    asked = [{"question": row["question"]} for row in read_rows(out / "demonstrations.jsonl")]
    fitted = write_rows(tmp_path / "fitted.jsonl", asked[:2])
    recipe.write_text(SMALL.replace('"f16"', f'"q4_0"\ncalibrate = "{fitted}"'), "utf-8")
    for questions, again in ((asked[:2], True), (asked[:2], False), (asked[2:4], True)):
        write_rows(fitted, questions)
        os.utime(fitted, (1, 1) if again else None)
        distill(recipe, out)
        assert ("$ edgedc export" in capsys.readouterr().err) == again


def test_the_weights_of_a_base_tell_whether_it_is_another(
    copy: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = copy
    base = Path(shutil.copytree(find_weights(Path("demo-base")), tmp_path / "base"))
    recipe.write_text(SMALL.replace("[train]", f'[train]\nbase = "{base}"'), "utf-8")
    for change, again in ((b"", True), (b"", False), (bytes(2), True)):  # the second time it is only newer
        stored = (base / "model.safetensors").read_bytes()
        (base / "model.safetensors").write_bytes(stored[: len(stored) - len(change)] + change)
        distill(recipe, out)
        assert ("$ edgedc train" in capsys.readouterr().err) == again


def test_rows_that_the_changed_recipe_does_not_ask_for_are_kept_and_not_learnt(copy: tuple[Path, Path]) -> None:
    recipe, out = copy
    before = weights(out)
    distill(recipe, out, "--limit", 12)
    assert len(list(read_rows(out / "demonstrations.jsonl"))) == 16
    assert read_manifest(out / "adapter").data[0].rows == 12
    distill(recipe, out)  # back again: nothing has to be taught, and the same comes out
    assert weights(out) == before


def test_screened_draws_are_what_is_learnt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A simulated teacher and solver, over HTTP; half of what the solver says is wrong."""
    known = list(problems("train", 16))
    text = SMALL.replace("limit = 16", f'limit = 16\nteacher = "{MODEL}"').replace(
        "[train]", '[train]\nmethod = "S_D-R"'
    )
    with simulated_server(known, Skill(0.5, 0.5, 0.5), timing=Timing(0.0, 0.0)) as url:
        text = text.replace("limit = 16", f'limit = 16\nteacher_url = "{url}"')
        screen = f'[screen]\nsolver_model = "{MODEL}"\nsolver_url = "{url}"\n'
        distill(write(tmp_path / "r.toml", text + screen), tmp_path / "out")
    rows = list(read_rows(tmp_path / "out" / "screened.jsonl"))
    passed = sum(row["verdict"] for row in rows)
    assert 0 < passed < len(rows)
    manifest = read_manifest(tmp_path / "out" / "bundle")
    assert (manifest.method, manifest.data[0].rows) == ("S_D-R", passed)
    assert f"{len(rows)} rows: " in capsys.readouterr().out


def test_a_whole_model_is_not_merged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = SMALL.replace("[train]", '[train]\nfrom_scratch = "nano"\nvocabulary = 512')
    distill(write(tmp_path / "r.toml", text), tmp_path / "out")
    assert "edgedc merge" not in capsys.readouterr().err
    assert made_in(tmp_path / "out") == {"demonstrations.jsonl", "student", "bundle"}
    assert read_manifest(tmp_path / "out" / "student").kind == "model"


def test_what_the_recipe_says_of_merging_is_heard(
    copy: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    recipe, out = copy
    mine = write(tmp_path / "mine.jsonl", '{"question": "How many pens?"}\n')
    recipe.write_text(SMALL + f'[merge]\ndtype = "float32"\nprompts = "{mine}"\n', "utf-8")
    distill(recipe, out)
    assert read_manifest(out / "student").recipe["merge"]["agreement"]["prompts"] == str(mine)
    whole = write(tmp_path / "whole.toml", recipe.read_text("utf-8").replace("lora_rank = 4", 'tuning = "full"'))
    distill(whole, tmp_path / "other")
    assert "note: [merge] has no part in this: every weight is trained" in capsys.readouterr().err


def test_an_artifact_that_failed_its_gate_is_told_again(copy: tuple[Path, Path]) -> None:
    recipe, out = copy
    manifest = read_manifest(out / "bundle")
    failed = dataclasses.replace(manifest.artifacts[0], passed=False, gate={"first_difference": "prompt 3"})
    write_manifest(out / "bundle", dataclasses.replace(manifest, artifacts=(failed,)))
    with pytest.raises(GateError, match=r"not equal enough .*student-f16\.gguf: prompt 3"):
        distill(recipe, out)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("lora_rank = 4", "lora_rnk = 4"), r"\[train\] has no key 'lora_rnk'; did you mean lora_rank\?"),
        (('"f16"', '"f17"'), "unknown quantization 'f17'"),
        (("lora_rank = 4", 'base = "edgedc"'), "edgedc: no config.json"),
        (("lora_rank = 4", 'base = "nowhere"'), "nowhere: no such base model"),
        (("lora_rank = 4", "lora_rank = 0"), "--lora-rank 0: must be above 0"),
        (("lora_rank = 4", 'method = "S_D-R"'), r"method S_D-R: is made from rows of  edgedc screen: add \[screen\]"),
        (("[export]", "[screen]\n[export]"), r"method S_D-T: is made from rows of  edgedc teach: say method = "),
        (("[export]", 'method = "S_D-R"\n[screen]\n[export]'), "no solver: name the model"),
        (("limit = 16", "limit = 0"), "--limit 0: must be at least 1"),
        (("lora_rank = 4", 'held_out = "nowhere.jsonl"'), "nowhere.jsonl: cannot be read"),
        (("limit = 16", 'split = "test"'), r"microworld: 1000 of 1000 rows are in a test split: line 1"),
        (("gate = false", 'calibrate = "nowhere.jsonl"\ngate = false'), "--calibrate fits quantised types, and f16 is"),
        (('"f16"', '"q4_k_m"\ncalibrate = "nowhere.jsonl"'), "nowhere.jsonl: cannot be read"),
        (('quantization = "f16"', 'format = "onnx"\nprecision = "int3"'), "int3"),
        (("gate = false", 'max_drop = "1%"'), "leave out --no-gate and --quantization"),
        (("lora_rank = 4", "num_processes = 0"), "--num-processes 0: must be at least 1"),
        (("lora_rank = 4", "fsdp = true"), "--fsdp divides a model between processes"),
        (("lora_rank = 4", "lora_rank = 257"), "--lora-rank 257: must be at most 256, the width of the base"),
        (("lora_rank = 4", "validation = 16"), "--validation 16: of 16 questions that leaves nothing to train on"),
        (
            ("lora_rank = 4", "max_length = 10"),
            r"microworld:1 \(train-0-1\): has \d+ tokens, more than --max-length 10",
        ),
        (('"f16"', '"f16"\nllama_cpp = "nowhere"'), "--llama-cpp nowhere: not needed"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_made(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    recipe = write(tmp_path / "r.toml", SMALL.replace(*change))
    with pytest.raises(InputError, match=said):
        distill(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def config(name: str, **changes: object) -> Callable[[Path], None]:
    """A change of a JSON file of a model's folder."""

    def change(base: Path) -> None:
        (base / name).write_text(json.dumps(json.loads((base / name).read_text()) | changes))

    return change


def template(text: str) -> Callable[[Path], object]:
    return lambda base: (base / "chat_template.jinja").write_text(text)


def with_more_tokens(base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|system|>", "<|tool|>"]})
    tokenizer.save_pretrained(base)


def without_a_tensor(base: Path) -> None:
    stored = load_file(base / "model.safetensors")
    del stored["model.layers.1.mlp.up_proj.weight"]
    save_file(stored, base / "model.safetensors", {"format": "pt"})


BAD_BASES: list[tuple[Callable[[Path], object], str]] = [
    (template("<|user|>\nhello<|end|>"), "base: the chat template writes the same whatever is asked"),
    (template("{% for"), r"microworld:1 \(train-0-1\): the base's chat template does not take it: unexpected"),
    (template("{{ raise_exception('no roles') }}"), "the base's chat template does not take it: no roles"),
    (template(""), "base: its tokenizer has no chat template"),
    (config("tokenizer_config.json", eos_token=None), "base: its tokenizer has no eos_token"),
    (config("config.json", num_hidden_layers=1), "base: config.json has num_hidden_layers 1, and the weights"),
    (config("config.json", hidden_size=64), "base: cannot be loaded as a base model: .*mismatch"),
    (config("config.json", hidden_act="gelu"), r"/base/config.json: hidden_act 'gelu' has no equal in llama.cpp's"),
    (config("config.json", auto_map={"AutoModel": "x.M"}), r"/base/config.json: 'auto_map' names code to run"),
    (without_a_tensor, "base: its weights lack model.layers.1.mlp.up_proj.weight"),
    (with_more_tokens, r"/base/tokenizer.json: token 179\d has no embedding: the model has 1792"),
]


@pytest.mark.parametrize(("change", "said"), BAD_BASES)
def test_what_is_wrong_with_the_base_is_said_before_anything_is_made(
    tmp_path: Path, change: Callable[[Path], object], said: str
) -> None:
    base = Path(shutil.copytree(find_weights(Path("demo-base")), tmp_path / "base"))
    change(base)
    recipe = write(tmp_path / "r.toml", SMALL.replace("[train]", f'[train]\nbase = "{base}"'))
    with pytest.raises(InputError, match=said):
        distill(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_place_that_is_taken_is_said_before_anything_is_made(tmp_path: Path) -> None:
    recipe, mine = write(tmp_path / "r.toml", SMALL), tmp_path / "out" / "student"
    mine.mkdir(parents=True)
    write(mine / "essay.txt", "mine")
    with pytest.raises(InputError, match="student: exists and was not made by edgedc"):
        distill(recipe, tmp_path / "out")
    assert made_in(tmp_path / "out") == {"student"}


def killed_and_finished(recipe: Path, out: Path, delays: list[float]) -> int:
    """kill -9 after each delay, then once to the end; how many of the runs were killed."""
    command = [sys.executable, "-m", "edgedc", "distill", str(recipe), "--out", str(out)]
    kills = 0
    for delay in delays:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(delay)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return kills


def test_killed_while_it_trains_it_ends_with_the_same_weights(made: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, out = made
    command = [sys.executable, "-m", "edgedc", "distill", str(recipe), "--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while not list(tmp_path.glob("out/.adapter*/checkpoint-2")) and process.poll() is None:
        time.sleep(0.02)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out" / "adapter").exists()
    distill(recipe, tmp_path / "out")
    assert weights(tmp_path / "out") == weights(out)


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_weights(made: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, out = made
    rng = random.Random(0)
    kills = killed_and_finished(recipe, tmp_path / "out", sorted(rng.uniform(0.2, 15) for _ in range(10)))
    assert kills >= 3
    assert weights(tmp_path / "out") == weights(out)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in out.iterdir()}


@pytest.mark.slow
def test_the_smoke_recipe_passes_the_gate(tmp_path: Path) -> None:
    started = time.monotonic()
    distill(Path("smoke"), tmp_path / "out")
    assert time.monotonic() - started < 300  # 2 minutes on a machine of its own
    [artifact] = read_manifest(tmp_path / "out" / "bundle").artifacts
    assert artifact.passed
