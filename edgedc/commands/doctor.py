"""`edgedc doctor`: what is installed here, or whether a bundle is what was exported."""

import dataclasses
import json
from collections import Counter
from pathlib import Path

import click

from edgedc.bench.table import table
from edgedc.bundle import Artifact, Manifest, read_manifest
from edgedc.catalogue import find_model
from edgedc.child import in_child
from edgedc.doctor import Check, Installed, cannot_run, check_files, installed, try_artifact
from edgedc.errors import EdgedcError, InputError
from edgedc.machine import MAX_THREADS

NO_AMX = (
    "llama.cpp's kernels for AMX crash where GCC compiled them, and are not used; faster built without them:\n"
    "  CMAKE_ARGS='-DCMAKE_C_FLAGS=-U__AMX_INT8__ -DCMAKE_CXX_FLAGS=-U__AMX_INT8__' "
    "pip install --force-reinstall --no-deps --no-cache-dir --no-binary llama-cpp-python llama-cpp-python"
)


@click.command()
@click.option("--threads", type=click.IntRange(1, MAX_THREADS), help="Of smoke prompts.  [default: the free cores]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
def command(threads: int | None, as_json: bool, bundle: Path | None) -> None:
    """Say what is installed; or check on this machine that BUNDLE is what was exported.

    Every file is compared with its hash, every artifact that can run here is loaded and asked one question of the gate,
    and its special tokens and chat template are compared with the model's. Exit code 1 where something is wrong.
    """
    if bundle is None:
        _show_installed(as_json)
        return
    bundle = find_model(bundle)
    manifest = read_manifest(bundle)
    if manifest.kind != "bundle":
        raise InputError(f"{bundle}: a {manifest.kind} folder; name a bundle (edgedc export)")
    checks = check_files(bundle, manifest)
    for artifact in manifest.artifacts:
        click.echo(f"trying {artifact.path}", err=True)
        checks += _tried(bundle, manifest, artifact, threads)
    failed = [check for check in checks if check.outcome == "FAILED"]
    if as_json:
        rows = [dataclasses.asdict(check) for check in checks]
        click.echo(json.dumps({"bundle": manifest.name, "passed": not failed, "checks": rows}, ensure_ascii=False))
    else:
        click.echo(table(("of", "check", "outcome", "why"), [dataclasses.astuple(check) for check in checks]))
        counts = Counter(check.outcome for check in checks)
        click.echo(", ".join(f"{count} {outcome}" for outcome, count in counts.items()), err=True)
    if failed:
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        raise EdgedcError(f"{bundle}: {failed[0].of}: {failed[0].check}: {failed[0].detail}{more}")


def _tried(bundle: Path, manifest: Manifest, artifact: Artifact, threads: int | None) -> list[Check]:
    if reason := cannot_run(bundle, artifact):
        return [Check(artifact.path, "smoke prompt", "skipped", reason)]
    made: list[Check] = []
    try:
        made += in_child(f"running {artifact.path}", try_artifact, bundle, manifest, artifact, threads)
    except EdgedcError as error:
        made.append(Check(artifact.path, "smoke prompt", "FAILED", f"does not run: {error}"))
    return made


def _show_installed(as_json: bool) -> None:
    here = installed()
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(here) | {"missing": here.missing()}))
    else:
        _tell(here)
    if here.broken:
        told = "; ".join(f"{package} is installed and does not load: {why}" for package, why in here.broken.items())
        raise EdgedcError(f"{told}: install it again")


def _tell(here: Installed) -> None:
    rows = [
        (extra if k == 0 else "", name, version or "missing")
        for extra, versions in here.packages.items()
        for k, (name, version) in enumerate(versions.items())
    ]
    click.echo(f"edgedc {here.edgedc}, Python {here.python}\n")
    click.echo(table(("extra", "package", "version"), rows))
    if here.providers:
        click.echo(f"\nonnxruntime's providers: {', '.join(here.providers)}")
    if here.llama_cpp_gpu:
        click.echo("\nllama.cpp finds a GPU: --backend llamacpp-gpu runs there")
    if here.llama_cpp_amx:
        click.echo(f"\n{NO_AMX}")
    for extra, command_line in here.missing().items():
        click.echo(f"to have {extra}:  {command_line}")
