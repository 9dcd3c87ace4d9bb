"""`edgedc export`: a model folder to a bundle of GGUF and ONNX artifacts, each through the gate."""

from pathlib import Path

import click

from edgedc.bench.table import table
from edgedc.bundle import Format, Manifest, newest
from edgedc.cli import workshop
from edgedc.errors import GateError


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
    default=["f16,q8_0,q4_k_m"],
    show_default=True,
    help="GGUF: llama.cpp's type names, in any case. Repeatable, or separated by commas.",
)
@click.option("--precision", default="fp32", show_default=True, help="ONNX: the type of the weights.")
@click.option(
    "--prompts",
    type=click.Path(path_type=Path),
    help="JSONL with the questions to compare on. By default 64 made-up ones.",
)
@click.option("--gate/--no-gate", "gated", default=True, help="Compare with the model. --no-gate is recorded.")
@click.argument("model", type=click.Path(path_type=Path), required=False)
@click.argument("out", type=click.Path(path_type=Path), required=False)
def command(
    formats: tuple[Format, ...],
    quantizations: tuple[str, ...],
    precision: str,
    prompts: Path | None,
    gated: bool,
    model: Path | None,
    out: Path | None,
) -> None:
    """Convert MODEL, a folder in safetensors, to a bundle OUT that runs on a device.

    By default MODEL is the newest model in this folder and OUT stands beside it. A bundle of the same model keeps the
    artifacts that it has. An artifact that is not equal enough to the model is marked in the manifest: exit code 3.
    """
    if model is None:
        model = newest("model", Path())
        click.echo(f"model: {model}, the newest here", err=True)
    if out is None:
        out = model.resolve().with_name(f"{model.resolve().name}-bundle")
    ship = workshop("export.ship")
    order = ship.Order(formats, ",".join(quantizations), precision, prompts, gated)
    manifest, made = ship.ship(model, out, order, lambda line: click.echo(line, err=True))
    click.echo(_shown(manifest))
    click.echo(f"bundle: {out}", err=True)
    failed = [a for a in made if a.passed is False]
    if failed:
        lines = "; ".join(f"{a.path}: {a.gate['first_difference']}" for a in failed)
        raise GateError(f"not equal enough to {model}, marked in {out / 'manifest.json'}: {lines}")


def _shown(manifest: Manifest) -> str:
    headers = ("artifact", "quantization", "MB", "bits/weight", "token ids", "text", "decompositions", "passed")
    rows = []
    for a in manifest.artifacts:
        shares = [f"{a.gate[key]:.1%}" if a.gate else None for key in ("token_ids", "text", "decomposition")]
        passed = "not gated" if a.passed is None else "yes" if a.passed else "NO"
        size = f"{a.bytes / 1e6:.1f}", f"{a.details['bits_per_weight']:.2f}"
        rows.append((a.path, a.quantization, *size, *shares, passed))
    return table(headers, rows)
