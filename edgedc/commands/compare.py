"""edgedc compare: what really changed between two benches."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from edgedc.bench.changes import Change, changes, differences, read_bench, summary
from edgedc.bench.table import Cell, table


@click.command()
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(before: Path, after: Path, as_json: bool) -> None:
    """Compare two results of  edgedc bench pair, question by question.

    Each difference has a 95 % interval and a p-value (McNemar's for shares, else a permutation test), adjusted for the
    number of tests. What else differs, such as the machine or the prices, is listed.
    """
    old, new = read_bench(before), read_bench(after)
    found, others = changes(old, new), differences(old, new)
    simulated = old.results.solver.simulated or new.results.solver.simulated
    if as_json:
        rows = [asdict(change) | {"real": change.real} for change in found]
        said = {"changes": rows, "differences": others, "simulated": simulated, "summary": summary(found)}
        click.echo(json.dumps(said, indent=2))
        return
    headers = ("system", "measure", "n", "before", "after", "difference\n(95 % interval)", "p\n(Holm)", "changed")
    click.echo(table(headers, [_cells(change) for change in found]))
    notes = ["The solver is SIMULATED: what it scores, and how long it takes, is an assumption."] if simulated else []
    click.echo("\n" + "\n".join([*(f"also different: {line}" for line in others), *notes, summary(found)]))


def _cells(change: Change) -> list[Cell]:
    one = change.compared
    gap = one.difference
    interval = f" ({gap.interval[0]:+.3g} to {gap.interval[1]:+.3g})" if gap.interval else ""
    p = None if one.p_holm is None else f"{one.p_holm:.3g}"
    verdict = "yes" if change.real else "no evidence" if p else gap.test
    return [one.task, one.measure, gap.n, change.before, change.after, f"{gap.value:+.3g}{interval}", p, verdict]
