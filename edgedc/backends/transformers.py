"""Model folders, run by transformers, by default in float32: what exported artifacts are compared with."""

import inspect
import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgedc.adapter import hush_peft
from edgedc.backends.chat import ChatTemplate, check_heard, end_tokens
from edgedc.backends.cores import physical_cores
from edgedc.backends.greedy import GreedyBackend, check_context, encodable
from edgedc.backends.marks import Marks
from edgedc.bundle import SpecialIds, check_model_folder
from edgedc.errors import InputError, MissingExtra
from edgedc.files import read_object
from edgedc.generation import Message

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgedc.backends.reply import Scores


class TransformersBackend(GreedyBackend):
    """A model folder on this machine's CPU.

    `adapter` is a LoRA folder that peft merges into it in memory. `dtype` is torch's name of the precision in which the
    weights are held, and reckoned with. `chat` None is the folder's chat template. `context_length` 0 is the one in
    config.json. Raises InputError, before torch is imported, when the folder is not a whole model in safetensors (see
    check_model_folder), and when it cannot be loaded.
    """

    def __init__(
        self,
        folder: Path,
        *,
        chat: ChatTemplate | None = None,
        context_length: int = 0,
        threads: int | None = None,
        adapter: Path | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    ) -> None:
        check_model_folder(folder)
        try:
            import torch
            import transformers
            from safetensors import SafetensorError
        except ModuleNotFoundError as error:
            raise MissingExtra(error.name or "transformers", "train") from error
        check_saved_by(folder)
        self.name = f"transformers {folder.name}"
        self._folder, self._torch = folder, torch
        torch.set_num_threads(threads or min(torch.get_num_threads(), physical_cores()))
        transformers.utils.logging.disable_progress_bar()
        try:
            with hushed():
                tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._tokenizer = as_its_file_has_it(tokenizer, folder)
            self._model, read = transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
            if read["missing_keys"]:  # transformers has drawn them by lot
                raise ValueError(f"its weights lack {min(read['missing_keys'])}: copy or make the model again")
            cap_attention(self._model)
            self._model.eval()
            if adapter:
                hush_peft()
                import peft

                self._model = peft.PeftModel.from_pretrained(self._model, str(adapter)).merge_and_unload()
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise InputError(f"{folder}: transformers cannot load it: {' '.join(str(error).split())[:300]}") from error
        self._marks = marks_of(self._tokenizer)
        self._chat = chat
        self.template = None if chat else self._default_template()
        if not chat and self.template is None:
            raise InputError(f"{folder}: no chat template; put one into {folder / 'chat_template.jinja'}")
        check_heard(self.render, folder)
        self._ends = end_tokens(folder, self._tokenizer.get_vocab().get)
        known = inspect.signature(self._model.forward).parameters
        self._past = "cache" if "cache" in known else "past_key_values"  # until transformers 5.24
        trained = self._model.config.max_position_embeddings
        self.context_length: int = min(context_length or trained, trained)

    def render(self, messages: Sequence[Message]) -> str:
        from jinja2 import TemplateError

        if self._chat:
            return self._chat.render(messages)
        try:
            text: str = self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            raise InputError(f"{self._folder}: the chat template refused these messages: {error}") from error
        return encodable(text)

    def tokenize(self, prompt: str) -> list[int]:
        ids: list[int] = self._tokenizer(prompt, add_special_tokens=False)["input_ids"]
        return ids

    def text_of(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def special_ids(self) -> SpecialIds:
        bos, eos = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        adds = bos is not None and self._tokenizer("a")["input_ids"][:1] == [bos]
        return SpecialIds(bos, eos, tuple(sorted(self._ends)), adds)

    def logits(self, ids: Sequence[int], *, start: int) -> "npt.NDArray[np.float32]":
        """See ModelBackend."""
        check_context(len(ids), 0, self.context_length)
        with self._torch.inference_mode():
            made = self._model(input_ids=self._torch.tensor([list(ids)]), logits_to_keep=len(ids) - start)
        scores: npt.NDArray[np.float32] = made.logits[0].float().numpy()
        return scores

    def close(self) -> None:
        del self._model

    def _default_template(self) -> str | None:
        template = self._tokenizer.chat_template
        return template.get("default") if isinstance(template, dict) else template

    def scores(self, ids: list[int], max_tokens: int) -> "Generator[Scores, int, None]":  # noqa: ARG002
        past = None
        while True:
            with self._torch.inference_mode():
                made = self._model(
                    input_ids=self._torch.tensor([ids]), use_cache=True, logits_to_keep=1, **{self._past: past}
                )
            past = made[self._past]
            ids = [(yield made.logits[0, -1].float().numpy())]


def check_saved_by(folder: Path) -> None:
    """Raises InputError for what transformers 5 has saved and the one that is installed reads otherwise.

    transformers 4.57 takes 10,000 for a rope's base that stands under its new name, and says nothing.
    """
    installed = version("transformers")
    if int(installed.split(".")[0]) < 5 and is_saved_by_5(folder):
        raise InputError(
            f"{folder}: saved by transformers 5, which {installed} reads as another model: run  "
            "pip install 'transformers>=5'"
        )


def is_saved_by_5(folder: Path) -> bool:
    """Whether only transformers 5 reads this model folder as what it is."""
    config = read_object(folder / "config.json")
    config = config.get("text_config") or config
    tokenizer = folder / "tokenizer_config.json"
    new = tokenizer.is_file() and read_object(tokenizer).get("tokenizer_class") == "TokenizersBackend"
    return new or ("rope_parameters" in config and "rope_theta" not in config)


@contextmanager
def hushed() -> Iterator[None]:
    """transformers, while it reads a tokenizer: it tells of classes, and `as_its_file_has_it` goes by none."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def as_its_file_has_it(tokenizer: Any, folder: Path) -> Any:
    """A tokenizer that makes of a text what `folder`/tokenizer.json does, which is what runs on the device.

    transformers 5 builds those of some classes anew from the vocabulary alone, and Llama 2's, Vicuna's or TinyLlama's
    then leave out the space before a text that begins with one. Tokens that only the configs name are added.
    """
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not tokenizer.is_fast:  # one in Python, of transformers 4, which has no such file
        return tokenizer
    if not path.is_file():
        return _as_sentencepiece_has_it(tokenizer, folder)
    built, written = tokenizer.backend_tokenizer, Tokenizer.from_file(str(path))
    written.no_truncation()
    written.no_padding()
    if built.post_processor is not None:
        written.post_processor = built.post_processor  # in which the configs have a say: whether BOS is put before
    for _, token in sorted(built.get_added_tokens_decoder().items()):
        if written.token_to_id(token.content) is None:
            (written.add_special_tokens if token.special else written.add_tokens)([token])
    tokenizer._tokenizer = written
    return tokenizer


def _as_sentencepiece_has_it(tokenizer: Any, folder: Path) -> Any:
    """Where there is only a tokenizer.model, as of Vicuna: transformers 4 built of it what SentencePiece does, a space
    before every stretch of text. transformers 5 leaves that to a step that adds none to a text that begins with one.
    """
    from tokenizers import Tokenizer

    state, settings = json.loads(tokenizer.backend_tokenizer.to_str()), folder / "tokenizer_config.json"
    legacy = not settings.is_file() or read_object(settings).get("legacy") is not False
    step = {"type": "Metaspace", "replacement": "▁", "split": False}  # Llama's, and no other family's with Metaspace
    if legacy and state["normalizer"] is None and step.items() <= (state["pre_tokenizer"] or {}).items():
        space = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        state["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, space]}
        state["pre_tokenizer"] = None
        for token in state["added_tokens"]:
            token["normalized"] &= not token["special"]  # else it would be sought behind a space
        tokenizer._tokenizer = Tokenizer.from_str(json.dumps(state))
    return tokenizer


def cap_attention(model: Any) -> None:
    """Have a model whose attention scores are capped (Gemma 2) compute with the caps.

    PyTorch's kernel knows of none, and transformers 4.57 takes it all the same.
    """
    if getattr(model.config, "attn_logit_softcapping", None) and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation("eager")


def marks_of(tokenizer: Any) -> Marks:
    """The special tokens of a tokenizer of transformers."""

    def tokenize(text: str, special: bool) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=not special)["input_ids"]
        return ids

    added = tokenizer.added_tokens_decoder.items()
    return Marks({token.content: id for id, token in added if token.special}, tokenize)
