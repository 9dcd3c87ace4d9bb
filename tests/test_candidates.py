"""--max-drop keeps the smallest type whose figures lie near enough to the model's, and says what each one cost."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from edgedc.bundle import Artifact, read_manifest, write_manifest
from edgedc.decomposition import parse
from edgedc.errors import GateError, InputError
from edgedc.files import sha256_of
from edgedc.prompts import decompose_messages
from edgedc.tasks.microworld import problems
from export.gate.candidates import (
    CALIBRATED,
    CANDIDATES,
    Chosen,
    Measured,
    candidate_types,
    choose,
    measured,
    model_right,
    parse_drop,
    share_right,
    speed_of,
)
from export.gate.observe import reference_of
from export.gate.prompts import Prompt
from export.gguf.quantize import contents, quantize, types_of
from export.gguf.tensors import StoredTensor

CONTEXT = 512


@pytest.mark.parametrize(("text", "share"), [("1%", 0.01), ("1 %", 0.01), ("0.01", 0.01), (" 2.5% ", 0.025), ("0", 0)])
def test_a_drop_is_a_share_or_a_percentage(text: str, share: float) -> None:
    assert parse_drop(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "%", "1", "100%", "-1%", "1%%", "one", "nan", "1e-2", "1 0%", "٣%"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"write 1% or 0\.01") as caught:
        parse_drop(text)
    assert "\n" not in str(caught.value)


def tensors(width: int) -> list[StoredTensor]:
    shapes = {"token_embd": (width, 2000), **{f"blk.{k}.ffn_up": (width, 4 * width) for k in range(30)}}
    return [StoredTensor(f"{name}.weight", "f16", shape, 16.0) for name, shape in shapes.items()]


def test_candidates_go_from_small_to_large_for_the_model_at_hand() -> None:
    wide = candidate_types(tensors(512), calibrated=False)
    assert wide == ["q2_k", "q3_k_s", "q3_k_m", "iq4_xs", "q4_0", "q4_k_s", "q4_k_m", "q5_k_m", "q6_k", "q8_0", "f16"]
    narrow = candidate_types(tensors(576), calibrated=False)  # where k-quants fall back to larger types
    assert narrow.index("q4_0") < narrow.index("q3_k_m") < narrow.index("q4_k_m")
    assert candidate_types(tensors(512), calibrated=True)[:3] == ["iq2_xs", "iq2_m", "q2_k"]
    assert types_of(",".join(CANDIDATES)) == list(CANDIDATES)
    with pytest.raises(InputError):
        types_of(CALIBRATED[0])


# type: agreement, share right, why the gate failed
SCRIPT: dict[str, tuple[float, float | None, str | None]] = {
    "q2_k": (0.50, 0.40, "fails its gate: token 3"),
    "q4_0": (0.95, 0.88, None),
    "q4_k_m": (0.99, 0.87, None),
    "q8_0": (0.99, 0.90, None),
    "f16": (1.00, 0.90, None),
}


def chosen(
    max_drop: float, script: dict[str, tuple[float, float | None, str | None]], right: float | None = 0.9
) -> tuple[Chosen, list[str], list[str]]:
    said: list[str] = []
    gone: list[str] = []

    def measure(kind: str) -> Measured:
        size = 1000 * (1 + list(script).index(kind))
        artifact = Artifact((f"m-{kind}.gguf",), "gguf", kind, size, ("0",), details={"bits_per_weight": size / 1000})
        agreement, share, failure = script[kind]
        return Measured(artifact, agreement, share, 100.0, failure)

    done = choose(script, measure, lambda a: gone.append(a.quantization), max_drop, right, said.append)
    return done, said, gone


def test_the_smallest_that_passes_is_kept_and_the_others_go() -> None:
    done, said, gone = chosen(0.01, SCRIPT)
    assert done.artifact.quantization == "q8_0"
    assert gone == ["q2_k", "q4_0", "q4_k_m"]
    assert [(row["quantization"], row["passed"]) for row in done.rows] == [
        ("q2_k", False),
        ("q4_0", False),
        ("q4_k_m", False),
        ("q8_0", True),
    ]
    assert json.loads(json.dumps(done.rows)) == done.rows
    assert [row["drop"] for row in done.rows] == pytest.approx([0.5, 0.05, 0.03, 0.01])
    assert said[0].endswith("50.0% decomposed as by the model, 40.0% right (the model 90.0%): fails its gate: token 3")
    assert "q4_0: 0.0 MB, 2.00 bits/weight, 100 tokens/s, 95.0% decomposed" in said[1]
    assert said[2].endswith("loses 3.0%, more than 1.0%")
    assert said[3].endswith("kept")


def test_a_larger_drop_allows_a_smaller_type_but_never_a_failed_gate() -> None:
    assert chosen(0.05, SCRIPT)[0].artifact.quantization == "q4_0"
    assert chosen(0.9, SCRIPT)[0].artifact.quantization == "q4_0"
    assert chosen(0.0, SCRIPT)[0].artifact.quantization == "f16"


def test_agreement_alone_counts_where_no_answers_are_known() -> None:
    blind = {kind: (agreement, None, failure) for kind, (agreement, _, failure) in SCRIPT.items()}
    done, said, _ = chosen(0.01, blind, None)
    assert done.artifact.quantization == "q4_k_m"
    assert "right" not in said[0]


def test_none_that_passes_is_a_gate_error_with_the_largest_ones_figures() -> None:
    script = {kind: figures for kind, figures in SCRIPT.items() if kind in ("q2_k", "q4_0")}
    with pytest.raises(
        GateError, match=r"stays within --max-drop 1.0%; the largest: q4_0: .* 95.0% decomposed"
    ) as caught:
        chosen(0.01, script)
    assert caught.value.exit_code == 3


def test_what_is_right_counts_known_answers_only() -> None:
    prompts = [Prompt("a", [], known=parse("1. How many?")), Prompt("b", []), Prompt("c", [], known=parse("1. Who?"))]
    assert share_right(prompts, ["1. How many?", "1. What?", "1. Where?"]) == 0.5
    assert share_right(prompts[1:2], ["1. What?"]) is None


def test_replies_without_a_second_token_have_no_speed() -> None:
    assert speed_of([(10, 0.5), (0, 0.25), (-1, 0.25), (20, 1.0)]) == 20
    assert speed_of([(0, 0.25), (-1, 0.25)]) is None


def test_a_trained_model_is_measured_and_the_smallest_that_keeps_its_answers_is_found(
    model_folder: Path, bundle_folder: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(bundle_folder, tmp_path / "bundle"))
    manifest = read_manifest(bundle)
    f16 = next(a for a in manifest.artifacts if a.quantization == "f16")
    prompts = [
        Prompt(p.question, decompose_messages(p.question, style="compact-1", cap=5), known=p.decomposition)
        for p in problems("train", 6)
    ]

    def measure(kind: str) -> Measured:
        out = bundle / f"candidate-{kind}.gguf"
        quantize(bundle / f16.path, out, kind)
        details = {"bits_per_weight": contents(out).bits_per_weight}
        artifact = Artifact((out.name,), "gguf", kind, out.stat().st_size, (sha256_of(out),), details=details)
        write_manifest(bundle, dataclasses.replace(manifest, artifacts=(artifact,)))
        return measured(bundle, artifact, prompts, reference, CONTEXT)

    with reference_of(model_folder, prompts, CONTEXT, tmp_path) as reference:
        right = model_right(prompts, reference)
        assert right == 1.0  # it knows them by heart
        kinds = ["q2_k", "q4_k_m", "q8_0"]
        done = choose(kinds, measure, lambda a: (bundle / a.path).unlink(), 0.0, right, print)
    assert done.artifact.quantization in kinds
    assert [path.name for path in bundle.glob("candidate-*")] == [done.artifact.path]
    last = done.rows[-1]
    assert (last["passed"], last["agreement"], last["right"], last["drop"]) == (True, 1.0, 1.0, 0.0)
    assert last["tokens_per_s"] > 0
    assert last["bytes"] == (bundle / done.artifact.path).stat().st_size
    assert all(row["drop"] > 0 or row["failure"] for row in done.rows[:-1])
