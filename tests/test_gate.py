"""The gate passes artifacts that behave like their model, and catches and names those that do not."""

import dataclasses
import itertools
import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader
from safetensors.numpy import load_file, save_file
from test_export import make_model

from edgedc.backends.chat import read_chat_template
from edgedc.bundle import Artifact, Manifest, SpecialIds, read_manifest, write_manifest
from edgedc.child import in_child
from edgedc.cli import main
from edgedc.errors import EdgedcError, InputError
from edgedc.files import sha256_of
from edgedc.prompts import decompose_messages
from edgedc.tasks.microworld import problems
from export.artifacts import Weights
from export.gate.gate import NEAR_TIE, THRESHOLDS, Limits, compare, gate
from export.gate.observe import (
    ONE_THREAD_BYTES,
    Observation,
    Observed,
    Reference,
    _lead,
    observe,
    reference_of,
    threads_for,
)
from export.gate.prompts import ODD_STRINGS, Prompt, check_length, prompts_for
from export.gguf.quantize import TYPES
from export.onnx.to_onnx import PRECISIONS
from export.ship import Order, ship

QUESTIONS = [Prompt(q, decompose_messages(q, style="compact-1", cap=3)) for q in ("How many apples?", "Who paid 12?")]
PROMPTS = [*QUESTIONS, *(Prompt(t, [{"role": "user", "content": t}], generate=False) for t in ODD_STRINGS)]
CONTEXT = 80
LIMITS = Limits(0.5, 0.5, 0.5, 0.1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("gate") / "tiny")


@pytest.fixture(scope="module")
def bundle(model: Path) -> Path:
    out = model.with_name("bundle")
    ship(model, out, Order(("gguf", "onnx"), quantizations="f16", gated=False), print)
    return out


@pytest.fixture(scope="module")
def reference(model: Path) -> Iterator[Reference]:
    with reference_of(model, PROMPTS, CONTEXT, model.parent) as made:
        yield made
    assert not made.scores.exists()


def artifacts(bundle: Path) -> tuple[Artifact, Artifact]:
    gguf, onnx = read_manifest(bundle).artifacts
    return gguf, onnx


def test_fifty_odd_strings_and_at_least_64_questions() -> None:
    made = prompts_for(Manifest(kind="model", name="n", base="b", method="m"), None)
    assert sum(prompt.generate for prompt in made) == 64
    assert len({prompt.label for prompt in made if not prompt.generate}) == 50


@pytest.mark.parametrize("which", [0, 1])
def test_an_equal_artifact_passes(which: int, bundle: Path, reference: Reference) -> None:
    done = gate(bundle, artifacts(bundle)[which], PROMPTS, reference, CONTEXT)
    assert (done.passed, done.failed) == (True, ())
    assert (done.questions, done.scored, done.odd_strings) == (2, 2, 50)
    assert (done.rendered, done.token_ids, done.text, done.decomposition) == (1.0, 1.0, 1.0, 1.0)
    assert (done.special_ids, done.template) == (True, True)
    assert done.top1 > 0.99
    assert done.kl is not None
    assert 0 <= done.kl < 1e-4
    assert done.kl <= done.kl_most
    assert done.smoke is not None
    assert done.smoke.text in [observation.text for observation in reference.prompts[:2]]


def test_divergence_is_taken_where_the_reply_is_predicted(model: Path, bundle: Path, reference: Reference) -> None:
    """Computed again here, by torch's own functions, from the whole model and a worse copy of it."""
    import torch
    from transformers import AutoModelForCausalLM

    ship(model, bundle.with_name("q4"), Order(("gguf",), quantizations="q4_0", gated=False), print)
    (artifact,) = read_manifest(bundle.with_name("q4")).artifacts
    observed = observe(bundle.with_name("q4"), artifact, PROMPTS, reference, CONTEXT)
    loaded = AutoModelForCausalLM.from_pretrained(model)
    first = reference.prompts[0]
    reply = len(first.forced) - len(first.ids)
    assert first.forced[: len(first.ids)] == first.ids
    assert len(first.top) == len(observed.prompts[0].kl) == reply + 1  # what follows the reply is predicted too
    with torch.inference_mode():
        scores = loaded(torch.tensor([first.forced])).logits[0, len(first.ids) - 1 :]
    assert tuple(scores.argmax(dim=1).tolist()) == first.top
    stored = np.fromfile(reference.scores, np.float32, scores.numel()).reshape(scores.shape)
    assert np.abs(stored - scores.numpy()).max() < 1e-3

    from edgedc.backends import open_backend

    _, backend = open_backend(bundle.with_name("q4"))
    worse = torch.tensor(backend.logits(first.forced, start=len(first.ids) - 1))
    expected = torch.nn.functional.kl_div(
        worse.double().log_softmax(1), scores.double().log_softmax(1), reduction="none", log_target=True
    ).sum(1)
    assert observed.prompts[0].kl == pytest.approx(expected.tolist(), rel=0.2, abs=0.01)  # batches differ
    assert max(observed.prompts[0].kl) > 0.1
    likeliest = worse.double().log_softmax(1).topk(2).values
    assert observed.prompts[0].margin == pytest.approx(float((likeliest[:, 0] - likeliest[:, 1]).min()), abs=0.02)


def test_small_models_run_on_one_thread() -> None:
    assert (threads_for(ONE_THREAD_BYTES - 1), threads_for(ONE_THREAD_BYTES)) == (1, None)


def test_another_template_is_caught(bundle: Path, reference: Reference, tmp_path: Path) -> None:
    sabotaged = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    template = sabotaged / "chat_template.jinja"
    template.write_text(template.read_text("utf-8").replace("<|end|>", ""), "utf-8")
    for artifact in artifacts(bundle):
        done = gate(sabotaged, artifact, PROMPTS, reference, CONTEXT)
        assert not done.passed
        assert (done.rendered, done.token_ids) == (0.0, 0.0)
        assert done.failed[:2] == ("rendered", "token_ids")
        position = reference.prompts[0].rendered.index("<|end|>")
        assert f"'How many apples?': from character {position} the rendered prompt is" in str(done.first_difference)


def test_a_template_inside_the_gguf_that_is_another_is_caught(
    model: Path, reference: Reference, tmp_path: Path
) -> None:
    """What edgedc renders is right; other programs, which read the file's own, would go wrong."""
    from export.gguf.to_gguf import to_gguf

    ship(model, tmp_path / "bundle", Order(("gguf",), quantizations="f16", gated=False), print)
    other = Path(shutil.copytree(model, tmp_path / "other"))
    template = other / "chat_template.jinja"
    template.write_text(template.read_text("utf-8") + " ", "utf-8")
    (artifact,) = read_manifest(tmp_path / "bundle").artifacts
    path = tmp_path / "bundle" / artifact.path
    to_gguf(other, path, "tiny")
    artifact = rewritten(tmp_path / "bundle", artifact)
    done = gate(tmp_path / "bundle", artifact, PROMPTS, reference, CONTEXT)
    assert done.failed == ("template",)
    assert "its chat template goes on from character" in str(done.first_difference)


def test_a_bos_that_only_one_of_them_writes_is_caught(model: Path, reference: Reference, tmp_path: Path) -> None:
    ship(model, tmp_path / "bundle", Order(("gguf",), quantizations="f16", gated=False), print)
    (artifact,) = read_manifest(tmp_path / "bundle").artifacts
    field = GGUFReader(tmp_path / "bundle" / artifact.path, "r+").fields["tokenizer.ggml.add_bos_token"]
    field.parts[field.data[0]][0] = True
    artifact = rewritten(tmp_path / "bundle", artifact)
    done = gate(tmp_path / "bundle", artifact, PROMPTS, reference, CONTEXT)
    assert done.failed == ("special_ids",)
    assert done.first_difference == "it puts BOS before a text, unlike the model's tokenizer"


def test_a_model_without_a_template_is_compared_on_raw_prompts(model: Path, bundle: Path, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(model, tmp_path / "bare"))
    (bare / "chat_template.jinja").unlink()
    raw = Path(shutil.copytree(bundle, tmp_path / "raw"))
    (raw / "chat_template.jinja").unlink()
    write_manifest(raw, dataclasses.replace(read_manifest(raw), chat_template_sha256=None))
    gguf, onnx = artifacts(raw)
    with reference_of(bare, PROMPTS, CONTEXT, tmp_path) as reference:
        assert reference.template is None
        assert [o.rendered for o in reference.prompts] == [p.messages[0]["content"] + "\n" for p in PROMPTS]
        assert gate(raw, onnx, PROMPTS, reference, CONTEXT).passed
        done = gate(raw, gguf, PROMPTS, reference, CONTEXT)
    # this one was made from the model when it still had one
    assert done.failed == ("template",)
    assert done.first_difference == "it has a chat template, the model has none"


def rewritten(bundle: Path, artifact: Artifact) -> Artifact:
    """The artifact of a manifest that calls the file right as it is now."""
    path = bundle / artifact.path
    after = dataclasses.replace(artifact, sha256=(sha256_of(path),), bytes=path.stat().st_size)
    manifest = read_manifest(bundle)
    others = tuple(after if a == artifact else a for a in manifest.artifacts)
    write_manifest(bundle, dataclasses.replace(manifest, artifacts=others))
    return after


def test_other_weights_are_caught(reference: Reference, tmp_path: Path) -> None:
    other = make_model(tmp_path / "other", seed=1)
    ship(other, tmp_path / "out", Order(("gguf",), quantizations="f16", gated=False), print)
    (artifact,) = read_manifest(tmp_path / "out").artifacts
    done = gate(tmp_path / "out", artifact, PROMPTS, reference, CONTEXT)
    assert not done.passed
    assert (done.token_ids, done.text) == (1.0, 0.0)
    assert set(done.failed) >= {"text", "decomposition", "top1", "kl"}
    assert done.kl is not None
    assert done.kl > 0.1
    assert "'How many apples?': from character" in str(done.first_difference)


def test_an_artifact_that_does_not_load_fails(bundle: Path, reference: Reference, tmp_path: Path) -> None:
    sabotaged = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    artifact, _ = artifacts(bundle)
    path = sabotaged / artifact.path
    path.write_bytes(path.read_bytes()[:5000])
    done = gate(sabotaged, rewritten(sabotaged, artifact), PROMPTS, reference, CONTEXT)
    assert (done.passed, done.failed) == (False, ("runs",))
    assert str(done.first_difference).startswith(f"does not run: {artifact.path}: ")


def test_another_number_of_scores_is_not_compared(bundle: Path, reference: Reference) -> None:
    more = dataclasses.replace(reference, vocabulary=reference.vocabulary + 1)
    done = gate(bundle, artifacts(bundle)[0], PROMPTS, more, CONTEXT)
    assert (done.passed, done.failed) == (False, ("runs",))
    assert f"it scores {reference.vocabulary} tokens, the model {reference.vocabulary + 1}" in str(
        done.first_difference
    )


def test_a_file_of_scores_that_is_full_leaves_the_rest_uncompared(
    model: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.gate.observe.SCORES_BYTES", 1)
    heard: list[None] = []
    with reference_of(model, PROMPTS, CONTEXT, tmp_path, on_prompt=lambda: heard.append(None)) as made:
        assert [bool(observation.forced) for observation in made.prompts[:2]] == [True, False]
        assert [bool(observation.text) for observation in made.prompts[:2]] == [True, True]
        assert len(heard) == len(PROMPTS)
        done = gate(bundle, artifacts(bundle)[0], PROMPTS, made, CONTEXT)
    assert (done.passed, done.questions, done.scored) == (True, 2, 1)


def test_a_question_that_fills_the_context_is_named(model: Path, bundle: Path, reference: Reference) -> None:
    chat = read_chat_template(bundle)
    room = len(reference.prompts[0].ids)
    check_length(model, chat, PROMPTS[:1], room + 1)
    with pytest.raises(InputError, match=rf"'How many apples\?' it reads {room} tokens, all of its context of {room}"):
        check_length(model, chat, PROMPTS[:1], room)
    check_length(model, chat, PROMPTS[2:], 1)  # which are never answered


SPECIAL = SpecialIds(1, 2, (2, 9), adds_bos=True)
REPLY = "1. How many?\n2. How much?"


def observed(
    *changes: tuple[int, dict[str, Any]], special: SpecialIds = SPECIAL, template: str | None = "t"
) -> Observed:
    """Two questions and the odd strings as every run of one model gives them, but for `changes`, by number."""
    asked = Observation("r", (1, 2, 3), REPLY, (1, 2, 3, 4), 2, (4, 5), (1e-6, 3e-6), 1.0)
    rows = [asked, asked, *[Observation("r", (7,))] * len(ODD_STRINGS)]
    for k, change in changes:
        rows[k] = dataclasses.replace(rows[k], **change)
    return Observed(special, template, tuple(rows), "cpu")


def test_shares_and_figures() -> None:
    done = compare(PROMPTS, observed(), observed((1, {"top": (4, 6)})), LIMITS)
    assert done.passed
    assert (done.positions, done.top1, done.kl, done.kl_most) == (4, 0.75, pytest.approx(2e-6), 3e-6)
    assert "'Who paid 12?': at position 1 of the reply token 6 is the likeliest, the model's is 5" in str(
        done.first_difference
    )
    spaced = observed((0, {"text": "1. How many?\n2.  How much?"}))
    done = compare(PROMPTS, observed(), spaced, LIMITS)
    assert (done.text, done.decomposition, done.passed) == (0.5, 1.0, True)
    assert "from character 16" in str(done.first_difference)
    assert json.loads(json.dumps(dataclasses.asdict(done)))["limits"]["kl"] == 0.1
    assert compare(PROMPTS, observed(), observed(), LIMITS).first_difference is None


@pytest.mark.parametrize(
    ("got", "failed", "said"),
    [
        (observed((1, {"rendered": "rest"})), "rendered", "'Who paid 12?': from character 1 the rendered prompt"),
        (observed((1, {"ids": (1, 2, 3, 4)})), "token_ids", "'Who paid 12?': token 3 is 4, the model's is the end"),
        (observed((2, {"ids": (8,)})), "token_ids", "prompt '': token 0 is 8, the model's is 7"),
        (observed(special=dataclasses.replace(SPECIAL, eos=3)), "special_ids", "EOS is token 3, the model's is 2"),
        (observed(special=dataclasses.replace(SPECIAL, bos=3)), "special_ids", "BOS is token 3, the model's is 1"),
        (observed(special=dataclasses.replace(SPECIAL, ends=(2,))), "special_ids", "token 9 does not end a reply"),
        (observed(special=dataclasses.replace(SPECIAL, adds_bos=False)), "special_ids", "does not put BOS before"),
        (observed(template=None), "template", "it has no chat template, the model has one"),
        (observed((0, {"text": "x"}), (1, {"text": "x"})), "decomposition", "'How many apples?': from character 0"),
        (observed((0, {"top": (9, 9)}), (1, {"top": (4, 9)})), "top1", "position 0 of the reply token 9"),
        (observed((1, {"kl": (0.1, 0.9)})), "kl", "'Who paid 12?': at position 1 of the reply KL is 0.9 nats"),
        (observed((0, {"kl": (0.9, 0.0)}), (1, {"kl": (0.5, 0.5)})), "kl", "apples?': at position 0"),
        (observed((1, {"kl": (0.1, math.nan)})), "kl", "'Who paid 12?': at position 1 of the reply KL is nan"),
        (observed((0, {"kl": (math.inf, 0.1)})), "kl", "'How many apples?': at position 0 of the reply KL is inf"),
    ],
)
def test_what_fails_is_named_with_its_first_prompt_and_position(got: Observed, failed: str, said: str) -> None:
    done = compare(PROMPTS, observed(), got, LIMITS)
    assert not done.passed
    assert done.failed[0] == failed
    assert said in str(done.first_difference)
    json.dumps(dataclasses.asdict(done), allow_nan=False)


@pytest.mark.parametrize(
    ("lead", "failed"),
    [
        (NEAR_TIE, ()),
        (-NEAR_TIE, ()),
        (NEAR_TIE * 1.01, ("decomposition", "text")),
        (-3.0, ("decomposition", "text")),  # the model's text, tokenized anew, has a token that it did not choose
        (None, ("decomposition", "text")),
    ],
)
def test_a_reply_that_leaves_the_model_at_a_near_tie_does_not_count(
    lead: float | None, failed: tuple[str, ...]
) -> None:
    tied = {"text": "1. How much?", "parted": lead}
    done = compare(PROMPTS, observed(), observed((0, tied), (1, {"text": "1. Who?", "parted": 0.001})), LIMITS)
    assert (done.text, done.decomposition) == (0.0, 0.0)  # shown as it is
    strict = compare(PROMPTS, observed(), observed((0, tied)), THRESHOLDS["f16"])
    assert strict.failed == failed
    assert strict.near_ties == (not failed)
    assert done.passed
    assert done.near_ties == 1 + strict.near_ties


def test_what_counts_is_named_before_a_near_tie() -> None:
    got = observed((0, {"text": "1. How?", "parted": 0.001}), (1, {"text": "2", "parted": 0.5}))
    done = compare(PROMPTS, observed(), got, THRESHOLDS["f16"])
    assert "'Who paid 12?': from character 0" in str(done.first_difference)


@pytest.mark.parametrize(
    ("other", "lead"),
    [
        ((7, 1, 5, 3), 0.75),  # another first token of the reply
        ((7, 1, 2, 5), 3.0),  # another second one
        ((7, 1, 2), 1.0),  # its end, instead
        ((7, 1, 2, 3, 4), 0.5),  # and where the model ended: its likelier end token
        ((7, 6, 2, 3), None),  # other in the prompt
        ((7, 1, 2, 3), None),  # the same tokens
    ],
)
def test_how_far_the_model_preferred_its_own_token(other: tuple[int, ...], lead: float | None) -> None:
    expected = Observation("r", (7, 1), "said", (7, 1, 2, 3), start=1)
    scores = np.zeros((3, 9), np.float32)  # behind the prompt, and behind each token of the reply
    scores[0, [2, 5]] = 2, 1.25
    scores[1, [3, 5, 0, 8]] = 4, 1, 3, 2
    scores[2, [4, 0, 8]] = 5, 5.5, 2
    assert _lead(scores, expected, other, ends=[0, 8]) == lead
    assert _lead(scores, expected, other, ends=[]) is None  # where nothing is known to end a reply


def test_a_reply_that_is_another_says_where_it_parted(bundle: Path, reference: Reference, tmp_path: Path) -> None:
    """The reference is told to have ended at once; by its scores it would have gone on."""
    cut = [dataclasses.replace(p, text="", forced=p.ids) if p.forced else p for p in reference.prompts]
    rows = np.fromfile(reference.scores, np.float32).reshape(-1, reference.vocabulary)
    firsts = np.cumsum([0, *(len(p.forced) - p.start for p in reference.prompts if p.forced)])[:-1]
    (tmp_path / "scores").write_bytes(rows[firsts].tobytes())
    told = dataclasses.replace(reference, prompts=tuple(cut), scores=tmp_path / "scores")
    gguf, _ = artifacts(bundle)
    made = observe(bundle, gguf, PROMPTS, told, CONTEXT).prompts[: len(QUESTIONS)]
    for row, observation in zip(rows[firsts], made, strict=True):
        assert observation.parted == pytest.approx(row[list(reference.special_ids.ends)].max() - row.max(), abs=1e-3)


def test_an_engine_may_know_more_end_tokens_and_have_a_bos_it_never_uses() -> None:
    model = SpecialIds(None, 2, (2,), adds_bos=False)
    assert model.difference(SpecialIds(11, 2, (0, 2), adds_bos=False)) is None
    nameless = dataclasses.replace(model, eos=None)  # its config alone says what ends a reply
    assert nameless.difference(SpecialIds(11, 2, (2,), adds_bos=False)) is None
    assert "token 2 does not end" in str(nameless.difference(SpecialIds(11, 3, (3,), adds_bos=False)))


def test_two_replies_that_cannot_be_parsed_are_not_the_same() -> None:
    one, two = (observed((0, {"text": text}), (1, {"text": text})) for text in ("@@ x", "%% y"))
    assert compare(PROMPTS, one, two, LIMITS).decomposition == 0.0


def test_where_nothing_was_compared_nothing_is_proved() -> None:
    bare = observed(*((k, {"forced": (), "top": (), "kl": ()}) for k in range(len(QUESTIONS))))
    done = compare(PROMPTS, bare, bare, LIMITS)
    assert (done.passed, done.failed) == (False, ("top1", "kl"))
    assert (done.scored, done.positions, done.top1, done.kl, done.kl_most) == (0, 0, 0.0, None, None)
    assert done.first_difference == "no position could be compared"


def test_the_smoke_prompt_is_an_equal_one_that_hangs_least_on_rounding() -> None:
    done = compare(PROMPTS, observed(), observed((1, {"margin": 2.0})), LIMITS)
    assert done.smoke is not None
    assert done.smoke.messages == QUESTIONS[1].messages
    done = compare(PROMPTS, observed(), observed((1, {"margin": 2.0, "text": "x"})), LIMITS)
    assert done.smoke is not None
    assert (done.smoke.messages, done.smoke.text) == (QUESTIONS[0].messages, REPLY)
    done = compare(PROMPTS, observed(), observed((0, {"text": "y"}), (1, {"margin": 2.0, "text": "x"})), LIMITS)
    assert done.smoke is not None
    assert done.smoke.text == "x"  # where none is equal


def test_a_trained_model_passes_in_every_form(model_folder: Path, tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"question": p.question}) + "\n" for p in problems("train", 6)), "utf-8")
    order = Order(("gguf", "onnx"), quantizations="f16,q8_0", prompts=questions)
    manifest, made = ship(model_folder, tmp_path / "out", order, print)
    assert [(a.quantization, a.passed, a.gate["text"], a.gate["top1"]) for a in made] == [
        ("f16", True, 1.0, 1.0),
        ("q8_0", True, 1.0, 1.0),
        ("fp32", True, 1.0, 1.0),
    ]
    assert made[0].gate["kl"] < 1e-6
    # json has lists where the objects have tuples
    assert read_manifest(tmp_path / "out") == dataclasses.replace(
        manifest,
        artifacts=tuple(dataclasses.replace(a, gate=json.loads(json.dumps(a.gate))) for a in manifest.artifacts),
    )
    assert manifest.prompt_style == "compact-1"
    assert not [path for path in (tmp_path / "out").rglob("*") if ".scores." in path.name]


def test_a_failed_artifact_exits_3_and_is_kept_and_marked(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A random model's replies hang on every bit, so two bits a weight change them."""
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"question": "How many apples does Tom have?"}\n')
    with pytest.raises(SystemExit) as ended:
        main(["export", "--quantization", "q2_k", "--prompts", str(questions), str(model), str(tmp_path / "out")])
    assert ended.value.code == 3
    said = capsys.readouterr()
    assert said.err.splitlines()[-1].startswith("edgedc: not equal enough")
    assert "'How many apples does Tom have?': from character" in said.err
    assert " NO" in said.out
    (artifact,) = read_manifest(tmp_path / "out").artifacts
    assert artifact.passed is False
    assert (tmp_path / "out" / artifact.path).is_file()


def test_what_a_small_type_would_forgive_its_f16_does_not(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake of a converter, milder than what a small type may round off."""
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"question": p.question}) + "\n" for p in problems("train", 6)), "utf-8")
    order = Order(("gguf",), quantizations="q4_0", prompts=questions)
    _, (sound,) = ship(model_folder, tmp_path / "sound", order, print)
    assert sound.passed
    assert sound.details["source"]["passed"]
    assert sound.details["source"]["kl"] < 1e-6 < sound.gate["kl"]
    assert [path.name for path in (tmp_path / "sound").glob("*.gguf")] == [sound.path]  # its f16 was no part of it

    right = Weights.to_gguf

    def wrong(self: Weights, out: Path, kind: Any) -> None:
        weights = load_file(self.model / "model.safetensors")
        folder = Path(shutil.copytree(self.model, tmp_path / "wrong"))
        weights |= {name: (values * 1.15).astype(values.dtype) for name, values in weights.items() if values.ndim == 1}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        right(dataclasses.replace(self, model=folder), out, kind)

    monkeypatch.setattr(Weights, "to_gguf", wrong)
    _, (broken,) = ship(model_folder, tmp_path / "broken", order, print)
    assert not broken.passed
    assert broken.gate["failed"] == ("source",)  # none of its own
    assert broken.gate["first_difference"].startswith("the f16 that it is made from: prompt ")
    assert read_manifest(tmp_path / "broken").artifacts[0].passed is False


def test_every_type_has_thresholds_that_fall_with_its_bits() -> None:
    assert {*TYPES, *PRECISIONS} <= set(THRESHOLDS)
    order = [THRESHOLDS[name] for name in ("f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m", "q2_k")]
    for tight, loose in itertools.pairwise(order):
        assert (tight.text, tight.decomposition, tight.top1) > (loose.text, loose.decomposition, loose.top1)
        assert tight.kl < loose.kl


def test_limits_stand_between_what_sound_and_what_broken_exports_measured() -> None:
    """Of really trained models, by benchmarks/gate_limits.py; a broken one is caught by figures, not only by eye."""
    measured = json.loads(
        (Path(__file__).parents[1] / "benchmarks" / "results" / "gate_limits.json").read_text("utf-8")
    )
    assert {row["type"] for row in measured["sound"]} >= {*TYPES, "fp32", "int8", "int4"}
    for row in measured["sound"]:
        limits = THRESHOLDS[row["type"]]
        assert 2 * row["kl"] <= limits.kl, row
        for name in ("text", "decomposition", "top1"):
            assert 1 - row[name] <= 0.75 * (1 - getattr(limits, name)), (name, row)
    assert {THRESHOLDS[row["type"]] for row in measured["broken"]} == {THRESHOLDS[name] for name in TYPES}
    for row in measured["broken"]:
        limits = THRESHOLDS[row["type"]]
        shares = any(row[name] < getattr(limits, name) for name in ("text", "decomposition", "top1"))
        assert shares or row["kl"] is None or row["kl"] > limits.kl, row


def _abort() -> Iterator[int]:
    os.write(2, b"ggml.c: something is wrong\n")
    yield 1
    os.abort()


def _bug() -> Iterator[int]:
    yield from [][1]


def test_an_abort_is_an_error_line_that_names_a_log() -> None:
    items = in_child("running it", _abort)
    assert next(items) == 1
    with pytest.raises(EdgedcError, match=r"running it: killed by SIGABRT after 'ggml.c: something") as caught:
        next(items)
    Path(str(caught.value).rpartition(" ")[2]).unlink()


def test_a_bug_in_a_child_keeps_its_traceback_in_the_log() -> None:
    with pytest.raises(EdgedcError, match="running it: IndexError") as caught:
        list(in_child("running it", _bug))
    log = Path(str(caught.value).rpartition(" ")[2])
    assert "yield from [][1]" in log.read_text("utf-8")
    log.unlink()
