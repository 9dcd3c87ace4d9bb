"""The vocabulary in a GGUF file: text to token ids and back, by llama.cpp."""

import ctypes
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp

from edgedc.backends.gguf_header import NORMALIZER, RUNS
from edgedc.backends.marks import any_of
from edgedc.bundle import SpecialIds
from edgedc.errors import EdgedcError, InputError

_SPECIAL = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
_USER_DEFINED = llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED
_KEPT = 8192  # pieces: about a megabyte


class LlamaVocab:
    """Of a model that llama.cpp has loaded from `path`, for as long as it is loaded. `special` has the ids of its
    special tokens by their texts.

    llama.cpp normalises no text. Where the file says that the tokenizer does (NFC, as Qwen's), it is done here, between
    the added tokens: as tokenizers does it, but for the hundred marks that Unicode has given an order since 9.0. And
    where it says that runs of "▁" are added tokens (Gemma's), text is split at those that it has itself.
    """

    def __init__(self, model: Any, path: Path) -> None:
        self._path = path
        self._vocab = llama_cpp.llama_model_get_vocab(model)
        self.size: int = llama_cpp.llama_vocab_n_tokens(self._vocab)
        # SentencePiece writes the space that starts a text into its first token
        self._strips_space = llama_cpp.llama_vocab_type(self._vocab) == llama_cpp.LLAMA_VOCAB_TYPE_SPM
        self._composes = llama_cpp.llama_model_meta_val_str(model, NORMALIZER.encode(), None, 0) >= 0
        buffer = ctypes.create_string_buffer(8)
        runs = llama_cpp.llama_model_meta_val_str(model, RUNS.encode(), buffer, len(buffer)) > 0
        self._runs = re.compile(f"(▁{{{buffer.value.decode()}}})") if runs else None
        kinds = [llama_cpp.llama_vocab_get_attr(self._vocab, k) for k in range(self.size)]
        # a user's token that has the text of some model's special one is both to llama.cpp
        user_defined = [self._text(k) for k, kind in enumerate(kinds) if kind & _USER_DEFINED]
        special = (k for k, kind in enumerate(kinds) if kind & _SPECIAL and not kind & _USER_DEFINED)
        self.special = {self._text(k): k for k in special}
        self._user_defined, self._added = any_of(user_defined), any_of([*user_defined, *self.special])
        self._pieces: dict[int, bytes] = {}  # of tokens that were asked for: with llama.cpp it takes ten times as long

    def tokenize(self, prompt: str, special: bool = True) -> list[int]:
        """Ids of a rendered prompt; none is added. `special` says whether special tokens in it are read as such."""
        parts = self._runs.split(prompt) if self._runs else [prompt]
        return [token for part in parts for token in self._tokenize(part, special)]

    def _tokenize(self, prompt: str, special: bool) -> list[int]:
        if special and not self._composes:
            return self._ids(prompt, special=True)
        ids: list[int] = []
        for k, part in enumerate((self._added if special else self._user_defined).split(prompt)):  # text, token, ...
            text = unicodedata.normalize("NFC", part) if self._composes and not k % 2 else part
            if text != part and (made := self._user_defined.search(text)):  # found in text even by `special=False`
                raise InputError(f"{self._path}: a prompt spells {made[0]!r} with other characters; use its own")
            ids += self._ids(text, special=bool(k % 2))
        return ids

    def text_of(self, ids: Sequence[int]) -> str:
        """The text of a reply. Bytes are joined first, as a character may be spread over several tokens."""
        known = self._pieces
        pieces = [known[token] if token in known else self._piece(token) for token in ids]
        if self._strips_space and pieces:
            pieces[0] = pieces[0].removeprefix(b" ")
        return b"".join(pieces).decode("utf-8", "replace")

    def is_end(self, token: int) -> bool:
        return bool(llama_cpp.llama_vocab_is_eog(self._vocab, token))

    def special_ids(self) -> SpecialIds:
        bos, eos = llama_cpp.llama_vocab_bos(self._vocab), llama_cpp.llama_vocab_eos(self._vocab)
        ends = tuple(filter(self.is_end, range(self.size)))
        adds = bool(llama_cpp.llama_vocab_get_add_bos(self._vocab))
        return SpecialIds(None if bos == -1 else bos, None if eos == -1 else eos, ends, adds)

    def special_texts(self) -> dict[str, str]:
        """Of BOS and EOS, by the names that chat templates have for them."""
        bos, eos = llama_cpp.llama_vocab_bos(self._vocab), llama_cpp.llama_vocab_eos(self._vocab)
        return {name: self._text(k) for name, k in (("bos_token", bos), ("eos_token", eos)) if k != -1}

    def _ids(self, prompt: str, *, special: bool) -> list[int]:
        text = prompt.encode("utf-8")
        size = len(text) + 8
        ids = (llama_cpp.llama_token * size)()
        count = llama_cpp.llama_tokenize(self._vocab, text, len(text), ids, size, False, special)
        if count < 0:
            raise EdgedcError(f"{self._path}: llama.cpp could not tokenize a prompt of {len(text)} bytes")
        return list(ids[:count])

    def _text(self, token: int) -> str:
        text: bytes = llama_cpp.llama_vocab_get_text(self._vocab, token)
        return text.decode("utf-8", "replace")

    def _piece(self, token: int) -> bytes:
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, size, 0, False)
            if count >= 0:
                piece = buffer.raw[:count]
                if len(self._pieces) < _KEPT:
                    self._pieces[token] = piece
                return piece
            size = -count
