"""The token ids of the pairs that are trained on, and which of them have labels."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from edgedc.backends.greedy import encodable
from edgedc.backends.transformers import marks_of
from edgedc.bundle import Data
from edgedc.errors import InputError
from edgedc.files import sha256_of

from ..sets.pairs import Pair

IGNORED = -100  # the label that PyTorch's cross entropy leaves out


@dataclass(frozen=True)
class Encoded:
    """Token ids of a prompt and its completion, of which the first `prompt` are only read."""

    ids: list[int]
    prompt: int

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
    path: Path, pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> tuple[list[Encoded], Counter[str]]:
    """Every pair's ids, and how many of them imitate each special token: there it stays text, as at run time.

    Only the completion, with the token that ends it, has labels. Raises InputError, with the line of `path`, for a
    pair that is longer than `max_length` tokens.
    """
    marks = marks_of(tokenizer)
    imitated = Counter[str]()

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
        return Encoded([*prompt, *completion, end], max(1, len(prompt)))

    encoded = []
    for pair in pairs:
        row = ids_of(pair)
        if len(row.ids) > max_length:
            what = f"has {len(row.ids)} tokens, more than --max-length {max_length}"
            raise InputError(f"{_place(path, pair)}: {what}: raise it or take the row out")
        encoded.append(row)
    return encoded, imitated


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
