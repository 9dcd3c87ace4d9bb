"""edgedc bench: how fast, and local against remote."""

import click

from edgedc.commands import _bench_cost, _bench_latency, _bench_pair, _bench_report


@click.group()
def command() -> None:
    """Measure how fast a decomposer is, compare local with remote decomposition, and work out what pays."""


command.add_command(_bench_latency.command, "latency")
command.add_command(_bench_pair.command, "pair")
command.add_command(_bench_cost.command, "cost")
command.add_command(_bench_report.command, "report")
