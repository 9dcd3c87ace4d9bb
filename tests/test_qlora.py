"""An adapter over a base in 4 bits: trained, measured, resumed and merged, on a CPU as on a GPU."""

import dataclasses
import shutil
from importlib.util import find_spec

import pytest
import torch
from conftest import demonstrations, write_rows
from safetensors.torch import load_file

from edgedc.backends import open_backend
from edgedc.bundle import read_manifest
from edgedc.decomposition import parse
from edgedc.errors import EdgedcError, InputError, MissingExtra
from edgedc.prompts import decompose_messages
from export.model.adapter import with_adapter as with_lora
from export.model.weights import open_weights
from train.fitting.base import load_base, with_adapter
from train.fitting.sft import train
from train.merge import merge
from train.settings import MergeSettings, TrainSettings

QLORA = TrainSettings(tuning="qlora", max_steps=6, batch_size=2, learning_rate=1e-2, checkpoint_every=1, threads=1)


@pytest.fixture
def rows(tmp_path):
    return write_rows(tmp_path / "rows.jsonl", demonstrations(12)[6:])


def settings(model_folder, **changes):
    return dataclasses.replace(QLORA, base=str(model_folder), **changes)


def test_without_bitsandbytes_or_a_base_it_is_refused(model_folder, rows, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "bitsandbytes" else find_spec(name))
    with pytest.raises(MissingExtra, match=r"bitsandbytes is not installed.*edgedc\[qlora\]"):
        train(rows, tmp_path / "out", settings(model_folder), print)
    with pytest.raises(InputError, match="no base to hold in 4 bits with --from-scratch"):
        train(rows, tmp_path / "out", settings(model_folder, from_scratch="nano"), print)
    assert list(tmp_path.iterdir()) == [rows]


@pytest.fixture
def bitsandbytes():
    return pytest.importorskip("bitsandbytes", reason="the extra `qlora` is not installed")


def test_measuring_between_two_steps_changes_no_gradient(bitsandbytes, model_folder):
    """Of itself, bitsandbytes then lays weights out in a way that passes on none, on a CPU with AVX-512 BF16."""
    tokenizer, base = load_base(str(model_folder), dtype=torch.float32, quantised=True)
    model = with_adapter(base, settings(model_folder))
    in_four_bits = [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    assert len(in_four_bits) == 2 * 7  # of two layers, and not the embedding
    assert all(module.weight.dtype == torch.uint8 for module in in_four_bits)
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert all("lora_" in name for name in trained)
    ids = torch.tensor([tokenizer("How many pens are there?")["input_ids"]]).to(base.device)

    def gradients():
        model.train()
        model.zero_grad()
        loss = model(ids, labels=ids).loss
        loss.backward()
        return loss.item(), {name: weight.grad.clone() for name, weight in trained.items()}

    loss, before = gradients()
    model.eval()
    with torch.no_grad():
        assert model(ids, labels=ids).loss.item() == pytest.approx(loss, rel=1e-5)
    again, after = gradients()
    assert again == loss
    assert all(after[name].equal(before[name]) for name in trained)
    assert all(weight.abs().max() > 0 for name, weight in after.items() if "lora_B" in name)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_killed_run_that_is_measured_goes_on_to_the_same_weights(
    bitsandbytes, model_folder, rows, tmp_path, precision
):
    chosen = settings(
        model_folder, precision=precision, validation=2, validation_every=2, validation_questions=1, lora_dropout=0.1
    )
    whole = train(rows, tmp_path / "whole", chosen, print)
    assert whole.losses[-1][1] < whole.losses[0][1] * 0.8

    def killed(progress):
        if progress.step == 3:
            raise EdgedcError("killed")

    with pytest.raises(EdgedcError, match="killed"):
        train(rows, tmp_path / "out", chosen, killed)
    again = train(rows, tmp_path / "out", chosen, print)
    assert again.losses == whole.losses
    (mine, theirs) = (load_file(run.folder / "adapter_model.safetensors") for run in (again, whole))
    assert mine.keys() == theirs.keys()
    assert all(weight.equal(theirs[name]) for name, weight in mine.items())


def test_merged_it_decomposes_as_it_was_taught(bitsandbytes, model_folder, tmp_path):
    data = write_rows(tmp_path / "rows.jsonl", taught := demonstrations(8)[6:])
    adapter = train(data, tmp_path / "adapter", settings(model_folder, max_steps=100, checkpoint_every=500), print)
    with pytest.raises(InputError, match=r"was trained over its base in 4 bits.* edgedc merge"):
        with_lora(open_weights(model_folder), adapter.folder, tied=True)  # over the whole base it is another model
    merged = merge(adapter.folder, tmp_path / "merged", MergeSettings(prompts=str(data)))
    whole = read_manifest(merged).parameters
    assert read_manifest(adapter.folder).parameters == whole + adapter.trained_parameters  # not what 4 bits take
    told = read_manifest(merged).recipe["merge"]
    assert told["onto"] == "dequantised base"
    assert told["tried"]["dequantised base"]["kl"] < told["tried"]["base"]["kl"]
    shutil.rmtree(adapter.folder)  # what was merged stands alone
    manifest, backend = open_backend(merged)
    for row in taught:
        said = backend.generate(
            decompose_messages(row["question"], style=manifest.prompt_style, cap=manifest.max_subquestions),
            max_tokens=200,
        )
        assert parse(said.text).texts == row["subquestions"]
    backend.close()
