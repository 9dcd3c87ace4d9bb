"""`edgedc export`: a model folder to a bundle of GGUF and ONNX artifacts, each through the gate."""

from pathlib import Path

import click
from click.core import ParameterSource

from edgedc.backends.gguf_header import check_adapter
from edgedc.bench.table import table
from edgedc.bundle import Format, Manifest, newest
from edgedc.errors import GateError, InputError
from edgedc.files import check_writable
from edgedc.flags import resolved
from edgedc.workshop import workshop


@click.command()
@click.option(
    "--format",
    "formats",
    type=click.Choice(["gguf", "onnx"]),
    multiple=True,
    default=["gguf"],
    show_default=True,
    help="What to make. Repeatable.",
)
@click.option(
    "--quantization",
    "quantizations",
    multiple=True,
    help="GGUF: llama.cpp's type names in any case, or its numbers. Repeatable, or separated by commas.  "
    "[default: f16,q8_0,q4_k_m]",
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    default=["fp32"],
    show_default=True,
    help="ONNX: fp32, int8 or int4 for the CPU; fp16, int8 or int4 for CUDA. Repeatable, or separated by commas.",
)
@click.option(
    "--provider",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="ONNX: where the graph is to run. Without a GPU the gate runs one for cuda on the CPU.",
)
@click.option(
    "--adapter",
    type=click.Path(path_type=Path),
    help="Add this LoRA adapter to MODEL, its base, while it is exported; no merged folder is made. GGUF only.",
)
@click.option(
    "--adapter-only",
    is_flag=True,
    help="Write --adapter alone into OUT, a GGUF that llama.cpp loads over MODEL's.",
)
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path),
    help="GGUF: JSONL with questions; types are fitted to what the model does with them (importance matrix).",
)
@click.option(
    "--max-drop",
    help="GGUF: try types from small to large, and keep the smallest that loses at most this much, as 1% or 0.01.",
)
@click.option(
    "--prompts",
    type=click.Path(path_type=Path),
    help="JSONL with the questions to compare on. By default 64 made-up ones.",
)
@click.option("--gate/--no-gate", "gated", default=True, help="Compare with the model. --no-gate is recorded.")
@click.option(
    "--llama-cpp",
    type=click.Path(path_type=Path),
    help="GGUF, for families that edgedc does not convert itself: a checkout of llama.cpp.  [default: the source of "
    "the installed llama-cpp-python, fetched once, 77 MB]",
)
@click.argument("model", type=click.Path(path_type=Path), required=False)
@click.argument("out", type=click.Path(path_type=Path), required=False)
def command(
    formats: tuple[Format, ...],
    quantizations: tuple[str, ...],
    precisions: tuple[str, ...],
    provider: str,
    adapter: Path | None,
    adapter_only: bool,
    calibrate: Path | None,
    max_drop: str | None,
    prompts: Path | None,
    gated: bool,
    llama_cpp: Path | None,
    model: Path | None,
    out: Path | None,
) -> None:
    """Convert MODEL, a folder in safetensors, to a bundle OUT that runs on a device.

    By default MODEL is the newest model in this folder and OUT stands beside it. A bundle of the same model keeps the
    artifacts that it has. An artifact that is not equal enough to the model is marked in the manifest: exit code 3.
    """
    if adapter and model is None:
        raise InputError("--adapter: name MODEL, the folder of the base that it was trained over")
    if adapter_only:
        _adapter_alone(model, adapter, out)
        return
    if model is None:
        model = newest("model", Path())
        click.echo(f"model: {model}, the newest here", err=True)
    if out is None:
        stem = (adapter or model).resolve()
        out = stem.with_name(f"{stem.name}-bundle")
    _check_flags(formats, gated)
    drop = workshop("export.gate.candidates").parse_drop(max_drop) if max_drop is not None else None
    order = workshop("export.order").Order(
        formats,
        ",".join(quantizations) if quantizations else None,
        ",".join(precisions),
        provider,
        adapter,
        prompts,
        calibrate,
        drop,
        llama_cpp,
        gated,
        resolved(),
    )
    manifest, made = workshop("export.ship").ship(model, out, order, lambda line: click.echo(line, err=True))
    click.echo(_shown(manifest))
    click.echo(f"bundle: {out}", err=True)
    failed = [a for a in made if a.passed is False]
    if failed:
        lines = "; ".join(f"{a.path}: {a.gate['first_difference']}" for a in failed)
        raise GateError(f"not equal enough to {model}, marked in {out / 'manifest.json'}: {lines}")


def _check_flags(formats: tuple[Format, ...], gated: bool) -> None:
    """Raises InputError for a flag that would change nothing. A recipe's values may stand there for another run."""
    idle = {
        **({} if "gguf" in formats else dict.fromkeys(("quantizations", "llama_cpp"), "add --format gguf")),
        **({} if "onnx" in formats else dict.fromkeys(("precisions", "provider"), "add --format onnx")),
        **({} if gated else {"prompts": "leave out --no-gate"}),
    }
    context = click.get_current_context()
    for option in context.command.params:
        given = context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
        if given and (mend := idle.get(str(option.name))):
            raise InputError(f"{option.opts[0]} has no part in this export: leave it out, or {mend}")


def _adapter_alone(model: Path | None, adapter: Path | None, out: Path | None) -> None:
    context = click.get_current_context()
    for option in context.command.params:
        given = context.get_parameter_source(str(option.name)) is not ParameterSource.DEFAULT
        if given and option.name not in ("adapter", "adapter_only", "model", "out"):
            raise InputError(f"--adapter-only writes the adapter and nothing else: leave out {option.opts[0]}")
    if model is None or adapter is None or out is None or out.suffix != ".gguf":
        raise InputError("--adapter-only: give --adapter DIR, MODEL and OUT, a file that ends with .gguf")
    if out.is_file():
        check_writable(out, check_adapter)
    workshop("export.gguf.adapter").adapter_to_gguf(model, adapter, out)
    click.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB, for llama.cpp's --lora over the GGUF of {model}")


def _shown(manifest: Manifest) -> str:
    headers = ("artifact", "type", "MB", "bits/weight", "tokens", "top-1", "KL", "text", "decompositions", "passed")
    rows = []
    for a in manifest.artifacts:
        shown = {key: f"{a.gate[key]:.1%}" for key in ("token_ids", "top1", "text", "decomposition") if a.gate}
        kl = f"{a.gate['kl']:.1e}" if a.gate and a.gate["kl"] is not None else None
        shares = (shown.get("token_ids"), shown.get("top1"), kl, shown.get("text"), shown.get("decomposition"))
        reason = a.details.get("not_gated")
        unknown = f"not gated ({reason})" if reason else "not gated"
        passed = unknown if a.passed is None else "yes" if a.passed else "NO"
        passed += " (on a CPU)" if a.gated_without_gpu else ""
        size = f"{a.bytes / 1e6:.1f}", f"{a.details['bits_per_weight']:.2f}"
        rows.append((a.path, a.quantization, *size, *shares, passed))
    return table(headers, rows)
