"""Makes the artifacts of a bundle, and describes each as the manifest will."""

import dataclasses
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from edgedc.bundle import Artifact, Format
from edgedc.files import sha256_of

from .quantize import UNQUANTIZED, Contents, contents, quantize
from .to_gguf import Kind, to_gguf
from .to_onnx import to_onnx

Say = Callable[[str], None]


def make_gguf(model: Path, folder: Path, name: str, kinds: list[str], say: Say) -> list[Artifact]:
    """Write NAME-KIND.gguf into `folder` for each kind. The quantised ones are made from the f16 one."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"
    made = []
    with tempfile.TemporaryDirectory(prefix=".gguf.", dir=folder) as scratch:
        source = Path(scratch) / "f16.gguf"
        if set(kinds) - set(UNQUANTIZED):
            to_gguf(model, source, name)
        for kind in kinds:
            started = time.perf_counter()
            out = folder / f"{stem}-{kind}.gguf"
            if kind == "f16" and source.exists():
                source = source.replace(out)
            elif kind in UNQUANTIZED:
                to_gguf(model, out, name, cast(Kind, kind))
            else:
                quantize(source, out, kind)
            held = contents(out)
            made.append(_artifact(folder, [out.name], "gguf", kind, dataclasses.asdict(held)))
            _say_written(say, made[-1], started)
            if note := _fallback(kind, held):
                say(f"{out.name}: {note}")
    return made


def make_onnx(model: Path, folder: Path, precision: str, parameters: int, say: Say) -> Artifact:
    """Write onnx/model.onnx into `folder`."""
    say("onnx: exporting with optimum, which takes a while")
    started = time.perf_counter()
    names, opset = to_onnx(model, folder / "onnx")
    files = [f"onnx/{name}" for name in names]
    bits = 8 * sum((folder / file).stat().st_size for file in files) / parameters
    artifact = _artifact(folder, files, "onnx", precision, {"opset": opset, "bits_per_weight": bits})
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


def _fallback(kind: str, held: Contents) -> str:
    """K-quants and iq4_xs have blocks of 256 weights; llama.cpp gives rows that do not fit another type, silently."""
    if "_k" not in kind and kind != "iq4_xs":
        return ""
    others = {name: count for name, count in held.matrices.items() if not name.endswith(("_k", "_xs"))}
    if not others:
        return ""
    types = ", ".join(f"{count} as {name}" for name, count in others.items())
    return (
        f"the rows of some matrices are not multiples of 256, so llama.cpp stored {types}, of "
        f"{sum(held.matrices.values())}: {held.bits_per_weight:.2f} bits per weight"
    )
