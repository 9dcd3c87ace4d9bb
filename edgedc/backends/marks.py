"""The marks of a chat (`<|im_end|>`, `</s>`): those that a template writes are special tokens, those in a message text.

A tokenizer takes every occurrence for the special token, and who may write into a message could then end it and speak
as somebody else. Training and every backend encode prompts here.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from edgedc.errors import InputError
from edgedc.generation import Message

_PRIVATE_USE = range(0xE000, 0xF900)  # code points that Unicode leaves to others


class Marks:
    """The special tokens of a model, by their texts.

    `tokenize(text, special)` gives the ids of a text without adding any; `special` says whether special tokens in it
    are read as such.
    """

    def __init__(self, ids: Mapping[str, int], tokenize: Callable[[str, bool], list[int]]) -> None:
        self._ids, self._tokenize = dict(ids), tokenize
        self._pattern = any_of(ids)

    def found_in(self, text: str) -> list[str]:
        """The marks that a text holds, each once."""
        return sorted({found[0] for found in self._pattern.finditer(text)})

    def encode(self, messages: Sequence[Message], render: Callable[[Sequence[Message]], str]) -> list[int]:
        """Ids of the rendered messages. Raises InputError as `render` does.

        Where a message holds a mark, the mark is rendered as one character that occurs nowhere else; the text between
        the template's own marks is then encoded, with the mark put back, as nothing but text.
        """
        imitated = self.found_in("\n".join(message["content"] for message in messages))
        if not imitated:
            return self._tokenize(render(messages), True)
        everything = "".join(message["content"] for message in messages)
        free = (chr(code) for code in _PRIVATE_USE if chr(code) not in everything)
        stands_for = dict(zip(imitated, free, strict=False))
        if len(stands_for) < len(imitated):
            raise InputError("the messages hold every private-use character of Unicode: take some out")
        hidden: list[Message] = [
            {"role": m["role"], "content": self._pattern.sub(lambda mark: stands_for[mark[0]], m["content"])}
            for m in messages
        ]
        back = {ord(character): mark for mark, character in stands_for.items()}
        ids: list[int] = []
        for k, piece in enumerate(self._pattern.split(render(hidden))):
            if k % 2:
                ids.append(self._ids[piece])
            elif piece:
                ids += self._tokenize(piece.translate(back), False)
        return ids


def any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Finds the longest, as tokenizers do; its one group lets `split` keep what was found."""
    longest_first = sorted(filter(None, texts), key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first))})" if longest_first else "(?!)")
