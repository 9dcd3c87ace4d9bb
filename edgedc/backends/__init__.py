"""Ways to run a decomposer on this device, one file each, and the choice among them."""

import importlib.util
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from edgedc.bundle import (
    AROUND,
    CHAT_TEMPLATE,
    MANIFEST,
    Artifact,
    Format,
    Manifest,
    SpecialIds,
    check_model_folder,
    find_artifact,
    has_chat_template,
    read_manifest,
    verify,
)
from edgedc.errors import EdgedcError, InputError
from edgedc.files import sha256_of
from edgedc.generation import Backend, Generation, Message, OnText, Request

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgedc.backends.grammar import ListGrammar
    from edgedc.backends.reply import Scores

Engine = Literal["llamacpp", "llamacpp-gpu", "onnx", "transformers"]
ENGINES: tuple[Engine, ...] = get_args(Engine)

ENGINE_OF: dict[Format, Engine] = {"gguf": "llamacpp", "onnx": "onnx"}
FORMAT: dict[Engine, Format] = {"llamacpp": "gguf", "llamacpp-gpu": "gguf", "onnx": "onnx"}
_LABEL: dict[Engine, str] = {
    "llamacpp": "llama.cpp",
    "llamacpp-gpu": "llama.cpp (GPU)",
    "onnx": "onnxruntime",
    "transformers": "transformers",
}
_PACKAGE: dict[Engine, str] = {"llamacpp": "llama_cpp", "llamacpp-gpu": "llama_cpp", "onnx": "onnxruntime"}


class ModelBackend(Backend, Protocol):
    """A backend that runs a model, and shows each of its steps: to the gate of an export and to `edgedc doctor`.

    `template` is the chat template that stands in the artifact itself, where other programs find it; None where the
    model has none. `context_length` is the most tokens that a prompt and its reply may have together. A `grammar`
    admits only what it describes.
    """

    template: str | None
    context_length: int

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt as text. `encode` is `tokenize` of it."""

    def tokenize(self, prompt: str) -> list[int]:
        """Ids of a rendered prompt: special tokens in it are read as such, and none is added."""

    def generate(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        grammar: "ListGrammar | None" = None,
        on_text: OnText | None = None,
    ) -> Generation: ...

    def complete(
        self,
        ids: Sequence[int],
        *,
        max_tokens: int,
        grammar: "ListGrammar | None" = None,
        on_text: OnText | None = None,
    ) -> Generation:
        """Go on from token ids as `generate` does."""

    def generate_many(
        self, requests: Iterable[Sequence[Message]], *, max_tokens: int, grammar: "ListGrammar | None" = None
    ) -> Iterator[Generation | EdgedcError]:
        """The replies in order of the requests, of which only a few are taken ahead.

        A request that cannot be done gives its error in its place.
        """

    def generate_as_they_come(
        self, requests: Iterable[Request | None], *, grammar: "ListGrammar | None" = None
    ) -> Iterator[tuple[int, Generation | EdgedcError]]:
        """Each reply as soon as it is whole, with the number of its request.

        None among the requests: just now there is no further one, and there will be more or an end to it. An
        EdgedcError that an `on_text` raises ends its request alone, and is its result.
        """

    def scores(self, ids: list[int], max_tokens: int) -> "Generator[Scores, int, None]":
        """The scores behind `ids`; then, for each token that is sent, those behind it, at most max_tokens in all.

        They are good until the next ones are asked for.
        """

    def special_ids(self) -> SpecialIds:
        """As the engine takes them from the artifact. `ends` in ascending order."""

    def logits(self, ids: Sequence[int], *, start: int) -> "npt.NDArray[np.float32]":
        """Scores before softmax of the token behind each of ids[start:]: (len(ids) - start, vocabulary).

        Raises ContextError when the ids exceed the context.
        """


@dataclass(frozen=True)
class Choice:
    """What is going to run: an artifact of a bundle, or, where that is None, the weights of a model folder.

    `note` says why it is not what would have been taken at first; "" when it is. `measured` is a line that says how it
    was found to be the fastest; "" where nothing was compared.
    """

    folder: Path
    manifest: Manifest
    artifact: Artifact | None
    engine: Engine
    note: str = ""
    measured: str = ""

    @property
    def name(self) -> str:
        return f"{_LABEL[self.engine]} {self.artifact.quantization if self.artifact else 'fp32'}"

    def weights(self) -> list[str]:
        """Their sha256. Hashes them for a model folder, whose manifest does not hold them."""
        if self.artifact:
            return list(self.artifact.sha256)
        return [sha256_of(path) for path in sorted(self.folder.glob("*.safetensors"))]

    def identity(self) -> list[str]:
        """The sha256 of the weights, and of what stands around them and shapes replies too."""
        around = (self.folder / name for name in AROUND)
        return [*self.weights(), *(sha256_of(path) for path in around if path.is_file())]


def choose(
    path: Path,
    *,
    engine: Engine | None = None,
    quantization: str | None = None,
    threads: int | None = None,
    measure: bool = False,
) -> Choice:
    """Decide what of a bundle or model folder to run, and with which engine. Loads nothing into this process.

    In a bundle that is the smallest artifact that passed its gate; when nobody asked for its engine and that is not
    installed, the smallest for the other. With `measure`, and where several can run and no engine was asked for, it is
    the one that is fastest here with so many `threads`, by a measurement that takes seconds and is kept (fastest.py).
    Raises InputError when the path is neither, or holds nothing that was asked for.
    """
    if not path.is_dir():
        if path.exists():
            raise InputError(f"{path}: a file; name the bundle or model folder that it belongs to")
        raise InputError(f"{path}: no such folder; name a bundle (edgedc export) or a model folder (edgedc merge)")
    manifest = read_manifest(path) if (path / MANIFEST).is_file() else None
    if manifest and manifest.kind == "adapter":
        raise InputError(f"{path}: an adapter, not a whole model; merge it first with  edgedc merge {path}")
    if manifest is None or manifest.kind == "model":
        return _choose_folder(path, manifest, engine, quantization)
    if engine == "transformers":
        raise InputError(f"{path}: transformers runs model folders, not bundles; name the model it was exported from")
    choice = _choose_artifact(path, FORMAT[engine] if engine else None, quantization)
    if engine:
        return replace(choice, engine=engine)
    return _choose_fastest(choice, quantization, threads) if measure else choice


def open_choice(
    choice: Choice, *, threads: int | None = None, adapter: Path | None = None, on_cpu: bool = False
) -> ModelBackend:
    """Load it, with a LoRA's GGUF on top if there is one.

    `on_cpu` runs a graph that is made for CUDA by the CPU's operators, where there are such. Raises InputError when a
    file is damaged, its engine is not installed or cannot take an adapter; NoGpu when a graph needs CUDA.
    """
    from edgedc.backends.chat import raw_prompts, read_chat_template

    folder, artifact, context = choice.folder, choice.artifact, choice.manifest.context_length
    raw = raw_prompts(folder) if choice.manifest.chat_template_sha256 is None else None
    if adapter and FORMAT.get(choice.engine) != "gguf":
        raise InputError(f"{adapter}: an adapter in GGUF is for llama.cpp, and {choice.name} of {folder} was chosen")
    backend: ModelBackend
    if artifact is None:
        from edgedc.backends.transformers import TransformersBackend

        backend = TransformersBackend(folder, chat=raw, context_length=context, threads=threads)
    else:
        verify(folder, artifact)
        path = folder / artifact.path
        if artifact.format == "gguf":
            from edgedc.backends.llamacpp import LlamaCppBackend

            # Somebody else's GGUF has its template inside.
            known = choice.manifest.chat_template_sha256 or (folder / CHAT_TEMPLATE).is_file()
            chat = raw or (read_chat_template(folder) if known else None)
            gpu = choice.engine == "llamacpp-gpu"
            backend = LlamaCppBackend(
                path, chat=chat, context_length=context, threads=threads, adapter=adapter, gpu=gpu
            )
        else:
            from edgedc.backends.onnx import OnnxBackend
            from edgedc.backends.onnx_graph import Provider

            provider: Provider = "cuda" if artifact.for_cuda and not on_cpu else "cpu"
            backend = OnnxBackend(path, folder, chat=raw, context_length=context, threads=threads, provider=provider)
    backend.name = choice.name
    if raw:
        backend.name += " (no chat template: raw prompts)"
    if choice.note:
        backend.name += f" ({choice.note})"
    return backend


def open_backend(
    path: Path, *, format: Format | None = None, quantization: str | None = None, threads: int | None = None
) -> tuple[Manifest, ModelBackend]:
    """The decomposer in a bundle or model folder, loaded, and its manifest. See `choose` and `open_choice`."""
    choice = choose(path, engine=ENGINE_OF[format] if format else None, quantization=quantization)
    return choice.manifest, open_choice(choice, threads=threads)


def _choose_folder(path: Path, manifest: Manifest | None, engine: Engine | None, quantization: str | None) -> Choice:
    check_model_folder(path)
    format = engine and FORMAT.get(engine)
    if format or quantization:
        raise InputError(
            f"{path}: a model folder has no {quantization or format} artifact; make one with  edgedc export"
        )
    if manifest is None:  # somebody else's model, which has not been trained to decompose
        name = path.resolve().name
        manifest = Manifest(kind="model", name=name, base=name, method="untrained", prompt_style="instruct-1")
        if not has_chat_template(path):
            manifest = replace(manifest, chat_template_sha256=None)
    return Choice(path, manifest, None, "transformers")


def _choose_artifact(path: Path, format: Format | None, quantization: str | None) -> Choice:
    manifest, artifact = find_artifact(path, format, quantization)
    engine = ENGINE_OF[artifact.format]
    if format is not None or _installed(engine):
        return Choice(path, manifest, artifact, engine)
    others: list[Format] = [f for f in ENGINE_OF if f != artifact.format]
    have = {a.format for a in manifest.artifacts if quantization in (None, a.quantization)}
    for other in others:
        if other in have and _installed(ENGINE_OF[other]):
            manifest, second = find_artifact(path, other, quantization)
            return Choice(path, manifest, second, ENGINE_OF[other], f"{_PACKAGE[engine]} is not installed")
    return Choice(path, manifest, artifact, engine)  # opening it says what to install


def _choose_fastest(smallest: Choice, quantization: str | None, threads: int | None) -> Choice:
    """Of the artifacts that passed their gates; of those that were not gated where none was."""
    folder, manifest = smallest.folder, smallest.manifest
    able = [
        replace(smallest, artifact=a, engine=ENGINE_OF[a.format])
        for a in manifest.artifacts
        if (quantization is None or a.quantization == quantization.lower())
        and a.passed is not False
        and not a.for_cuda  # the gate's proof is the CPU's, most often: by name only
        and _installed(ENGINE_OF[a.format])
        and all((folder / name).is_file() for name in a.files)
    ]
    able = [c for c in able if c.artifact and c.artifact.passed] or able
    if len(able) < 2:
        return smallest
    from edgedc.backends.fastest import fastest

    best, said = fastest(able, threads)
    return replace(best or smallest, measured=said)


def _installed(engine: Engine) -> bool:
    return importlib.util.find_spec(_PACKAGE[engine]) is not None
