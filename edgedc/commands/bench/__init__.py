"""edgedc bench: how fast, and local against remote."""

import click

from edgedc.commands.bench import cost, latency, pair, report


@click.group()
def command() -> None:
    """Measure how fast a decomposer is, compare local with remote decomposition, and work out what pays."""


command.add_command(latency.command, "latency")
command.add_command(pair.command, "pair")
command.add_command(cost.command, "cost")
command.add_command(report.command, "report")
