"""edgedc bench report: the results of a bench as one HTML file."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from edgedc.bench.cost import CostSettings, compare, questions
from edgedc.bench.latency import read_latencies
from edgedc.bench.pair import Results, read_results, records_of
from edgedc.bench.report import check_report, render
from edgedc.bundle import read_manifest
from edgedc.catalogue import find_model
from edgedc.commands.bench.cost import joules_in
from edgedc.errors import InputError
from edgedc.files import check_writable, write_text
from edgedc.flags import flags


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.argument("html", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--latency", type=click.Path(path_type=Path), help="What  edgedc bench latency --output  wrote.")
@click.option(
    "--bundle", "bundles", multiple=True, type=click.Path(path_type=Path), help="Show its quantisations; repeatable."
)
@flags(CostSettings)
def command(
    results: Path, html: Path, latency: Path | None, bundles: tuple[Path, ...], costsettings: CostSettings
) -> None:
    """Write HTML from RESULTS of  edgedc bench pair: one file that needs no network, for screens, phones and paper.

    Nothing is measured or paid again. The flags are the assumptions behind cost and break-even.
    """
    check_writable(html, check_report)
    made = read_results(results)
    write_report(html, results, made, costsettings, [find_model(bundle) for bundle in bundles], latency)
    click.echo(html)


def write_report(
    html: Path,
    output: Path,
    results: Results,
    settings: CostSettings,
    bundles: Sequence[Path] = (),
    latency: Path | None = None,
) -> None:
    """`output` is the file of the results, whose raw rows lie beside it."""
    made = records_of(results, output.with_name(results.rows))
    records = [record for own in made.values() for record in own]
    joules = joules_in(latency, list(made)) if latency else {}
    try:
        found = questions(results.systems, joules)
    except InputError:
        found = []  # nothing to compare: the report shows the rest
    measured = read_latencies(latency) if latency else ()
    gates = {}
    for bundle in bundles:
        manifest = read_manifest(bundle)
        if manifest.name in gates:
            raise InputError(
                f"--bundle {bundle}: another one is named {manifest.name} too, and they look alike: show one"
            )
        gates[manifest.name] = [asdict(artifact) for artifact in manifest.artifacts]
    compared = [compare(question, settings) for question in found]
    write_text(html, render(results, records, compared, settings, measured, gates))
