"""edgedc bench cost: does local decomposition pay, and after how many questions?"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from edgedc.bench.cost import Comparison, CostSettings, Question, check, compare, questions, sensitivity
from edgedc.bench.table import Cell, table
from edgedc.errors import InputError
from edgedc.files import read_object, read_text
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
    check(costsettings)
    found = _questions(results, latency)
    compared = [compare(question, costsettings) for question in found]
    varied = [(q.name, *each) for q in found for each in sensitivity(q, costsettings)]
    if as_json:
        rows = [{"system": name, "what": what, "factor": f, **asdict(c)} for name, what, f, c in varied]
        value = {"assumptions": asdict(costsettings), "comparisons": list(map(asdict, compared)), "sensitivity": rows}
        click.echo(json.dumps(value, indent=2))
        return
    click.echo(_comparisons(compared))
    headers = ["break-even of", "with", "times", "queries", "days"]
    click.echo(
        "\n"
        + table(headers, [[name, what, f"{f:g}", _count(c.queries), _count(c.days)] for name, what, f, c in varied])
    )


def _questions(results: Path, latency: Path | None) -> list[Question]:
    value = read_object(results)
    try:
        return questions(value, joules_in(latency) if latency else {})
    except (KeyError, TypeError) as error:
        raise InputError(f"{results}: not the results of  edgedc bench pair  ({error!r})") from error
    except InputError as error:
        raise InputError(f"{results}: {error}") from error


def joules_in(latency: Path) -> dict[str, tuple[float, str]]:
    """Of one decomposition and their source, by engine and quantization; the idle machine's taken off where known."""
    try:
        measured: list[dict[str, Any]] = json.loads(read_text(latency))
        return {
            f"{made['backend']} {made['type']}": (_used(made["energy"]) / len(made["asked"]), made["energy"]["source"])
            for made in measured
            if made["energy"]
        }
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise InputError(f"{latency}: not what  edgedc bench latency --output  wrote ({error!r})") from error


def _used(energy: dict[str, Any]) -> float:
    gross, idle = float(energy["gross"]), energy["idle_watts"]
    return gross if idle is None else max(0.0, gross - idle * float(energy["seconds"]))


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
    return [None if d is None else f"${1000 * d:.4f}" for d in dollars]


def _count(value: float | None) -> str:
    return "never" if value is None else f"{value:,.1f}" if 0 < value < 10 else f"{value:,.0f}"
