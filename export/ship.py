"""Makes a bundle: the artifacts asked for, each through the gate, and the manifest last."""

import dataclasses
import hashlib
import importlib.util
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgedc import __version__
from edgedc.backends import choose
from edgedc.bundle import CHAT_TEMPLATE, MANIFEST, Artifact, Format, Manifest, now, read_manifest, write_manifest
from edgedc.errors import InputError, MissingExtra
from edgedc.files import staged_folder

from .artifacts import Say, make_gguf, make_onnx
from .gate import gate, observe, prompts_for
from .gguf_vocab import read_chat_template, read_json
from .quantize import types_of
from .to_onnx import check_precision
from .weights import open_weights

# What a backend needs beside the weights; those that the model has are copied.
COMPANIONS = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
PACKAGES = {
    "gguf": ("llama_cpp",),
    "onnx": ("optimum.exporters.onnx", "onnx", "onnxruntime"),
    "gate": ("torch", "transformers"),
}
NOTICE_S = 5.0


@dataclass(frozen=True)
class Order:
    """What to export. `quantizations` are GGUF's, `precision` ONNX's; `prompts` None means those of microworld."""

    formats: tuple[Format, ...]
    quantizations: str = "f16,q8_0,q4_k_m"
    precision: str = "fp32"
    prompts: Path | None = None
    gated: bool = True


def ship(model: Path, out: Path, order: Order, say: Say) -> tuple[Manifest, list[Artifact]]:
    """Write the bundle `out`; return its manifest and the artifacts made now.

    A bundle of the same model keeps its other artifacts. Nothing is left when it fails. An artifact that fails its
    gate is kept and marked. Raises InputError, before any work, for what cannot be exported or would overwrite
    something else.
    """
    kinds = types_of(order.quantizations)
    check_precision(order.precision)
    manifest = _bundle_manifest(model)
    kept = _kept(out, manifest)
    for use in (*order.formats, *(["gate"] if order.gated else [])):
        for package in PACKAGES[use]:
            if not _installed(package):
                raise MissingExtra(package, "export")
    prompts = prompts_for(manifest, order.prompts) if order.gated else []
    with staged_folder(out) as stage:
        if kept:
            shutil.copytree(out, stage, copy_function=_link, dirs_exist_ok=True)
        _write_companions(model, stage)
        made: list[Artifact] = []
        if "gguf" in order.formats:
            made += make_gguf(model, stage, manifest.name, kinds, say)
        if "onnx" in order.formats:
            made.append(make_onnx(model, stage, order.precision.lower(), manifest.parameters, say))
        kept = _without_replaced(stage, kept, made)
        write_manifest(stage, _with(manifest, [*kept, *made]))  # for the gate, which opens artifacts as users do
        if order.gated:
            tick = _ticker("reference", len(prompts), say)
            reference = observe(model, prompts, manifest.context_length, on_prompt=tick)
            for k, artifact in enumerate(made):
                tick = _ticker(f"{artifact.path}: gate", len(prompts), say)
                result = gate(stage, artifact, prompts, reference, manifest.context_length, tick)
                made[k] = dataclasses.replace(artifact, passed=result.passed, gate=dataclasses.asdict(result))
        manifest = _with(manifest, [*kept, *made])
        write_manifest(stage, manifest)
    return manifest, made


def _bundle_manifest(model: Path) -> Manifest:
    """The model's manifest as its bundle will have it, without artifacts. Checks all that is cheap to check."""
    if (model / MANIFEST).is_file() and read_manifest(model).kind == "bundle":
        raise InputError(f"{model}: a bundle; name the model folder that it was exported from")
    choice = choose(model)
    template = read_chat_template(model)
    template_sha256 = hashlib.sha256(template.encode()).hexdigest()
    if choice.manifest.chat_template_sha256 not in ("", template_sha256):
        raise InputError(f"{model}: its chat template is not the one it was trained with; restore it or merge again")
    if not (model / "tokenizer.json").is_file():
        raise InputError(f"{model}: no tokenizer.json; save the tokenizer with save_pretrained of a fast tokenizer")
    context = choice.manifest.context_length or read_json(model / "config.json").get("max_position_embeddings")
    if not isinstance(context, int) or context < 1:
        raise InputError(f"{model / 'config.json'}: no max_position_embeddings, so the context's length is not known")
    counted = sum(math.prod(tensor.shape) for tensor in open_weights(model).values())
    return dataclasses.replace(
        choice.manifest,
        kind="bundle",
        context_length=context,
        chat_template_sha256=template_sha256,
        weights_sha256=hashlib.sha256(" ".join(choice.identity()).encode()).hexdigest(),
        parameters=choice.manifest.parameters or counted,
        artifacts=(),
        created=now(),
        edgedc=__version__,
    )


def _kept(out: Path, manifest: Manifest) -> list[Artifact]:
    """The artifacts of a bundle that is already at `out`. Raises InputError when that is of another model."""
    if not (out / MANIFEST).is_file():
        return []
    old = read_manifest(out)
    if old.kind != "bundle":
        raise InputError(f"{out}: a {old.kind} folder, which a bundle must not replace; give another OUT")
    same = old.weights_sha256, old.chat_template_sha256
    if same != (manifest.weights_sha256, manifest.chat_template_sha256):
        raise InputError(f"{out}: holds the bundle of another model ({old.name}); give another OUT or remove it")
    return list(old.artifacts)


def _without_replaced(stage: Path, kept: list[Artifact], made: list[Artifact]) -> list[Artifact]:
    """Artifacts that have no successor; the others' files go, unless the successor has their names."""
    successors = {(a.format, a.quantization) for a in made}
    written = {file for a in made for file in a.files}
    for artifact in kept:
        if (artifact.format, artifact.quantization) in successors:
            for file in set(artifact.files) - written:
                (stage / file).unlink(missing_ok=True)
    return [a for a in kept if (a.format, a.quantization) not in successors]


def _write_companions(model: Path, stage: Path) -> None:
    for name in COMPANIONS:
        (stage / name).unlink(missing_ok=True)  # may be a link to the old bundle's file
        if (model / name).is_file():
            shutil.copyfile(model / name, stage / name)
    (stage / CHAT_TEMPLATE).unlink(missing_ok=True)
    (stage / CHAT_TEMPLATE).write_text(read_chat_template(model), "utf-8", newline="")


def _with(manifest: Manifest, artifacts: Sequence[Artifact]) -> Manifest:
    """GGUF before ONNX, the largest first."""
    ordered = sorted(artifacts, key=lambda a: (a.format, -a.bytes, a.quantization))
    return dataclasses.replace(manifest, artifacts=tuple(ordered))


def _link(source: str, target: str) -> None:
    """Artifacts are large, and nothing here writes into a file that exists."""
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def _ticker(label: str, total: int, say: Say) -> Callable[[], None]:
    """Counts prompts, and says how many are done, with seconds, every few seconds and at the end."""
    started = noticed = time.perf_counter()
    done = 0

    def tick() -> None:
        nonlocal done, noticed
        done += 1
        at = time.perf_counter()
        if done == total or at - noticed > NOTICE_S:
            noticed = at
            say(f"{label}: {done} of {total} prompts, {at - started:.1f} s")

    return tick
