"""The folders that edgedc makes (adapter, model, bundle), and the manifest that each of them ends with."""

import dataclasses
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgedc import __version__
from edgedc.errors import InputError
from edgedc.files import sha256_of, write_text
from edgedc.prompts import MAX_SUBQUESTIONS, STYLES, Style

MANIFEST = "manifest.json"
CHAT_TEMPLATE = "chat_template.jinja"
Kind = Literal["adapter", "model", "bundle"]
Format = Literal["gguf", "onnx"]


@dataclass(frozen=True)
class Data:
    """A file that a model was trained on."""

    name: str
    rows: int
    sha256: str


@dataclass(frozen=True)
class Artifact:
    """One exported file, relative to its bundle, and how it compared with the model it was made from.

    `gate` holds the figures of export/gate.py; `passed` is None where the gate was not run. `bytes` and `sha256`
    count the graph file and its external data, in the order of `files`.
    """

    files: tuple[str, ...]
    format: Format
    quantization: str
    bytes: int
    sha256: tuple[str, ...]
    passed: bool | None = None
    gate: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return self.files[0]


@dataclass(frozen=True)
class Manifest:
    """What a folder holds and where it came from. Written last: a folder without it is not finished."""

    kind: Kind
    name: str
    base: str
    method: str
    prompt_style: Style = "compact-1"
    max_subquestions: int | None = MAX_SUBQUESTIONS
    context_length: int = 0
    chat_template_sha256: str = ""
    base_revision: str = ""
    parameters: int = 0
    data: tuple[Data, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    recipe: dict[str, Any] = field(default_factory=dict)
    created: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    edgedc: str = __version__


def write_manifest(folder: Path, manifest: Manifest) -> None:
    write_text(folder / MANIFEST, json.dumps(dataclasses.asdict(manifest), indent=2, ensure_ascii=False) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """Raises InputError when the folder has no manifest, or one that this version cannot read."""
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder}: no {MANIFEST}: not a folder that edgedc made, or one that it did not finish")
    try:
        row = json.loads(path.read_text("utf-8"))
        row["data"] = tuple(Data(**d) for d in row["data"])
        row["artifacts"] = tuple(
            Artifact(**{**a, "files": tuple(a["files"]), "sha256": tuple(a["sha256"])}) for a in row["artifacts"]
        )
        manifest = Manifest(**row)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: not a manifest of this version of edgedc: {error}") from error
    if manifest.prompt_style not in STYLES:
        raise InputError(f"{path}: unknown prompt style {manifest.prompt_style!r}; known: {', '.join(STYLES)}")
    return manifest


def newest(kind: Kind, where: Path) -> Path:
    """The folder of this kind made last in `where` or up to two levels below it."""
    found = []
    for depth in ("", "*/", "*/*/"):
        for path in where.glob(f"{depth}{MANIFEST}"):
            if any(part.startswith(".") for part in path.relative_to(where).parts):
                continue
            try:
                manifest = read_manifest(path.parent)
            except InputError:
                continue
            if manifest.kind == kind:
                found.append((manifest.created, path.stat().st_mtime, path.parent))
    if not found:
        verb = {"adapter": "edgedc train", "model": "edgedc merge", "bundle": "edgedc export"}[kind]
        raise InputError(f"no {kind} in {where}: name one, or make one with  {verb}")
    return max(found)[2]


def find_artifact(
    folder: Path, format: Format | None = None, quantization: str | None = None
) -> tuple[Manifest, Artifact]:
    """The artifact of a bundle to run: the smallest that passed its gate among those asked for.

    Raises InputError when there is none, or when its file is missing or not the one that was gated.
    """
    manifest = read_manifest(folder)
    wanted = [a for a in manifest.artifacts if format in (None, a.format) and quantization in (None, a.quantization)]
    if not wanted:
        have = ", ".join(f"{a.format} {a.quantization}" for a in manifest.artifacts) or "nothing"
        asked = " ".join(part for part in (format, quantization) if part) or "artifact"
        raise InputError(f"{folder}: no {asked} here; it holds {have}")
    usable = [a for a in wanted if a.passed is not False]
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
