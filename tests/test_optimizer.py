"""Muon for the matrices of the layers and AdamW for the rest, as one optimizer."""

import dataclasses

import pytest
import torch
from conftest import demonstrations, write_rows
from torch.optim.lr_scheduler import LambdaLR

from edgedc.errors import InputError
from train.fitting.optimizer import muon
from train.fitting.scratch import make_model, make_tokenizer
from train.fitting.sft import train
from train.settings import TrainSettings

NANO = TrainSettings(from_scratch="nano", vocabulary=512, batch_size=4, precision="float32", threads=1)


@pytest.fixture
def model():
    return make_model(make_tokenizer(["How many?"], 512), "nano", 0)


def _step(model, optimizer):
    ids = torch.arange(40).reshape(2, 20)
    optimizer.zero_grad()
    model(ids, labels=ids).loss.backward()
    optimizer.step()


def test_each_weight_is_in_one_part_and_a_schedule_reaches_both(model):
    optimizer = muon(model, 0.01, 0.0, 0.98)
    of_muon, of_adamw = ({id(p) for group in part.param_groups for p in group["params"]} for part in optimizer.parts)
    names = {id(p): name for name, p in model.named_parameters()}
    assert of_muon | of_adamw == names.keys()
    assert not of_muon & of_adamw
    assert all(".layers." in names[one] and "norm" not in names[one] for one in of_muon)
    assert {names[one] for one in of_adamw} >= {"model.embed_tokens.weight", "model.norm.weight"}
    before = {name: p.clone() for name, p in model.named_parameters()}
    schedule = LambdaLR(optimizer, lambda step: 0.0 if step else 1.0)
    _step(model, optimizer)
    assert all(not p.equal(before[name]) for name, p in model.named_parameters())
    schedule.step()
    after = {name: p.clone() for name, p in model.named_parameters()}
    _step(model, optimizer)
    assert all(p.equal(after[name]) for name, p in model.named_parameters())


def test_a_step_on_a_matrix_is_orthogonal(model):
    """What makes it Muon: all directions of a matrix move alike, however unlike its gradients are."""
    weight = model.model.layers[0].mlp.gate_proj.weight
    before = weight.clone()
    _step(model, muon(model, 0.01, 0.0, 0.98))
    moved = torch.linalg.svdvals((weight - before).detach())
    slope = torch.linalg.svdvals(weight.grad)
    alike = [int((values > 0.5 * values[0]).sum()) for values in (moved, slope)]
    assert alike[0] > 3 * alike[1], alike


def test_it_is_refused_for_adapters_before_anything_is_trained(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", demonstrations(4))
    with pytest.raises(InputError, match="--optimizer muon is for whole matrices"):
        train(rows, tmp_path / "out", dataclasses.replace(NANO, optimizer="muon", from_scratch=None), print)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_from_scratch_it_needs_fewer_steps(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", demonstrations(80))
    last = {}
    for name in ("adamw", "muon"):
        settings = dataclasses.replace(NANO, optimizer=name, max_steps=40)
        last[name] = train(rows, tmp_path / name, settings, lambda progress: None).losses[-1][1]
    assert last["muon"] < 0.95 * last["adamw"], last
