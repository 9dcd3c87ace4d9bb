"""Model folders, run by transformers in float32: the reference that exported artifacts are compared with."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgedc.backends.chat import end_tokens
from edgedc.backends.greedy import check_context, encodable, follow
from edgedc.bundle import check_model_folder
from edgedc.errors import InputError, MissingExtra
from edgedc.generation import Generation, Message


class TransformersBackend:
    """A model folder on this machine's CPU.

    `context_length` 0 is the one in config.json. Raises InputError, before torch is imported, when the folder is not a
    whole model in safetensors (see check_model_folder), and when it cannot be loaded.
    """

    def __init__(self, folder: Path, *, context_length: int = 0, threads: int | None = None) -> None:
        check_model_folder(folder)
        try:
            import torch
            import transformers
            from safetensors import SafetensorError
        except ModuleNotFoundError as error:
            raise MissingExtra(error.name or "transformers", "train") from error
        self.name = f"transformers {folder.name}"
        self._folder, self._torch = folder, torch
        if threads:
            torch.set_num_threads(threads)
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._model = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
            ).eval()
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise InputError(f"{folder}: transformers cannot load it: {' '.join(str(error).split())[:300]}") from error
        if self._tokenizer.chat_template is None:
            raise InputError(f"{folder}: no chat template; put one into {folder / 'chat_template.jinja'}")
        self._ends = end_tokens(folder, self._tokenizer.get_vocab().get)
        trained = self._model.config.max_position_embeddings
        self.context_length: int = min(context_length or trained, trained)

    def render(self, messages: Sequence[Message]) -> str:
        from jinja2 import TemplateError

        try:
            text: str = self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            raise InputError(f"{self._folder}: the chat template refused these messages: {error}") from error
        return encodable(text)

    def encode(self, messages: Sequence[Message]) -> list[int]:
        return self.tokenize(self.render(messages))

    def tokenize(self, prompt: str) -> list[int]:
        """Ids of a rendered prompt: special tokens in it are read as such, and none is added."""
        ids: list[int] = self._tokenizer(prompt, add_special_tokens=False)["input_ids"]
        return ids

    def generate(self, messages: Sequence[Message], *, max_tokens: int) -> Generation:
        started = time.perf_counter()
        return self.complete(self.encode(messages), max_tokens=max_tokens, started=started)

    def complete(self, ids: Sequence[int], *, max_tokens: int, started: float | None = None) -> Generation:
        """Go on from token ids. Raises ContextError as `generate` does."""
        check_context(len(ids), max_tokens, self.context_length)
        return follow(
            self._greedy(list(ids)),
            is_end=self._ends.__contains__,
            text_of=self.text_of,
            started=time.perf_counter() if started is None else started,
            prompt_tokens=len(ids),
            max_tokens=max_tokens,
        )

    def text_of(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def close(self) -> None:
        del self._model

    def _greedy(self, ids: list[int]) -> Iterator[int]:
        past = None
        while True:
            with self._torch.inference_mode():
                made = self._model(
                    input_ids=self._torch.tensor([ids]), past_key_values=past, use_cache=True, logits_to_keep=1
                )
            past = made.past_key_values
            token = int(made.logits[0, -1].argmax())
            yield token
            ids = [token]
