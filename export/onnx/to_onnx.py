"""Converts a model folder to an ONNX graph with KV cache: by GenAI's builder, or as fp32 also by way of optimum."""

import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from edgedc.backends.transformers import is_saved_by_5
from edgedc.child import in_child
from edgedc.errors import InputError, need
from edgedc.files import read_object

from ..model.weights import open_weights
from . import genai
from .ways import check_rope

PRECISIONS = ("fp32", "fp16", "int8", "int4")  # ONNX Runtime GenAI's names
PROVIDERS = ("cpu", "cuda")
REFUSED = {
    ("fp16", "cpu"): "GenAI's builder makes no fp16 graph that runs on a CPU; use int8 or fp32, or provider cuda",
    ("fp32", "cuda"): "the fp32 graph is the same for every provider; ask for it with provider cpu",
}


def check_precision(precision: str, provider: str = "cpu") -> None:
    """Raises InputError for a precision or provider, in any case, that is unknown or makes no sense together."""
    precision, provider = precision.lower(), provider.lower()
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r} is not supported yet; known: {', '.join(PRECISIONS)}")
    if provider not in PROVIDERS:
        raise InputError(f"unknown provider {provider!r}; known: {', '.join(PROVIDERS)}")
    if reason := REFUSED.get((precision, provider)):
        raise InputError(f"precision {precision} for {provider}: {reason}")


def check_onnx(model: Path, precision: str, provider: str = "cpu") -> None:
    """All that can be said about an export before it starts: what `to_onnx` raises, but for damaged weights."""
    check_precision(precision, provider)
    if exporter(model, precision) == "optimum":
        check_rope(model)
        if is_saved_by_5(model):  # installing the extra would lead to a refusal of the folder
            raise InputError(
                f"{model}: saved by transformers 5, and optimum-onnx, which would make its graph, works with 4.57: "
                "export it to GGUF, or train it again where the extra is:  pip install 'edgedc[optimum]'"
            )
        need("optimum.exporters.onnx", "optimum-onnx", "optimum")
        return
    need("onnxruntime_genai", "onnxruntime-genai", "export")
    need("onnx_ir", "onnx-ir", "export")
    genai.check_versions()
    genai.check_model(model, precision.lower())


def exporter(model: Path, precision: str) -> Literal["GenAI", "optimum"]:
    """Who makes the graph: in fp32, optimum where GenAI's builder is not proven.

    Of a Llama of 60 million weights the builder's graph has the same scores as optimum's, and decodes 1.2 to 1.4 times
    as fast.
    """
    if precision.lower() != "fp32":
        return "GenAI"
    try:
        genai.check_model(model, "fp32")
    except InputError:
        return "optimum"
    return "GenAI"


def to_onnx(
    model: Path, folder: Path, precision: str = "fp32", provider: str = "cpu", *, context_length: int = 0
) -> tuple[list[str], dict[str, Any]]:
    """Write model.onnx, its external data and, where GenAI made it, what its generator needs into `folder`; or nothing.

    `context_length` is the bundle's, 0 the one in config.json: the longest sequence that a built graph can run, and
    genai_config.json's max_length. Returns the files' names, the graph first, then its external data; and the details
    for the manifest. Raises InputError when the export is not possible (see check_onnx), or a weight is not finite or
    cannot be read; EdgedcError when optimum or the builder fails.
    """
    check_onnx(model, precision, provider)
    precision, provider = precision.lower(), provider.lower()
    by = exporter(model, precision)
    if by == "GenAI":
        context_length = _context_length(model, context_length)
    for tensor in open_weights(model).values():
        tensor.read()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".onnx.", dir=folder.parent) as stage:
        (details,) = in_child("exporting to ONNX", _export, str(model), stage, by, precision, provider, context_length)
        graph = ["model.onnx", *details["external_data"]]
        rest = [] if by == "optimum" else ["genai_config.json", *genai.TOKENIZER_FILES]
        names = [name for name in (*graph, *rest) if (Path(stage) / name).is_file()]
        folder.mkdir(exist_ok=True)
        for name in names:
            shutil.move(Path(stage) / name, folder / name)
    return names, details


def _context_length(model: Path, asked: int) -> int:
    trained = read_object(model / "config.json").get("max_position_embeddings")
    if not isinstance(trained, int) or trained < 1:
        raise InputError(f"{model / 'config.json'}: no max_position_embeddings, so the context's length is not known")
    return min(asked or trained, trained)


def _export(
    model: str, stage: str, by: str, precision: str, provider: str, context_length: int
) -> Iterator[dict[str, Any]]:
    out = Path(stage)
    details: dict[str, Any] = {"precision": precision, "provider": provider}
    if by == "optimum":
        details["builder"] = _by_optimum(model, out)
    else:
        details["builder"] = genai.build(model, out, precision, provider, context_length)
        details["context_length"] = context_length
    yield {**details, **_describe(out / "model.onnx")}


def _by_optimum(model: str, out: Path) -> str:
    from optimum.exporters.onnx import main_export

    # the gate compares with more than optimum's validation would, and through the backend that ships
    main_export(model, out, task="text-generation-with-past", dtype="fp32", local_files_only=True, do_validation=False)
    return f"optimum-onnx {version('optimum-onnx')}"


def _describe(path: Path) -> dict[str, Any]:
    """The operators' version, how many nodes there are, and the files that hold the weights beside the graph."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    places = [entry.value for t in model.graph.initializer for entry in t.external_data if entry.key == "location"]
    return {
        "opset": next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
        "nodes": len(model.graph.node),
        "external_data": sorted(set(places)),
    }
