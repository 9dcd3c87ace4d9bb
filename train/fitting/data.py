"""The token ids of the pairs that are trained on, and which of them have labels."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from edgedc.backends.greedy import encodable
from edgedc.backends.transformers import marks_of
from edgedc.bundle import Data
from edgedc.errors import InputError
from edgedc.files import sha256_of

from ..sets.pairs import Pair

IGNORED = -100  # the label that PyTorch's cross entropy leaves out
_ALIKE = 2  # tokens that two subquestions begin with alike, before one may be taken for a repetition: `How many`


@dataclass(frozen=True)
class Encoded:
    """Token ids of a prompt and its completion, of which the first `prompt` are only read.

    `unwanted`, where it is asked for, has a token for some places of `ids` that is not to be written there, and IGNORED
    for the others.
    """

    ids: list[int]
    prompt: int
    unwanted: list[int] | None = None

    @property
    def labels(self) -> list[int]:
        return [IGNORED] * self.prompt + self.ids[self.prompt :]


def texts_of(pairs: Sequence[Pair]) -> Iterator[str]:
    """What a tokenizer made from scratch is fitted to."""
    for pair in pairs:
        if pair.messages:
            yield "\n".join([*(message["content"] for message in pair.messages), pair.completion])
        else:
            yield pair.prompt + pair.completion


def encode(
    path: Path,
    pairs: Sequence[Pair],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    *,
    context: int | None = None,
    vocabulary: int | None = None,
    unwanted: bool = False,
) -> tuple[list[Encoded], Counter[str]]:
    """Every pair's ids, and how many of them imitate each special token: there it stays text, as at run time.

    Only the completion, with the token that ends it, has labels. `unwanted` asks for those tokens too.

    Raises InputError, with the line of `path`, for a pair that is longer than `max_length` tokens, or than the model's
    `context`: what stands behind that the model would learn from, and can never be given again. So for one with
    nothing to learn, with a token beyond the model's `vocabulary`, and that the chat template does not take.
    """
    marks = marks_of(tokenizer)
    imitated = Counter[str]()
    one = dict[int, int]()  # object for each id: tokenizers make one for each token, which takes four times the memory

    def render(messages: Sequence) -> str:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))

    def ids_of(pair: Pair) -> Encoded:
        if not pair.messages:
            # A document may be written in the chat format, whose marks are then special tokens.
            prompt = tokenizer(pair.prompt, add_special_tokens=False)["input_ids"]
            completion = tokenizer(pair.completion, add_special_tokens=False)["input_ids"]
            end = tokenizer.pad_token_id
        else:
            asked = "\n".join(message["content"] for message in pair.messages)
            imitated.update(marks.found_in(f"{asked}\n{pair.completion}"))
            prompt = marks.encode(pair.messages, render)
            completion = tokenizer(pair.completion, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            end = tokenizer.eos_token_id
        # Nothing stands before the first token of a row to tell it from.
        row = Encoded([one.setdefault(id, id) for id in (*prompt, *completion, end)], max(1, len(prompt)))
        if not unwanted:
            return row
        offsets = tokenizer(
            pair.completion, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
        )["offset_mapping"]
        repeating = repeats(pair.completion, completion, [start for start, _ in offsets])
        return replace(row, unwanted=[IGNORED] * len(prompt) + repeating + [IGNORED])

    encoded = []
    for pair in pairs:
        try:
            row = ids_of(pair)
        except TemplateError as error:
            raise InputError(f"{_place(path, pair)}: the base's chat template does not take it: {error}") from error
        if len(row.ids) == row.prompt:
            raise InputError(f"{_place(path, pair)}: an empty document: take the row out")
        if vocabulary and max(row.ids) >= vocabulary:
            what = f"has token {max(row.ids)} of the base's tokenizer, and the model has {vocabulary}"
            raise InputError(f"{_place(path, pair)}: {what}: they don't belong together, take another base")
        if len(row.ids) > max_length:
            what = f"has {len(row.ids)} tokens, more than --max-length {max_length}"
            raise InputError(f"{_place(path, pair)}: {what}: raise it or take the row out")
        if context and len(row.ids) > context:
            what = f"has {len(row.ids)} tokens, more than the {context} that the model reads"
            raise InputError(f"{_place(path, pair)}: {what}: take the row out")
        encoded.append(row)
    return encoded, imitated


def repeats(text: str, ids: Sequence[int], starts: Sequence[int]) -> list[int]:
    """For each token of a list the one that would repeat an earlier subquestion, where this one goes on otherwise.

    That is, both begin with the same two tokens or more, and this is the place where they part. `starts` are the
    tokens' places in the text.
    """
    unwanted = [IGNORED] * len(ids)
    earlier: list[list[int]] = []  # the tokens of each subquestion, by their places in `ids`
    for line in re.finditer(r"^\d+\.(.+)$", text, re.MULTILINE):
        places = [k for k, start in enumerate(starts) if line.start(1) <= start < line.end()]
        for before in earlier:
            same = next((n for n, (a, b) in enumerate(zip(before, places, strict=False)) if ids[a] != ids[b]), 0)
            if same >= _ALIKE:
                unwanted[places[same]] = ids[before[same]]
        earlier.append(places)
    return unwanted


def check_text(path: Path, pairs: Sequence[Pair]) -> None:
    """Raises InputError, with the line of `path`, for a text that no tokenizer can read."""
    for pair in pairs:
        try:
            for text in (*(message["content"] for message in pair.messages), pair.prompt, pair.completion):
                encodable(text)
        except InputError as error:
            raise InputError(f"{_place(path, pair)}: {error}") from error


def _place(path: Path, pair: Pair) -> str:
    return f"{path}:{pair.line}" + (f" ({pair.id})" if pair.id else "")


def describe(path: Path, pairs: Sequence[Pair]) -> Data:
    return Data(path.name, len(pairs), sha256_of(path))
