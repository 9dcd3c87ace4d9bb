"""Recipes: what is wrong with one is said with the mend; recipe < environment < flag."""

from pathlib import Path

import pytest

from edgedc import cli
from edgedc.commands._verbs import values
from edgedc.errors import InputError
from edgedc.recipes import ABOUT, VERBS, find_recipe, known_recipes


def recipe(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "my.toml"
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize("name", known_recipes())
def test_a_recipe_that_ships_is_whole_and_says_what_to_expect(name: str) -> None:
    found = find_recipe(name)
    assert found.name == name
    assert set(found.about) == set(ABOUT)
    assert "train" in found.tables


def test_those_of_the_issue_ship() -> None:
    assert list(known_recipes()) == [
        "box",
        "box-base",
        "gsm8k-scratch",
        "paper-vicuna-13b",
        "qwen2.5-0.5b",
        "qwen3-0.6b",
        "smoke",
        "smollm2-135m",
    ]


def test_the_paper_s_is_the_paper_s() -> None:
    """Batch, rate, length, warm-up and epochs of arXiv 2402.15000, with every weight trained."""
    train = find_recipe("paper-vicuna-13b").tables["train"]
    assert (train["batch_size"], train["learning_rate"], train["max_length"]) == (128, 2e-5, 2048)
    assert (train["warmup"], train["epochs"], train["tuning"]) == (0.03, 5.0, "full")


def test_a_flag_wins_over_the_environment_and_that_over_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recipe(tmp_path, "[train]\nbatch_size = 5\nseed = 5\nlora_rank = 5\n")
    monkeypatch.setenv("EDGEDC_TRAIN_SEED", "6")
    monkeypatch.setenv("EDGEDC_TRAIN_LORA_RANK", "6")
    given = values("train", "--recipe", path, "--lora-rank", 7, "data", "out")
    assert (given["batch_size"], given["seed"], given["lora_rank"]) == (5, 6, 7)
    assert given["epochs"] == values("train", "data", "out")["epochs"]


def test_a_recipe_may_say_none_and_so_may_a_flag(tmp_path: Path) -> None:
    path = recipe(tmp_path, '[train]\nmax_subquestions = "none"\n[teach]\nmax_subquestions = 3\n')
    assert values("train", "--recipe", path, "data", "out")["max_subquestions"] is None
    assert values("teach", "--recipe", path, "out")["max_subquestions"] == 3
    assert values("teach", "--recipe", path, "--max-subquestions", "none", "out")["max_subquestions"] is None


def test_keys_and_variables_are_called_as_the_flags_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recipe(tmp_path, '[export]\nquantization = "q8_0"\ngate = false\nformat = ["gguf", "onnx"]\n')
    given = values("export", "--recipe", path)
    assert (given["quantizations"], given["gated"], given["formats"]) == (("q8_0",), False, ("gguf", "onnx"))
    monkeypatch.setenv("EDGEDC_EXPORT_QUANTIZATION", "f16 q4_0")
    assert values("export", "--recipe", path)["quantizations"] == ("f16", "q4_0")


def test_a_variable_that_is_no_flag_s_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDGEDC_VERSION", "EDGEDC_API_KEY", "EDGEDC_BASE_URL", "EDGEDC_DATA", "EDGEDC_HELP"):
        monkeypatch.setenv(name, "x")
    assert values("train", "data", "out")["base"] == "demo-base"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[train]\nlearningrate = 1.0", "[train] has no key 'learningrate'; did you mean learning_rate?"),
        ("[train]\nlearning-rate = 1.0", "[train] has no key 'learning-rate'; did you mean learning_rate?"),
        ("[train]\ndata = 'x'", "[train] has no key 'data'"),
        ("[export]\nquantisation = 'q8_0'", "[export] has no key 'quantisation'; did you mean quantization?"),
        ("[trian]\n", "[trian] is no table of a recipe; did you mean train?"),
        ("seed = 3", "seed = 3 stands in no table: write [train] or another verb above"),
        ("[zzz]", "[zzz] is no table of a recipe; there are about, teach, screen, train, merge, export"),
        ("[about]\nmemmory = '1 GB'", "[about] has no key 'memmory'; did you mean memory?"),
        ("[about]\nmemory = 1", "[about] memory = 1: must be text"),
        ("[train]\nlearning_rate = 'fast'", '[train] learning_rate = "fast": must be a number'),
        ("[train]\nbatch_size = 1.5", "[train] batch_size = 1.5: must be a whole number"),
        ("[train]\nbatch_size = true", "[train] batch_size = true: must be a whole number"),
        ("[train]\nmax_subquestions = 'all'", '[train] max_subquestions = "all": must be a whole number or "none"'),
        ("[train]\nbase = 3", "[train] base = 3: must be text in quotes"),
        ("[export]\ngate = 'no'", '[export] gate = "no": must be true or false'),
        ("[export]\nformat = ['gguf', 3]", "[export] format = ['gguf', 3]: must be"),
        ("[merge]\ndtype = 'int8'", '[merge] dtype = "int8": must be "float16" or "bfloat16" or "float32"'),
        ("[train\n", "not TOML: "),
        ("[train]\nseed = " + "9" * 5000, "not TOML: Exceeds the limit (4300 digits)"),
        ("[train]\nseed = " + "[" * 5000, "not TOML: maximum recursion depth exceeded"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_key(tmp_path: Path, text: str, said: str) -> None:
    path = recipe(tmp_path, text)
    with pytest.raises(InputError) as caught:
        find_recipe(str(path))
    assert str(caught.value).startswith(f"{path}: {said}")


def test_a_mistake_in_another_verb_s_table_is_found_too(tmp_path: Path) -> None:
    path = recipe(tmp_path, "[export]\nformats = 'gguf'")
    with pytest.raises(InputError, match=r"\[export\] has no key 'formats'; did you mean format\?"):
        values("train", "--recipe", path, "data", "out")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("smok", "no such recipe and no such file; did you mean smoke?"),
        ("zzz", "there are box, box-base, gsm8k-scratch, paper-vicuna-13b"),
    ],
)
def test_a_recipe_that_is_not_there(name: str, said: str) -> None:
    with pytest.raises(InputError, match=f"{name}: .*{said}".replace("?", r"\?")):
        values("train", "--recipe", name, "data", "out")


def test_the_verbs_with_a_table_take_a_recipe_and_the_others_do_not() -> None:
    group = cli.cli
    for verb in cli.VERBS:
        command = group.get_command(group.make_context("edgedc", [verb]), verb)
        assert command is not None
        assert [option.name for option in command.params].count("recipe") == (verb in VERBS or verb == "distill")


def test_a_value_that_cannot_be_is_said_to_be_the_variable_s(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGEDC_TRAIN_LORA_RANK", "many")
    for args in (["train", "data", "out"], ["distill", "smoke"]):
        with pytest.raises(SystemExit):
            cli.main(args)
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith("edgedc: EDGEDC_TRAIN_LORA_RANK: Invalid value for '--lora-rank': 'many'")
    with pytest.raises(SystemExit):
        cli.main(["train", "--lora-rank", "few", "data", "out"])
    assert "EDGEDC_TRAIN_LORA_RANK" not in capsys.readouterr().err
