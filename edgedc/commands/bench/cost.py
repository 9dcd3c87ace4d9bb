"""edgedc bench cost: does local decomposition pay, and after how many questions?"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from edgedc.bench.cost import Comparison, CostSettings, Question, compare, questions, sensitivity
from edgedc.bench.latency import read_latencies
from edgedc.bench.metrics import Summary
from edgedc.bench.pair import read_results
from edgedc.bench.table import Cell, table
from edgedc.errors import InputError
from edgedc.flags import flags

_MEDIAN = "the median, as these results have no mean; what follows from them leaves out a long tail"


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option(
    "--latency",
    type=click.Path(path_type=Path),
    help="What  edgedc bench latency --output  metered: joules a question.",
)
@flags(CostSettings)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(results: Path, latency: Path | None, costsettings: CostSettings, as_json: bool) -> None:
    """Cost per question and per correct answer, and break-even, from RESULTS of  edgedc bench pair.

    Nothing is measured or paid again: other assumptions, another run of this. The second table halves and doubles one
    assumption at a time.
    """
    made = read_results(results)
    found = _questions(results, made.systems, latency)
    simulated = made.solver.simulated
    compared = [compare(question, costsettings) for question in found]
    varied = [(q.name, *each) for q in found for each in sensitivity(q, costsettings)]
    if as_json:
        rows = [{"system": name, "what": what, "factor": f, **asdict(c)} for name, what, f, c in varied]
        said = {"assumptions": asdict(costsettings), "comparisons": list(map(asdict, compared)), "sensitivity": rows}
        click.echo(json.dumps(said | {"simulated": simulated}, indent=2))
        return
    click.echo(_comparisons(compared))
    if simulated:
        click.echo("The solver is SIMULATED: how often it is right, and the tokens that it writes, are an assumption.")
    headers = ["break-even of", "with", "times", "queries", "days"]
    click.echo(
        "\n"
        + table(headers, [[name, what, f"{f:g}", _count(c.queries), _count(c.days)] for name, what, f, c in varied])
    )


def _questions(results: Path, systems: Sequence[Summary], latency: Path | None) -> list[Question]:
    joules = joules_in(latency, [system.system for system in systems]) if latency else {}
    try:
        return questions(systems, joules)
    except InputError as error:
        raise InputError(f"{results}: {error}") from error


def joules_in(latency: Path, systems: Sequence[str]) -> dict[str, tuple[float, str]]:
    """Of one decomposition and their source, by system; the idle machine's taken off where known.

    Raises InputError where the file measured several models that a system's name fits.
    """
    metered = _metered(latency)
    found = {system: [one for one in metered if _fits(system, one)] for system in systems}
    if several := next((system for system, made in found.items() if len(made) > 1), None):
        models = " and ".join(model for model, *_ in found[several])
        raise InputError(f"{latency}: both {models} may be {several!r}: measure the one that was compared alone")
    return {system: (made[0][2], made[0][3]) for system, made in found.items() if made}


def _fits(system: str, metered: tuple[str, str, float, str]) -> bool:
    """Whether it is the system's, which a comparison of several models calls by the model's name as well."""
    model, how, *_ = metered
    return system in (f"local {how}", f"local {model} {how}")


def _metered(latency: Path) -> list[tuple[str, str, float, str]]:
    """Model, engine and quantization, joules of a decomposition, and their source, of each that has them."""
    return [
        (
            made.model,
            # a model folder is no quantization
            made.backend if made.backend == "transformers" else f"{made.backend} {made.type}",
            (energy.gross if energy.net is None else energy.net) / len(made.asked),
            energy.source,
        )
        for made in read_latencies(latency)
        if made.asked and (energy := made.energy)
    ]


def _comparisons(compared: list[Comparison]) -> str:
    headers = (
        "US dollars per\n1,000 questions",
        "\nsolver",
        "\ndecomposer",
        "\nelectricity",
        "\nhardware",
        "\nall",
        "per 1,000\ncorrect",
        "break-even\nqueries",
        "\ndays",
    )
    rows: list[list[Cell]] = []
    for made in compared:
        far, near = made.remote, made.local
        if not rows:
            rows.append(
                ["remote", *_money(far.solve, far.decompose, None, None, far.total, made.remote_correct), None, None]
            )
        money = _money(near.solve, None, near.electricity, near.hardware, near.total, made.local_correct)
        rows.append([made.name, *money, _count(made.queries), _count(made.days)])
    sources = [f"Energy of {made.name}: {made.energy}." for made in compared]
    sources += [f"Seconds of {made.name}: {_MEDIAN}." for made in compared if made.average == "median"]
    return "\n".join([table(headers, rows), *sources])


def _money(*dollars: float | None) -> list[str | None]:
    """Of a thousand, and never a small amount that reads as nothing."""
    return [None if d is None else "<$0.0001" if 0 < d < 1e-7 else f"${1000 * d:.4f}" for d in dollars]


def _count(value: float | None) -> str:
    return "never" if value is None else f"{value:,.1f}" if 0 < value < 10 else f"{value:,.0f}"
