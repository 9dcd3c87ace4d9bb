"""The folders that edgedc makes (adapter, model, bundle), and the manifest that each of them ends with."""

import dataclasses
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgedc import __version__
from edgedc.errors import InputError
from edgedc.files import read_object, sha256_of, write_text
from edgedc.prompts import MAX_SUBQUESTIONS, Style
from edgedc.typed import typed

MANIFEST = "manifest.json"
CHAT_TEMPLATE = "chat_template.jinja"
Kind = Literal["adapter", "model", "bundle"]
Format = Literal["gguf", "onnx"]


def now() -> str:
    """UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@dataclass(frozen=True)
class Data:
    """A file that a model was trained on."""

    name: str
    rows: int
    sha256: str


@dataclass(frozen=True)
class Artifact:
    """One exported file, relative to its bundle, and how it compared with the model it was made from.

    `gate` holds the figures of export/gate/gate.py; `passed` is None where the gate was not run. `bytes` and `sha256`
    count the graph file and its external data, in the order of `files`. `details` is what the format has of its own:
    the types that a GGUF's matrices really got and its bits per weight, or the opset of an ONNX graph.
    """

    files: tuple[str, ...]
    format: Format
    quantization: str
    bytes: int
    sha256: tuple[str, ...]
    passed: bool | None = None
    gate: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return self.files[0]

    @property
    def for_cuda(self) -> bool:
        return self.details.get("provider") == "cuda"

    @property
    def gated_without_gpu(self) -> bool:
        """It is for CUDA, and was compared by the same operators on the CPU."""
        return self.for_cuda and self.gate.get("ran_on") == "cpu"


@dataclass(frozen=True)
class SpecialIds:
    """Token ids that a model and everything exported from it must agree on; None where there is no such token.

    `ends` end a reply. `adds_bos` says whether the tokenizer, left to itself, puts BOS before a text.
    """

    bos: int | None
    eos: int | None
    ends: tuple[int, ...]
    adds_bos: bool

    def difference(self, engine: "SpecialIds") -> str | None:
        """What an engine that runs the model takes otherwise; None where nothing is.

        It may know more end tokens than the model names, and may have a BOS that it never uses, or an EOS where the
        model's tokenizer names none.
        """
        if self.eos is not None and self.eos != engine.eos:
            return f"EOS is token {engine.eos}, the model's is {self.eos}"
        if missing := sorted(set(self.ends) - set(engine.ends)):
            return f"token {missing[0]} does not end a reply, as it does for the model"
        if self.bos is not None and self.bos != engine.bos:
            return f"BOS is token {engine.bos}, the model's is {self.bos}"
        if self.adds_bos != engine.adds_bos:
            return f"it {'puts' if engine.adds_bos else 'does not put'} BOS before a text, unlike the model's tokenizer"
        return None


@dataclass(frozen=True)
class Manifest:
    """What a folder holds and where it came from. Written last: a folder without it is not finished.

    `chat_template_sha256` is "" where it is not known, and None where the model has none and is asked with raw prompts
    (`raw_prompts` of edgedc/backends/chat.py). `files` holds the sha256 of what stands beside the artifacts.
    """

    kind: Kind
    name: str
    base: str
    method: str
    prompt_style: Style = "compact-1"
    max_subquestions: int | None = MAX_SUBQUESTIONS
    context_length: int = 0
    chat_template_sha256: str | None = ""
    special_ids: SpecialIds | None = None
    files: dict[str, str] = field(default_factory=dict)
    weights_sha256: str = ""  # of the safetensors that a bundle was exported from; see export/ship.py
    base_revision: str = ""
    base_sha256: str = ""  # of the base's safetensors (edgedc/adapter.py) when it was trained; "" for one of the hub
    parameters: int = 0
    data: tuple[Data, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    recipe: dict[str, Any] = field(default_factory=dict)
    created: str = field(default_factory=now)
    edgedc: str = __version__


def write_manifest(folder: Path, manifest: Manifest) -> None:
    write_text(folder / MANIFEST, json.dumps(dataclasses.asdict(manifest), indent=2, ensure_ascii=False) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """Raises InputError when the folder has no manifest, or one that this version cannot read."""
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder}: no {MANIFEST}: not a folder that edgedc made, or one that it did not finish")
    try:
        manifest: Manifest = typed(json.loads(path.read_text("utf-8")), Manifest)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a manifest of this version of edgedc: {error}") from error
    for artifact in manifest.artifacts:
        if not artifact.files or len(artifact.files) != len(artifact.sha256):
            raise InputError(f"{path}: an artifact needs at least one file, and one sha256 for each")
    for name in (*manifest.files, *(file for artifact in manifest.artifacts for file in artifact.files)):
        # A bundle may come from anywhere; what it loads must have come with it.
        if Path(name).anchor or ".." in Path(name).parts:
            raise InputError(f"{path}: {name!r} is not a file inside the bundle")
    return manifest


def made_below(where: Path) -> Iterator[Path]:
    """The folders with a manifest, `where` itself and up to two levels below it; hidden ones left out."""
    for depth in ("", "*/", "*/*/"):
        for path in where.glob(f"{depth}{MANIFEST}"):
            if not any(part.startswith(".") for part in path.relative_to(where).parts):
                yield path.parent


def newest(kind: Kind, where: Path) -> Path:
    """The folder of this kind made last in `where` or up to two levels below it."""
    found = []
    for folder in made_below(where):
        try:
            manifest = read_manifest(folder)
        except InputError:
            continue
        if manifest.kind == kind:
            found.append((manifest.created, (folder / MANIFEST).stat().st_mtime, folder))
    if not found:
        verb = {"adapter": "edgedc train", "model": "edgedc merge", "bundle": "edgedc export"}[kind]
        raise InputError(f"no {kind} in {where}: name one, or make one with  {verb}")
    return max(found)[2]


def find_artifact(
    folder: Path, format: Format | None = None, quantization: str | None = None
) -> tuple[Manifest, Artifact]:
    """The artifact of a bundle to run: the smallest that did not fail its gate, among those asked for (in any case).

    A graph for CUDA is taken only when its quantization is named. Raises InputError when there is none, or when a file
    of it is missing. `verify` compares the files' hashes.
    """
    manifest = read_manifest(folder)
    quantization = quantization and quantization.lower()
    wanted = [a for a in manifest.artifacts if format in (None, a.format) and quantization in (None, a.quantization)]
    if not wanted:
        have = ", ".join(f"{a.format} {a.quantization}" for a in manifest.artifacts) or "nothing"
        asked = " ".join(part for part in (format, quantization) if part) or "artifact"
        raise InputError(f"{folder}: no {asked} here; it holds {have}")
    usable = [a for a in wanted if a.passed is not False and (quantization or not a.for_cuda)]
    if not usable and all(a.passed is not False for a in wanted):
        raise InputError(
            f"{folder}: holds graphs for CUDA alone; name one with --quantization {wanted[0].quantization}"
        )
    if not usable:
        raise InputError(f"{folder}: {wanted[0].path} failed its gate; export again with another quantization")
    artifact = min(usable, key=lambda a: a.bytes)
    for name in artifact.files:
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: missing; the bundle is incomplete, copy or export it again")
    return manifest, artifact


def verify(folder: Path, artifact: Artifact) -> None:
    """Raises InputError when a file is not, byte for byte, the one in the manifest."""
    for name, expected in zip(artifact.files, artifact.sha256, strict=True):
        if sha256_of(folder / name) != expected:
            raise InputError(f"{folder / name}: changed since it was exported (sha256); copy or export it again")


def hashes_read(files: Mapping[str, Any]) -> dict[str, str]:
    """The sha256 of the files that a verb was given, by the names of their settings; none of one that is not there."""
    return {name: sha256_of(Path(path)) for name, path in files.items() if path and Path(path).is_file()}


def hashes_beside(folder: Path, artifacts: Sequence[Artifact]) -> dict[str, str]:
    """The sha256 of every file of a bundle that belongs to no artifact and is not the manifest, by its name."""
    own = {MANIFEST, *(file for artifact in artifacts for file in artifact.files)}
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name: sha256_of(folder / name) for name in names if name not in own}


_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
_CONFIGS = ("config.json", "tokenizer_config.json", "generation_config.json")
# Beside the weights, what shapes replies.
AROUND = (CHAT_TEMPLATE, *_TOKENIZERS, *_CONFIGS)
# A decoder's own layers, and no other part's: a vision tower has layers too.
_LAYER = re.compile(r"(?:model\.|transformer\.|gpt_neox\.)?(?:layers|h)\.(\d+)\.")
# Keys that make transformers import code: a model's own (auto_map), or a kernel's (CVE-2026-4372).
_CODE_KEYS = ("auto_map", "_attn_implementation_internal")


def check_model_folder(folder: Path) -> None:
    """Raises InputError unless this is a model folder that can be loaded without running code that came with it.

    That means: config.json and a tokenizer, weights in safetensors only, no key in the configs that names code, and no
    layers in the weights that config.json does not count.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}; name a model folder")
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise InputError(f"{folder}: an adapter, not a whole model; merge it first with  edgedc merge {folder}")
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: no config.json: not a model folder")
    for path in sorted(folder.iterdir()):
        if path.suffix in _PICKLES and path.name != "training_args.bin":
            raise InputError(f"{path}: pickled weights can run code; keep only .safetensors files in the folder")
    if not any(folder.glob("*.safetensors")):
        raise InputError(f"{folder}: no *.safetensors: the weights are missing")
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise InputError(f"{folder}: no tokenizer ({', '.join(_TOKENIZERS)}); copy it from the base model")
    for name in _CONFIGS:
        if (folder / name).is_file():
            _refuse_code(folder / name)
    check_layers(folder)


def check_layers(folder: Path) -> None:
    """Raises InputError where the weights have layers beyond num_hidden_layers: transformers leaves them out without a
    word, and what it runs is another model.

    Layers that predict further tokens (DeepSeek's, GLM's) stand behind the others, and are left out on purpose.
    """
    config = read_object(folder / "config.json")
    count = config.get("num_hidden_layers", config.get("n_layer"))
    if type(count) is not int:
        return
    ahead = sum(n for key, n in config.items() if type(n) is int and ("nextn" in key or "mtp" in key))
    for path in sorted(folder.glob("*.safetensors")):
        for name in _tensor_names(path):
            if (found := _LAYER.match(name)) and int(found[1]) >= count + ahead:
                raise InputError(
                    f"{folder}: config.json has num_hidden_layers {count}, and the weights {name}, which would be "
                    "left out: copy or download the model again"
                )


def _tensor_names(path: Path) -> list[str]:
    """By the header of a safetensors file. None of a damaged one: whoever reads its weights says what is wrong."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            return list(json.loads(file.read(length))) if length <= path.stat().st_size else []
    except (OSError, ValueError, TypeError, RecursionError):
        return []


def has_chat_template(folder: Path) -> bool:
    """Whether a model folder has one, in a file of its own or in tokenizer_config.json."""
    config = folder / "tokenizer_config.json"
    return (folder / CHAT_TEMPLATE).is_file() or (config.is_file() and bool(read_object(config).get("chat_template")))


def _refuse_code(path: Path) -> None:
    waiting: list[Any] = [read_object(path)]
    while waiting:
        value = waiting.pop()
        for key in _CODE_KEYS:
            if isinstance(value, dict) and key in value:
                raise InputError(f"{path}: {key!r} names code to run, which edgedc does not; remove it or the model")
        if isinstance(value, dict | list):
            waiting.extend(value.values() if isinstance(value, dict) else value)
