"""What stands around the artifacts of a bundle while it is made: its manifest, what is kept, what is copied."""

import dataclasses
import hashlib
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from edgedc import __version__
from edgedc.adapter import WEIGHTS as ADAPTER_WEIGHTS
from edgedc.backends import choose
from edgedc.bundle import CHAT_TEMPLATE, MANIFEST, Artifact, Manifest, now, read_manifest
from edgedc.errors import InputError
from edgedc.files import check_replaceable, lock, read_object, sha256_of

from .gguf.vocab import read_chat_template
from .model.weights import open_weights

# What a backend needs beside the weights; those that the model has are copied.
COMPANIONS = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)


def bundle_manifest(model: Path, name: str, adapter: Path | None) -> Manifest:
    """The model's manifest as its bundle will have it, without artifacts. Checks all that is cheap to check."""
    if (model / MANIFEST).is_file() and read_manifest(model).kind == "bundle":
        raise InputError(f"{model}: a bundle; name the model folder that it was exported from")
    choice = choose(model)
    template_sha256 = choice.manifest.chat_template_sha256
    if template_sha256 is not None:
        template_sha256 = hashlib.sha256(read_chat_template(model).encode()).hexdigest()
        if choice.manifest.chat_template_sha256 not in ("", template_sha256):
            raise InputError(
                f"{model}: its chat template is not the one it was trained with; restore it or merge again"
            )
    check_tokenizer(model)
    context = choice.manifest.context_length or read_object(model / "config.json").get("max_position_embeddings")
    if not isinstance(context, int) or context < 1:
        raise InputError(f"{model / 'config.json'}: no max_position_embeddings, so the context's length is not known")
    weights = [*choice.weights(), *([sha256_of(adapter / ADAPTER_WEIGHTS)] if adapter else [])]
    return dataclasses.replace(
        choice.manifest,
        kind="bundle",
        name=name if choice.manifest.method == "untrained" else choice.manifest.name,
        context_length=context,
        chat_template_sha256=template_sha256,
        weights_sha256=hashlib.sha256(" ".join(weights).encode()).hexdigest(),
        parameters=sum(math.prod(tensor.shape) for tensor in open_weights(model).values()),
        artifacts=(),
        created=now(),
        edgedc=__version__,
    )


def check_tokenizer(model: Path) -> None:
    if not (model / "tokenizer.json").is_file():
        raise InputError(f"{model}: no tokenizer.json; save the tokenizer with save_pretrained of a fast tokenizer")


def kept_artifacts(out: Path, manifest: Manifest, say: Callable[[str], None]) -> list[Artifact]:
    """The artifacts of a bundle that is already at `out`; `say` is told of those whose files somebody has removed.

    Raises InputError when that is of another model.
    """
    if not (out / MANIFEST).is_file():
        return []
    old = read_manifest(out)
    if old.kind != "bundle":
        raise InputError(f"{out}: a {old.kind} folder, which a bundle must not replace; give another OUT")
    same = old.weights_sha256, old.chat_template_sha256
    if same != (manifest.weights_sha256, manifest.chat_template_sha256):
        raise InputError(f"{out}: holds the bundle of another model ({old.name}); give another OUT or remove it")
    kept = []
    for artifact in old.artifacts:
        if gone := [file for file in artifact.files if not (out / file).is_file()]:
            say(f"{out / gone[0]}: no longer there, so its artifact leaves the bundle")
        else:
            kept.append(artifact)
    return kept


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Have the place of a bundle to ourselves: of two exports that begin from the same bundle, the one that ends last
    would drop what the other has made. Raises InputError where another process has it, and for a place where no bundle
    can be."""
    check_replaceable(out)
    path = out.with_name(f".{out.name}.lock")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise InputError(f"{out}: cannot be made: {error.strerror}; give another folder") from error
    with file:
        lock(file, out)
        try:
            yield
        finally:
            with suppress(OSError):  # Windows removes no open file; an empty one does no harm
                path.unlink()


def link_all(out: Path, stage: Path) -> None:
    """Artifacts are large, and nothing here writes into a file that exists: so a kept bundle is linked."""
    shutil.copytree(out, stage, copy_function=link, dirs_exist_ok=True)


def without_replaced(stage: Path, kept: list[Artifact], made: list[Artifact]) -> list[Artifact]:
    """Artifacts that have no successor; the others' files go, unless the successor has their names."""
    successors = {(a.format, a.quantization) for a in made}
    written = {file for a in made for file in a.files}
    for artifact in kept:
        if (artifact.format, artifact.quantization) in successors:
            for file in set(artifact.files) - written:
                (stage / file).unlink(missing_ok=True)
    return [a for a in kept if (a.format, a.quantization) not in successors]


def write_companions(model: Path, stage: Path, manifest: Manifest) -> None:
    for name in COMPANIONS:
        (stage / name).unlink(missing_ok=True)  # may be a link to the old bundle's file
        if (model / name).is_file():
            shutil.copyfile(model / name, stage / name)
    (stage / CHAT_TEMPLATE).unlink(missing_ok=True)
    if manifest.chat_template_sha256 is not None:
        (stage / CHAT_TEMPLATE).write_text(read_chat_template(model), "utf-8", newline="")


def with_artifacts(manifest: Manifest, artifacts: Sequence[Artifact]) -> Manifest:
    """GGUF before ONNX, the largest first."""
    ordered = sorted(artifacts, key=lambda a: (a.format, -a.bytes, a.quantization))
    return dataclasses.replace(manifest, artifacts=tuple(ordered))


def link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)
