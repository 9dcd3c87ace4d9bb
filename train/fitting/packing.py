"""Which rows make up a step, and how they lie in a tensor: side by side and padded, or several in one sequence."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
from torch.nn.functional import cross_entropy, pad
from torch.utils.data import Sampler

from edgedc.errors import InputError

from .data import IGNORED, Encoded

# Kernels are made or tuned anew for every shape they meet; with steps there are few.
_STEP = 8
_LABELS_TO = 64
# Tokens of a sequence that rows are packed into. Attention works out what one row sees of another too, and leaves it
# out afterwards: at 1024 that costs more than the padding did.
_ROOM = 512

Batch = dict[str, torch.Tensor]


class Batches(Sampler[list[int]]):
    """The rows of every part of every step of a run, in order; passes over the data follow one another.

    Every step has `batch_size` rows, fewer at the end of a pass. They are dealt to `parts` (accumulation x processes)
    parts, of which this process gets every `processes`-th from `process` on: so a step is the same rows however they
    are dealt. A part may be empty. The same order for the same seed.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        steps: int,
        seed: int,
        accumulation: int = 1,
        processes: int = 1,
        process: int = 0,
    ) -> None:
        self.lengths, self.batch_size, self.steps, self.seed = lengths, batch_size, steps, seed
        self.accumulation, self.processes, self.process = accumulation, processes, process

    def __len__(self) -> int:
        return self.steps * self.accumulation

    def __iter__(self) -> Iterator[list[int]]:
        parts = self.accumulation * self.processes
        left = self.steps
        for epoch in count():
            for rows in batches_of(self.lengths, self.batch_size, random.Random(f"{self.seed} {epoch}")):
                if not left:
                    return
                left -= 1
                dealt = [rows[k * len(rows) // parts : (k + 1) * len(rows) // parts] for k in range(parts)]
                yield from dealt[self.process :: self.processes]


def batches_of(lengths: Sequence[int], batch_size: int, rng: random.Random) -> list[list[int]]:
    """One pass over the rows, in batches that hold rows of roughly the same length and come in random order.

    Rows of one length are often of one kind: the shortest ones have the shortest replies. Batches sorted to the token
    would each teach one kind, and a run of them, long to short, would teach and unteach it; so lengths count only
    roughly (a fifth more padding), and neighbours have nothing in common. The batch that is not full comes last.
    """
    rows = rng.sample(range(len(lengths)), len(lengths))
    whole = len(rows) - len(rows) % batch_size
    rough = sorted(rows[:whole], key=lambda row: lengths[row] * rng.uniform(0.75, 1.25))
    batches = [rough[at : at + batch_size] for at in range(0, whole, batch_size)]
    rng.shuffle(batches)
    return batches + ([rows[whole:]] if rows[whole:] else [])


def padded(rows: Sequence[Encoded], pad: int) -> Batch:
    """One row a sequence, padded on the right: `input_ids`, `labels` and `attention_mask`, each (rows, tokens).

    The mask hides nothing: padding stands behind a row, where none of its tokens looks, and without a mask attention
    takes its fast path. `where` (labels) are the places, in the flattened batch, whose next token is to be learnt.
    """
    batch = _laid_out([[row] for row in rows] or [[]], pad)
    del batch["position_ids"]
    return batch | {"attention_mask": torch.ones_like(batch["input_ids"])}


def packed(rows: Sequence[Encoded], pad: int, *, one_sequence: bool) -> Batch:
    """Several rows a sequence: `input_ids`, `labels`, `position_ids`, each (sequences, tokens).

    Positions start anew with every row, and with the padding at the end; from that, and from there being no mask,
    attention knows that a row sees itself alone (transformers' masking_utils, and FlashAttention, for which all rows
    lie in one sequence). `where` as in `padded`.
    """
    longest = max([_ROOM, *(len(row.ids) for row in rows)])
    bins: list[list[Encoded]] = []
    for row in sorted(rows, key=lambda row: -len(row.ids)):
        fits = (b for b in bins if one_sequence or sum(len(r.ids) for r in b) + len(row.ids) <= longest)
        chosen = next(fits, None)
        if chosen is None:
            bins.append([row])
        else:
            chosen.append(row)
    return _laid_out(bins or [[]], pad)


@torch.no_grad()
def check_packing(model: Any, device: str) -> None:
    """Raises InputError for a model in which a row sees what another one in its sequence says.

    Many of transformers' models take no notice of positions that start anew, and say nothing of it; some do so with
    FlashAttention alone, which runs on a GPU: the model is then moved to `device`. A row's scores behind two different
    rows are the same to the last bit where it sees neither, and differ by a fiftieth and more of their spread where it
    does.
    """
    flash = model.config._attn_implementation.startswith("flash")
    if flash and model.device.type != torch.device(device).type:
        model.to(device)
    model.eval()
    row = list(range(3, 11))
    positions = torch.arange(len(row), device=model.device).repeat(1, 2)
    scores = []
    for first in (1, 2):  # each alone, as FlashAttention goes by the positions of one sequence only
        ids = torch.tensor([[first] * len(row) + row], device=model.device)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=flash):
            made = model(input_ids=ids, position_ids=positions, use_cache=False).logits
        scores.append(made[0, len(row) :].float())
    if (scores[0] - scores[1]).abs().max() > 0.005 * scores[0].std():
        raise InputError(
            f"--packing: in a model of the type {model.config.model_type} rows of one sequence see each other: leave "
            "the flag out"
        )


def _laid_out(sequences: Sequence[Sequence[Encoded]], pad: int) -> Batch:
    longest = max(1, *(sum(len(row.ids) for row in rows) for rows in sequences))
    width = -(-longest // _STEP) * _STEP

    def tensor(of: Callable[[Encoded], Sequence[int]], fill: Callable[[int], Sequence[int]]) -> torch.Tensor:
        lines = [[value for row in rows for value in of(row)] for rows in sequences]
        return torch.tensor([[*line, *fill(width - len(line))] for line in lines])

    labels = tensor(lambda row: row.labels, lambda n: [IGNORED] * n)
    batch = {
        "input_ids": tensor(lambda row: row.ids, lambda n: [pad] * n),
        "labels": labels,
        "position_ids": tensor(lambda row: range(len(row.ids)), lambda n: range(n)),
        "where": (labels[:, 1:] != IGNORED).nonzero() @ torch.tensor([width, 1]),
    }
    if any(row.unwanted for rows in sequences for row in rows):
        batch["unwanted"] = tensor(lambda row: row.unwanted or [IGNORED] * len(row.ids), lambda n: [IGNORED] * n)
    return batch


def completion_loss(model: Any, batch: Batch, head: torch.nn.Module, unlikelihood: float = 0.0) -> torch.Tensor:
    """Cross entropy summed over the labelled tokens of a batch.

    To it comes -log(1 - p) of each unwanted token, times `unlikelihood` (Welleck et al. 2019, arXiv 1908.04319).

    `head` is the model's output layer, which is applied where a label follows and nowhere else: with a vocabulary of
    150,000 it is much of a small model's work, and most of its memory.
    """
    batch = dict(batch)
    labels, where, unwanted = batch.pop("labels").flatten(), batch.pop("where"), batch.pop("unwanted", None)
    # In steps, as the rows are padded: a CPU keeps a kernel for every number of rows that it has multiplied.
    room = -len(where) % _LABELS_TO
    with _only_at(pad(where, (0, room)), head):
        scores = model(**batch, use_cache=False).logits
    wanted = pad(labels[where + 1], (0, room), value=IGNORED)
    loss = cross_entropy(scores[0].float(), wanted, ignore_index=IGNORED, reduction="sum")
    if unwanted is None or not unlikelihood:
        return loss
    avoided = unwanted.flatten()[where + 1]
    (places,) = (avoided != IGNORED).nonzero(as_tuple=True)
    chance = scores[0][places].float().softmax(-1).gather(1, avoided[places, None])
    return loss - unlikelihood * torch.log1p(-chance.clamp(max=1 - 1e-6)).sum()


@contextmanager
def _only_at(where: torch.Tensor, head: torch.nn.Module) -> Iterator[None]:
    hook = head.register_forward_pre_hook(lambda _, given: (given[0].flatten(0, 1).index_select(0, where)[None],))
    try:
        yield
    finally:
        hook.remove()
