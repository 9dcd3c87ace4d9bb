"""edgedc bench latency: how fast local decomposers are."""

import csv
import io
import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from edgedc.backends import ENGINE_OF, ENGINES, FORMAT, Choice, choose
from edgedc.bench.latency import Latency, LatencySettings, measure, read_latencies
from edgedc.bench.table import Cell, table
from edgedc.catalogue import find_model
from edgedc.commands._local import default_model
from edgedc.errors import InputError
from edgedc.files import check_writable, write_text
from edgedc.flags import flags
from edgedc.methods import check_decomposes

FORMATS = ("md", "csv", "json", "jsonl")


@click.command()
@click.argument("models", nargs=-1, type=click.Path(path_type=Path), metavar="[MODEL]...")
@click.option("--backend", type=click.Choice(ENGINES), help="Only what this engine runs.")
@click.option("--quantization", "quantizations", multiple=True, help="Only this artifact of a bundle; repeatable.")
@flags(LatencySettings)
@click.option("-o", "form", type=click.Choice(FORMATS), default="md", show_default=True, help="How to print it.")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Keep everything here as JSON, samples included."
)
def command(
    models: tuple[Path, ...],
    backend: str | None,
    quantizations: tuple[str, ...],
    latencysettings: LatencySettings,
    form: str,
    output: Path | None,
) -> None:
    """Measure every artifact of the bundles (default: the newest here): prompt and generation
    speed as llama-bench has them, load time, time to first token, time between tokens, whole replies, memory, energy.

    One artifact at a time, each in a process of its own. What disturbs the measurement is said on stderr.
    """
    if form in ("csv", "jsonl") and not (latencysettings.prompt_tokens or latencysettings.gen_tokens):
        raise InputError(f"-o {form} has the prompt and generation tests, and both are left out: give -o json or md")
    if output:
        check_writable(output, read_latencies)
    choices = [choice for model in models or (default_model(),) for choice in _choices(model, backend, quantizations)]
    measured = []
    for choice in choices:
        click.echo(f"measuring {choice.folder} {_type(choice)}", err=True)
        made = measure(choice, latencysettings)
        for line in made.warnings:
            click.echo(f"warning: {line}", err=True)
        measured.append(made)
    if output:
        write_text(output, json.dumps([asdict(made) for made in measured], indent=2) + "\n")
    click.echo(_printed(form, measured))


def _choices(model: Path, engine: str | None, quantizations: tuple[str, ...]) -> list[Choice]:
    """Everything in a bundle that may run here; the engine of a model folder is its own."""
    model = find_model(model)
    known = next((e for e in ENGINES if e == engine), None)
    first, *_ = [choose(model, engine=known, quantization=name) for name in quantizations or (None,)]
    check_decomposes(model, first.manifest.method)
    if first.artifact is None:
        return [first]
    asked = {name.lower() for name in quantizations}
    return [
        choose(model, engine=known or ENGINE_OF[a.format], quantization=a.quantization)
        for a in first.manifest.artifacts
        if a.format == FORMAT.get(known or ENGINE_OF[a.format])
        and (a.quantization in asked if asked else a.passed is not False and not a.for_cuda)
    ]


def _type(choice: Choice) -> str:
    return choice.artifact.quantization if choice.artifact else "fp32"


def _printed(form: str, measured: list[Latency]) -> str:
    rows = [row for made in measured for row in made.rows()]
    if form == "json":
        return json.dumps([asdict(made) for made in measured], indent=2)
    if form == "jsonl":
        return "\n".join(json.dumps(row) for row in rows)
    if form == "csv":
        text = io.StringIO()
        # As llama-bench has it: samples are lists, which a cell cannot hold.
        columns = [name for name in (rows[0] if rows else ()) if not name.startswith("samples_")]
        writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().rstrip("\n")
    return "\n\n".join(part for part in (_speeds(measured), _waits(measured), _energies(measured)) if part)


def _speeds(measured: list[Latency]) -> str:
    """As llama-bench's own table."""
    lines = [
        [
            f"{made.model} {made.type}",
            f"{made.size / 2**20:.2f} MiB",
            f"{made.n_params / 1e6:.2f} M",
            made.backend,
            made.n_threads,
            speed.test,
            f"{speed.avg_ts:.2f} ± {speed.stddev_ts:.2f}",
        ]
        for made in measured
        for speed in made.speeds
    ]
    return _markdown(["model", "size", "params", "backend", "threads", "test", "t/s"], lines) if lines else ""


def _markdown(headers: list[str], lines: list[list[Any]]) -> str:
    rows = [headers, ["---"] * len(headers), *lines]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows)


def _waits(measured: list[Latency]) -> str:
    headers = (
        "model",
        "load\ns",
        "cold\nTTFT ms",
        "TTFT\nms",
        "ITL\nms",
        "E2E\nms",
        "tokenize\nms",
        "sample\nms",
        "peak\nMB",
    )
    rows: list[list[Cell]] = []
    for made in measured:
        cold, warm = made.asked[:1], made.asked[1:]
        rows.append(
            [
                f"{made.model} {made.type} {made.backend}",
                f"{made.load_s:.2f}",
                _ms(asked.ttft_s for asked in cold),
                _ms(asked.ttft_s for asked in warm),
                _ms(asked.itl_s for asked in warm),
                _ms(asked.e2e_s for asked in warm),
                _ms([made.tokenize_s]),
                _ms([made.sample_s]),
                f"{made.peak_bytes / 1e6:.0f}",
            ]
        )
    return table(headers, rows) + "\nMedians of questions; the first one, cold, has a column of its own."


def _ms(seconds: Iterable[float | None]) -> str | None:
    known = [s for s in seconds if s is not None]
    return f"{1000 * statistics.median(known):.3g}" if known else None


def _energies(measured: list[Latency]) -> str:
    lines = []
    for made in measured:
        energy = made.energy
        if energy is None:
            continue
        n = len(made.asked)
        net = "" if energy.net is None else f", {energy.net / n:.3g} J beyond idling ({energy.idle_watts:.1f} W)"
        lines.append(f"{made.model} {made.type}: {energy.gross / n:.3g} J a question{net}; {energy.source}")
    return "\n".join(lines) or "No energy: nothing here can be metered; --watts estimates it."
