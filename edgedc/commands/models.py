"""edgedc models: what is at hand."""

import json
from pathlib import Path
from typing import Any

import click

from edgedc.bench.table import Cell, table
from edgedc.catalogue import Entry, at_hand, source_of


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def command(as_json: bool) -> None:
    """List the models at hand: in the box, pulled, and made in this folder or up to two levels below it.

    Any of them goes to --model: by its name if it is shipped or pulled, else by its path.
    """
    entries = list(at_hand(Path.cwd()))
    if as_json:
        for entry in entries:
            click.echo(json.dumps(_row(entry), ensure_ascii=False))
        return
    headers = ("where", "name", "kind", "base", "weights", "MB", "artifacts")
    click.echo(table(headers, [_cells(_row(entry)) for entry in entries]))


def _cells(row: dict[str, Any]) -> list[Cell]:
    size = f"{row['bytes'] / 1e6:.1f}"
    return [row["where"], row["name"], row["kind"], row["base"], row["parameters"] or None, size, row["artifacts"]]


def _row(entry: Entry) -> dict[str, Any]:
    manifest, source = entry.manifest, source_of(entry.folder)
    artifacts = [f"{a.format} {a.quantization}" for a in manifest.artifacts] if manifest else []
    return {
        "where": entry.where,
        "name": entry.name,
        "folder": str(entry.folder),
        "kind": manifest.kind if manifest else "model",
        "base": manifest.base if manifest else source.repository if source else "",
        "revision": source.revision if source else manifest.base_revision if manifest else "",
        "parameters": manifest.parameters if manifest else 0,
        "bytes": entry.bytes,
        "artifacts": ", ".join(artifacts),
    }
