"""Rows side by side or in one sequence: the same logits, losses and gradients as each row alone."""

import random

import pytest
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPTBigCodeConfig,
    GPTBigCodeForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from edgedc.errors import InputError
from train.fitting.data import IGNORED, Encoded
from train.fitting.packing import Batches, batches_of, check_packing, completion_loss, packed, padded
from train.fitting.scratch import make_model, make_tokenizer

LAYOUTS = {
    "padded": padded,
    "packed": lambda rows, pad: packed(rows, pad, one_sequence=False),
    "one sequence": lambda rows, pad: packed(rows, pad, one_sequence=True),
}


@pytest.fixture(scope="module")
def rows():
    rng = random.Random(0)
    return [
        Encoded([rng.randrange(10, 500) for _ in range(n)], max(1, n // 2))
        for n in (5, 17, 30, 31, 12, 2, 40, 300, 290)
    ]


def _llama():
    return make_model(make_tokenizer(["How many pens?"] * 5, 512), "nano", seed=0).eval()


def _gemma():
    """Its layers look back at most 8 tokens, in turn with ones that look at all."""
    torch.manual_seed(0)
    size = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 6, "head_dim": 16}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 8}
    return Gemma3ForCausalLM(Gemma3TextConfig(**size, **heads)).eval()


@pytest.fixture(scope="module", params=[_llama, _gemma], ids=["llama", "gemma3"])
def model(request):
    return request.param()


def _learnt(model, batch):
    """The loss of a batch, and the gradient of every weight."""
    model.zero_grad()
    loss = completion_loss(model, batch, model.get_output_embeddings())
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_row_learns_among_others_what_it_learns_alone(model, rows, layout):
    alone = [_learnt(model, padded([row], 0)) for row in rows]
    loss, gradients = _learnt(model, LAYOUTS[layout](rows, 0))
    assert loss == pytest.approx(sum(loss for loss, _ in alone), rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, sum(g[name] for _, g in alone), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("layout", ["packed", "one sequence"])
def test_logits_of_packed_rows_are_those_of_the_rows_alone(model, rows, layout):
    batch = LAYOUTS[layout](rows, 0)
    with torch.no_grad():
        made = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
        starts = (batch["position_ids"] == 0).nonzero().tolist()
        found = 0
        for line, start in starts:
            row = next(
                (r for r in rows if batch["input_ids"][line, start : start + len(r.ids)].tolist() == r.ids), None
            )
            if row is None:
                continue  # the padding
            found += 1
            alone = model(input_ids=torch.tensor([row.ids])).logits[0]
            torch.testing.assert_close(made[line, start : start + len(row.ids)], alone, atol=1e-5, rtol=1e-5)
    assert found == len(rows)


def test_the_loss_is_that_of_transformers_on_the_labels(rows):
    model = _llama()
    with torch.no_grad():
        alone = [model(input_ids=torch.tensor([r.ids]), labels=torch.tensor([r.labels])).loss.item() for r in rows]
        loss = completion_loss(model, padded(rows, 0), model.get_output_embeddings()).item()
    assert loss == pytest.approx(sum(a * (len(r.ids) - r.prompt) for a, r in zip(alone, rows, strict=True)), rel=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_completions_have_labels_in_every_layout(rows, layout):
    batch = LAYOUTS[layout](rows, 7)
    labels, ids = batch["labels"].flatten(), batch["input_ids"].flatten()
    learnt = labels[labels != IGNORED].tolist()
    assert sorted(learnt) == sorted(token for row in rows for token in row.ids[row.prompt :])
    assert labels[batch["where"] + 1].tolist() == learnt
    assert (ids[labels != IGNORED] == labels[labels != IGNORED]).all()
    assert batch["input_ids"].shape[1] % 8 == 0
    assert batch["input_ids"].shape == {"padded": (9, 304), "packed": (2, 440), "one sequence": (1, 728)}[layout]


def test_rows_are_packed_into_few_sequences_of_one_length():
    rows = [Encoded([7] * n, 1) for n in (300, 200, 290, 250, 100, 90, 600)]
    batch = packed(rows, 0, one_sequence=False)
    assert batch["input_ids"].shape == (4, 600)  # 600; 300 + 290; 250 + 200 + 100; 90
    assert (batch["position_ids"] == 0).sum() == len(rows) + 3  # three sequences end in padding


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_empty_part_teaches_nothing(layout):
    loss, gradients = _learnt(_llama(), LAYOUTS[layout]([], 0))
    assert loss == 0
    assert all((gradient == 0).all() for gradient in gradients.values())


def test_a_step_has_the_same_rows_however_they_are_dealt():
    lengths = [random.Random(k).randrange(5, 50) for k in range(21)]  # 8 a step, and 5 at the end of a pass
    steps = [sorted(rows) for rows in Batches(lengths, 8, 7, seed=3)]
    assert [len(rows) for rows in steps] == [8, 8, 5, 8, 8, 5, 8]
    assert sorted(steps[0] + steps[1] + steps[2]) == list(range(21))
    assert steps[:3] != steps[3:6]
    for accumulation, processes in ((2, 1), (1, 2), (4, 2), (8, 1)):
        dealt = [list(Batches(lengths, 8, 7, 3, accumulation, processes, k)) for k in range(processes)]
        assert all(len(parts) == 7 * accumulation for parts in dealt)
        for step, rows in enumerate(steps):
            parts = [p for each in dealt for p in each[step * accumulation : (step + 1) * accumulation]]
            assert sorted(row for part in parts for row in part) == rows
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_batches_hold_rows_of_like_length_in_an_order_without_drift():
    lengths = [10] * 40 + [100] * 81
    batches = batches_of(lengths, 8, random.Random(0))
    assert sorted(row for rows in batches for row in rows) == list(range(121))
    assert batches == batches_of(lengths, 8, random.Random(0))
    assert batches != batches_of(lengths, 8, random.Random(1))
    mixed = [len({lengths[row] for row in rows}) > 1 for rows in batches[:-1]]
    assert sum(mixed) <= 1  # these lengths lie too far apart to be mixed
    firsts = [lengths[rows[0]] for rows in batches[:-1]]
    assert firsts not in (sorted(firsts), sorted(firsts, reverse=True))


def test_lengths_that_are_nearly_alike_share_batches():
    lengths = list(range(50, 70)) * 8
    batches = [[lengths[row] for row in rows] for rows in batches_of(lengths, 8, random.Random(0))]
    assert sum(max(batch) - min(batch) for batch in batches) / len(batches) > 5


def test_packing_is_refused_for_a_model_whose_rows_would_see_each_other(model):
    check_packing(model, "cpu")
    size = {"vocab_size": 512, "hidden_size": 64, "word_embed_proj_dim": 64, "ffn_dim": 128, "num_hidden_layers": 2}
    torch.manual_seed(0)
    with pytest.raises(InputError, match="--packing: in a model of the type opt rows of one sequence see each other"):
        check_packing(OPTForCausalLM(OPTConfig(**size, num_attention_heads=4)), "cpu")


def _by_positions(module, query, key, value, mask, position_ids=None, **given):
    """What transformers makes of a sequence with FlashAttention: rows part where positions start anew, if it has them.

    So it is of one sequence alone, as with FlashAttention, and needs no GPU.
    """
    parted = (
        torch.zeros(query.shape[2])
        if position_ids is None or len(query) > 1
        else position_ids[0].diff(prepend=position_ids[0, :1]) < 0
    )
    row = parted.cumsum(0)
    mask = (row[:, None] == row[None]).tril()[None, None]
    return sdpa_attention_forward(module, query, key, value, mask, **given)


def test_with_flash_attention_a_model_is_looked_at_too(model, monkeypatch):
    """GPT-BigCode tells its masks of the positions, and not FlashAttention, which has no mask."""
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "flash_by_positions", _by_positions)
    size = {"vocab_size": 512, "n_embd": 64, "n_layer": 2, "n_head": 4, "attn_implementation": "sdpa"}
    torch.manual_seed(0)
    other = GPTBigCodeForCausalLM(GPTBigCodeConfig(**size))
    check_packing(other, "cpu")
    other.config._attn_implementation = "flash_by_positions"
    with pytest.raises(InputError, match="--packing: in a model of the type gpt_bigcode rows of one sequence see"):
        check_packing(other, "cpu")
    before = model.config._attn_implementation
    model.config._attn_implementation = "flash_by_positions"
    try:
        check_packing(model, "cpu")
    finally:
        model.config._attn_implementation = before
