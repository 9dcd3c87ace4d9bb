"""What sound and broken exports of trained models measure at the gate, for every type: the ground of its limits.

    python benchmarks/gate_limits.py demo/student edgedc/models/demo-base

Each MODEL is exported in every type of GGUF, with an importance matrix where a type cannot do without one, and to ONNX.
Then it is damaged in ways that converters have been seen to damage models, and types of that, of each limit the
smallest one, are compared with the whole model. Prints both and writes results/gate_limits.json beside this file; some
minutes for each model.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

import edgedc
from edgedc.bundle import Artifact
from edgedc.machine import cpu_model
from edgedc.tasks.microworld import problems
from edgedc.workshop import workshop

RESULT = Path(__file__).parent / "results" / "gate_limits.json"
CALIBRATED_ON = 100
BROKEN_QUESTIONS = 16  # a broken model rarely ends a reply, which takes time
FIGURES = ("text", "decomposition", "top1", "kl")
Row = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="trained models' folders")
    models = parser.parse_args().models
    sound, broken = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for k, model in enumerate(models):
            place = Path(scratch) / str(k)
            place.mkdir()
            sound += [{"model": model.name, **row} for row in measure(model, place)]
            broken += [{"model": model.name, **row} for row in measure_broken(model, place)]
            shutil.rmtree(place)
    show(sound, broken)
    result = {
        "sound": sound,
        "broken": broken,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": {n: version(n) for n in ("edgedc", "llama-cpp-python", "onnxruntime", "torch", "transformers")},
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count()},
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(as_lines(result), "utf-8")
    return 0


def as_lines(result: dict[str, Any]) -> str:
    """JSON with one row to a line."""
    parts = []
    for key, value in result.items():
        rows = ",\n".join(f"  {json.dumps(row)}" for row in value) if isinstance(value, list) else ""
        parts.append(f" {json.dumps(key)}: " + (f"[\n{rows}\n ]" if rows else json.dumps(value)))
    return "{\n" + ",\n".join(parts) + "\n}\n"


def measure(model: Path, scratch: Path) -> Iterator[Row]:
    """Every type's figures."""
    types = workshop("export.gguf.quantize").TYPES
    plain, fitted = (",".join(name for name, t in types.items() if t.calibrated == needs) for needs in (False, True))
    made = export(model, scratch / "plain", ("gguf", "onnx"), plain, None)
    for artifact in made + export(model, scratch / "fitted", ("gguf",), fitted, questions(scratch)):
        yield {"type": artifact.quantization, **figures(artifact)}


def questions(scratch: Path) -> Path:
    """A file to calibrate on; the gate asks others."""
    path = scratch / "questions.jsonl"
    rows = [json.dumps({"question": problem.question}) for problem in problems("train", CALIBRATED_ON)]
    path.write_text("\n".join(rows), "utf-8")
    return path


def export(
    model: Path, out: Path, formats: tuple[str, ...], names: str, calibrate: Path | None, *, gated: bool = True
) -> list[Artifact]:
    order = workshop("export.order").Order(formats, names, "fp32,int8,int4", calibrate=calibrate, gated=gated)
    _, made = workshop("export.ship").ship(model, out, order, lambda line: print(line, file=sys.stderr))
    return list(made)


def measure_broken(model: Path, scratch: Path) -> Iterator[Row]:
    """What the gate makes of every damage that can be done to this model."""
    gate, observe = workshop("export.gate.gate"), workshop("export.gate.observe")
    known = workshop("export.gguf.quantize").TYPES
    # of the types that share their limits the smallest
    types = set({limits: name for name, limits in gate.THRESHOLDS.items() if name in known}.values())
    manifest = workshop("export.staging").bundle_manifest(model, model.name, None)
    context = manifest.context_length
    prompts = workshop("export.gate.prompts").prompts_for(manifest, None)[:BROKEN_QUESTIONS]
    with observe.reference_of(model, prompts, context, scratch) as reference:
        for damage, folder in damaged(model, scratch):
            for artifact in export(
                folder, scratch / "bundle", ("gguf",), ",".join(types), questions(scratch), gated=False
            ):
                done = gate.gate(scratch / "bundle", artifact, prompts, reference, context)
                row = {name: rounded(getattr(done, name)) for name in FIGURES}
                print(f"{model.name}, {damage}: {artifact.quantization}: {row}", file=sys.stderr)
                yield {"damage": damage, "type": artifact.quantization, **row}
            shutil.rmtree(scratch / "bundle")
            shutil.rmtree(folder)


def damaged(model: Path, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Copies of a model folder, each with a mistake that exporters have made."""
    weights = {name: values.astype(np.float32) for name, values in load_file(model / "model.safetensors").items()}
    config = json.loads((model / "config.json").read_text("utf-8"))
    base = Path(edgedc.__file__).parent / "models" / "demo-base" / "model.safetensors"

    def copy(changed: dict[str, Any], **settings: Any) -> Path:
        folder = Path(shutil.copytree(model, scratch / "damaged"))
        save_file(weights | changed, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(config | settings), "utf-8")
        return folder

    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    yield "q and k not permuted", copy({n: unpermuted(n, values, heads, kv_heads) for n, values in weights.items()})
    yield "norms off by one", copy({n: values + 1 for n, values in weights.items() if values.ndim == 1})
    yield "rope base 50 times as large", copy({}, rope_theta=50 * config["rope_theta"])
    name = f"model.layers.{config['num_hidden_layers'] - 1}.mlp.down_proj.weight"
    yield "last layer's down_proj lost", copy({name: np.zeros_like(weights[name])})
    if all(np.shape(weights.get(n)) == values.shape for n, values in load_file(base).items()):
        before = {n: values.astype(np.float32) for n, values in load_file(base).items()}
        if any(np.any(weights[n] != values) for n, values in before.items()):
            yield "adapter not added", copy(before)
            part = {n: before[n] + (weights[n] - before[n]) / 4 for n in weights}
            yield "adapter scaled by alpha / r, not alpha / sqrt(r)", copy(part)


def unpermuted(name: str, values: Any, heads: int, kv_heads: int) -> Any:
    """What makes the rows of a head come out in transformers' order, which llama.cpp turns in the wrong pairs."""
    if not name.endswith(("q_proj.weight", "k_proj.weight")):
        return values
    count = heads if "q_proj" in name else kv_heads
    return np.ascontiguousarray(values.reshape(count, -1, 2, values.shape[1]).swapaxes(1, 2).reshape(values.shape))


def figures(artifact: Artifact) -> Row:
    row = {name: rounded(artifact.gate[name]) for name in FIGURES}
    return {"bits_per_weight": round(artifact.details["bits_per_weight"], 2), **row}


def passes(row: Row) -> bool:
    """By today's limits."""
    limits = workshop("export.gate.gate").THRESHOLDS[row["type"]]
    shares = all(row[name] >= getattr(limits, name) for name in FIGURES[:3])
    return shares and row["kl"] is not None and bool(row["kl"] <= limits.kl)


def rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")


def show(sound: list[Row], broken: list[Row]) -> None:
    thresholds = workshop("export.gate.gate").THRESHOLDS
    print(f"{'type':8}{'text':>7}{'decomp.':>9}{'top-1':>8}{'KL':>10}   worst sound | {'limits':36} | mildest broken")
    for kind, limits in thresholds.items():
        rows = [row for row in sound if row["type"] == kind]
        if not rows:
            continue
        worst = [min(row[name] for row in rows) for name in FIGURES[:3]]
        kl = max(row["kl"] for row in rows)
        shown = f"{limits.text:.2f} {limits.decomposition:.2f} {limits.top1:.3f} {limits.kl:.0e}"
        others = [row for row in broken if row["type"] == kind and row["kl"] is not None]
        mild = min(others, key=lambda row: row["kl"], default=None)
        said = f"{mild['kl']:.1e} {mild['top1']:.3f} {mild['damage']}" if mild else ""
        print(f"{kind:8}{worst[0]:7.3f}{worst[1]:9.3f}{worst[2]:8.4f}{kl:10.1e}   | {shown:36} | {said}")
    print(f"broken artifacts that pass: {sum(map(passes, broken))} of {len(broken)}")
    print(f"sound artifacts that pass: {sum(map(passes, sound))} of {len(sound)}")


if __name__ == "__main__":
    sys.exit(main())
