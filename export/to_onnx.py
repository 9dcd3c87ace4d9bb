"""Converts a model folder to an ONNX graph with KV cache, by way of optimum."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgedc.errors import InputError

from .child import in_child
from .weights import open_weights

PRECISIONS = ("fp32",)


def check_precision(precision: str) -> None:
    if precision.lower() not in PRECISIONS:
        raise InputError(f"precision {precision!r} is not supported yet; known: {', '.join(PRECISIONS)}")


def to_onnx(model: Path, folder: Path) -> tuple[list[str], int]:
    """Write model.onnx, and its external data where it is too large for one file, into `folder`; or nothing.

    Returns the files' names, the graph first, and the graph's opset. Raises InputError when a weight is not finite or
    cannot be read, EdgedcError when optimum cannot export the architecture.
    """
    for tensor in open_weights(model).values():
        tensor.read()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".onnx.", dir=folder.parent) as stage:
        (opset,) = in_child("exporting to ONNX", _export, str(model), stage)
        # optimum copies the tokenizer and configs too; the bundle has its own
        made = sorted(path.name for path in Path(stage).iterdir() if path.name.startswith("model.onnx"))
        for name in made:
            shutil.move(Path(stage) / name, folder / name)
    return made, opset


def _export(model: str, out: str) -> Iterator[int]:
    import onnx
    from optimum.exporters.onnx import main_export

    # the gate compares with more than optimum's validation would, and through the backend that ships
    main_export(model, out, task="text-generation-with-past", dtype="fp32", local_files_only=True, do_validation=False)
    graph = onnx.load(str(Path(out) / "model.onnx"), load_external_data=False)
    yield next(entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx"))
