"""Makes the artifacts of a bundle, and describes each as the manifest will."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from edgedc.bundle import Artifact, Format
from edgedc.files import sha256_of

from .gguf.imatrix import Importance
from .gguf.llama_cpp import convert_with_llama_cpp
from .gguf.quantize import UNQUANTIZED, contents, fallback, quantize
from .gguf.to_gguf import Kind, Source, to_gguf
from .model.families import is_known
from .model.weights import open_weights
from .onnx.to_onnx import exporter, to_onnx
from .staging import link

Say = Callable[[str], None]


@dataclass(frozen=True)
class Weights:
    """What is exported: a model folder, its name, and its tensors where they are not just those in the folder.

    `llama_cpp` is the folder of llama.cpp's own converter, for a family that edgedc does not convert itself.
    """

    model: Path
    name: str
    tensors: Mapping[str, Source] | None = None
    llama_cpp: Path | None = None

    @property
    def sources(self) -> Mapping[str, Source]:
        """Every tensor by its name."""
        return open_weights(self.model) if self.tensors is None else self.tensors

    def to_gguf(self, out: Path, kind: Kind) -> None:
        """Write `out` in f32, f16 or bf16, or nothing; raises what the two converters raise."""
        if is_known(self.model):
            to_gguf(self.model, out, self.name, kind, self.tensors)
        else:
            assert self.llama_cpp is not None  # see export/ship.py
            convert_with_llama_cpp(self.model, out, kind, self.llama_cpp)


def make_gguf(weights: Weights, f16: Path, folder: Path, kind: str, matrix: Importance | None, say: Say) -> Artifact:
    """Write NAME-KIND.gguf into `folder`; the quantised types are made from `f16`, which is there already."""
    started = time.perf_counter()
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", weights.name).strip("-.") or "model"
    out = folder / f"{stem}-{kind}.gguf"
    if kind == "f16":
        out.unlink(missing_ok=True)  # may be a link to the old bundle's file
        link(f16, out)
    elif kind in UNQUANTIZED:
        weights.to_gguf(out, cast(Kind, kind))
    else:
        quantize(f16, out, kind, matrix)
    held = contents(out)
    details: dict[str, Any] = {"matrices": held.matrices, "bits_per_weight": held.bits_per_weight}
    if matrix is not None and kind not in UNQUANTIZED:
        details["calibrated"] = {"prompts": matrix.prompts, "tokens": matrix.tokens}
    artifact = _artifact(folder, [out.name], "gguf", kind, details)
    _say_written(say, artifact, started)
    if note := fallback(kind, held):
        say(f"{out.name}: {note}")
    return artifact


def make_onnx(
    model: Path, folder: Path, precision: str, provider: str, context: int, parameters: int, say: Say
) -> Artifact:
    """Write a graph into a folder of its own: onnx for fp32, else onnx-PRECISION, with -cuda behind where it is."""
    say(f"onnx {precision}: exporting with {exporter(model, precision)}, which takes a while")
    started = time.perf_counter()
    label = precision if provider == "cpu" else f"{precision}-{provider}"
    place = "onnx" if label == "fp32" else f"onnx-{label}"
    names, details = to_onnx(model, folder / place, precision, provider, context_length=context)
    files = [f"{place}/{name}" for name in names]
    graph = files[: 1 + len(details["external_data"])]
    bits = 8 * sum((folder / file).stat().st_size for file in graph) / parameters
    artifact = _artifact(folder, files, "onnx", label, {**details, "bits_per_weight": bits})
    _say_written(say, artifact, started)
    return artifact


def _artifact(folder: Path, files: list[str], format: Format, quantization: str, details: dict[str, Any]) -> Artifact:
    return Artifact(
        files=tuple(files),
        format=format,
        quantization=quantization,
        bytes=sum((folder / file).stat().st_size for file in files),
        sha256=tuple(sha256_of(folder / file) for file in files),
        details=details,
    )


def _say_written(say: Say, artifact: Artifact, started: float) -> None:
    say(f"{artifact.path}: {artifact.bytes / 1e6:.1f} MB, {time.perf_counter() - started:.1f} s")
