"""A student is kept from going on like an earlier subquestion: which tokens that concerns, and that it helps."""

import dataclasses

import pytest
import torch
from conftest import demonstrations, write_rows

from edgedc.errors import InputError
from train.fitting.base import load_base
from train.fitting.data import IGNORED, Encoded, encode
from train.fitting.packing import completion_loss, packed, padded
from train.fitting.scratch import make_model, make_tokenizer
from train.fitting.sft import train
from train.sets.pairs import Pair
from train.settings import TrainSettings

ASKED = ("How many pens are red?", "How many pens are blue?", "How many cups?", "What is it?", "How many pens are red?")
LIST = "\n".join(f"{number}. {text}" for number, text in enumerate(ASKED, start=1))
NANO = TrainSettings(from_scratch="nano", vocabulary=512, batch_size=4, precision="float32", threads=1)


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer([LIST] * 50, 512)


def _encoded(tokenizer, completion: str) -> Encoded:
    pair = Pair("1", "", "", [{"role": "user", "content": "Break down.\nQuestion: How many?"}], completion)
    (row,), _ = encode("rows.jsonl", [pair], tokenizer, 512, unwanted=True)
    return row


def _said(tokenizer, row: Encoded) -> list[tuple[str, str]]:
    """(what stands there, what must not), in order."""
    both = zip(row.ids, row.unwanted, strict=True)
    return [(tokenizer.decode([is_]).strip(), tokenizer.decode([no]).strip()) for is_, no in both if no != IGNORED]


def test_it_is_the_token_by_which_an_earlier_subquestion_went_on(tokenizer):
    row = _encoded(tokenizer, LIST)
    assert len(row.unwanted) == len(row.ids)
    assert _said(tokenizer, row) == [("blue", "red"), ("cups", "pens"), ("pens", "cups"), ("red", "blue")]
    assert set(row.unwanted[: row.prompt]) == {IGNORED}


@pytest.mark.parametrize("completion", ["No decomposition", "1. How many pens?", "1. How?\n2. What?\n3. Who?"])
def test_where_nothing_begins_alike_nothing_is_unwanted(tokenizer, completion):
    assert set(_encoded(tokenizer, completion).unwanted) == {IGNORED}


def test_the_loss_grows_by_what_is_stated_however_the_rows_lie(tokenizer):
    model = make_model(tokenizer, "nano", 0).eval()
    rows = [_encoded(tokenizer, LIST), _encoded(tokenizer, "No decomposition"), _encoded(tokenizer, LIST[:53])]
    head, pad = model.get_output_embeddings(), tokenizer.pad_token_id
    plain, more = (completion_loss(model, padded(rows, pad), head, weight).item() for weight in (0.0, 2.0))
    expected = 0.0
    for row in rows:
        chances = model(torch.tensor([row.ids])).logits[0].softmax(-1)
        expected += sum(-torch.log1p(-chances[k - 1, no]).item() for k, no in enumerate(row.unwanted) if no != IGNORED)
    assert expected > 0
    assert more - plain == pytest.approx(2 * expected, rel=1e-3)
    assert completion_loss(model, packed(rows, pad, one_sequence=False), head, 2.0).item() == pytest.approx(more, 1e-4)


def test_training_with_it_makes_repeating_less_likely(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", demonstrations(80))
    chance = {}
    for weight in (0.0, 1.0):
        out = tmp_path / str(weight)
        train(rows, out, dataclasses.replace(NANO, max_steps=60, unlikelihood=weight), lambda progress: None)
        tokenizer, model = load_base(str(out))
        row = _encoded(
            tokenizer, "1. How many pens does Ann buy?\n2. How much does Ann pay?\n3. How many pens are left?"
        )
        chances = model(torch.tensor([row.ids])).logits[0].softmax(-1)
        places = [k for k, no in enumerate(row.unwanted) if no != IGNORED]
        assert places
        chance[weight] = sum(chances[k - 1, row.unwanted[k]].item() for k in places)
    assert chance[1.0] < chance[0.0], chance


def test_a_negative_weight_is_refused(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", demonstrations(4))
    with pytest.raises(InputError, match="--unlikelihood -1"):
        train(rows, tmp_path / "out", dataclasses.replace(NANO, unlikelihood=-1.0), print)
