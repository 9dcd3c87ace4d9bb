"""edgedc bench: local decomposition against remote decomposition, on the same questions."""

import itertools
import math
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import click

from edgedc.answers import Asked
from edgedc.backends import ENGINES, Choice, Engine, choose
from edgedc.bench.cost import CostSettings
from edgedc.bench.load import Limits, Load
from edgedc.bench.network import network_of, through
from edgedc.bench.pair import Provider, read_results, rows_beside, run_bench
from edgedc.bench.pair_tables import show
from edgedc.bench.report import check_report
from edgedc.bench.systems import BASELINES, System, remote_system
from edgedc.bundle import MANIFEST
from edgedc.catalogue import find_model
from edgedc.commands._local import AUTO, Local, Settings, default_model
from edgedc.commands._solver import REMOTE_FLAGS, recording_in
from edgedc.commands.bench.report import write_report
from edgedc.errors import BudgetError, ContextError, InputError, SolverError
from edgedc.files import check_writable
from edgedc.flags import flag, flags
from edgedc.ledger import Budget
from edgedc.methods import check_decomposes
from edgedc.prices import Price, find_price
from edgedc.server.together import together
from edgedc.solvers.openai import OpenAISolver, check_server, decomposer_keys, open_solver, server_of
from edgedc.solvers.replay import RecordingSolver
from edgedc.tasks import Unseen, find_task, load_examples


@dataclass(frozen=True)
class Questions(Unseen):
    """Which questions to compare on: a few."""

    limit: int | None = flag(50, "Take at most this many questions.")


@dataclass(frozen=True)
class Remote:
    """The solver and the remote decomposer, which is the solver's model unless another one is named."""

    solver_model: str = flag("", "The model that answers.")
    solver_url: str = flag("", "Its base URL, often ending in /v1. [default: EDGEDC_BASE_URL, OPENAI_BASE_URL, OpenAI]")
    remote_model: str = flag("", "The model that decomposes remotely. [default: --solver-model]")
    remote_url: str = flag("", "Its base URL. [default: --solver-url]")
    max_cost: float | None = flag(None, "Stop before a call that could take the spending above this many US dollars.")
    prices: str = flag("", "A price table in litellm's format. [default: edgedc's; litellm's, genai-prices']")
    price_as: str = flag("", "Price all remote tokens as this model's; for a solver that has no price of its own.")
    record: Path | None = flag(None, "Append every remote call to this JSONL file, for evaluate --replay.")


@click.command()
@click.option(
    "--model",
    "models",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A bundle or model folder; repeatable. [default: the newest bundle here, else the model named default]",
)
@click.option(
    "--backend",
    type=click.Choice(["auto", *ENGINES]),
    default="auto",
    show_default=True,
    help=AUTO,
)
@click.option("--quantization", "quantizations", multiple=True, help="Which artifact of a bundle; repeatable.")
@click.option(
    "--mode",
    type=click.Choice(["static", "interactive", "auto"]),
    default="static",
    show_default=True,
    help="auto: static, and single-stage where the decomposer says that no decomposition is needed.",
)
@flags(Questions)
@flags(Remote)
@flags(Load)
@flags(Limits)
@click.option(
    "--network",
    metavar="4g|wifi|satellite|FILE",
    default="",
    help="Emulate this network between here and the solver: added delay, limited bandwidth.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("bench.json"),
    show_default=True,
    help="Where the results go; the raw rows lie beside them, and a rerun goes on from there.",
)
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a report here, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON, not as tables.")
def command(
    models: tuple[Path, ...],
    backend: str,
    quantizations: tuple[str, ...],
    mode: Asked,
    questions: Questions,
    remote: Remote,
    load: Load,
    limits: Limits,
    network: str,
    output: Path,
    html: Path | None,
    as_json: bool,
) -> None:
    """Compare local with remote decomposition: accuracy, time, tokens, money, bytes sent.

    The same questions go through four systems or more: single-stage and cot (no decomposer), remote (a large model
    decomposes) and one for each local artifact. Time to first token and E2E count from the start of a request; speed
    is (tokens - 1) / (last token - first token); all are medians. Money is tokens at dated prices.

    One question is asked at a time, of all systems in turn. With --concurrency or --rate each system has the load to
    itself; what a question waits for is part of its seconds.
    """
    if not remote.solver_model:
        raise InputError("no solver: name its model with --solver-model, and its server with --solver-url")
    near, there = _urls(remote)
    check_server(remote.solver_model, near)
    if remote.remote_model or remote.remote_url:
        keys = decomposer_keys(there, near)
        check_server(remote.remote_model or remote.solver_model, there, keys=keys, flags=REMOTE_FLAGS)
    check_writable(output, read_results, remote.record)
    if html:
        check_writable(html, check_report, output, rows_beside(output), remote.record)
    emulated = network_of(network) if network else None
    prices = Path(remote.prices) if remote.prices else None
    price = find_price(remote.price_as or remote.solver_model, prices)
    remote_price = find_price(remote.price_as or remote.remote_model or remote.solver_model, prices)
    folders = [find_model(model) for model in models] or [default_model()]
    examples = load_examples(questions)
    with ExitStack() as stack:
        vias = stack.enter_context(through(emulated, near, there))
        provider, far = _open_remote(stack, remote, (near, there), vias, (price, remote_price), mode)
        locals_ = _open_locals(stack, folders, next((e for e in ENGINES if e == backend), None), quantizations, mode)
        total = len(examples) * (len(BASELINES) + 1 + len(locals_))
        bar = stack.enter_context(click.progressbar(length=total, label="questions x systems", file=sys.stderr))
        try:
            results = run_bench(
                [*BASELINES, far, *locals_],
                examples,
                provider=provider,
                score=find_task(questions.task).score,
                output=output,
                selection=_without_folder(questions) | {"mode": mode},
                load=load,
                limits=limits,
                network=emulated,
                progress=lambda done, total, record: bar.update(1),  # noqa: ARG005
            )
        except (SolverError, ContextError, BudgetError):
            click.echo(f"\nKept in {rows_beside(output)}: what is done. The same command goes on from there.", err=True)
            raise
    click.echo(results.to_json() if as_json else show(results))
    click.echo(f"Results: {output}; raw rows: {rows_beside(output)}", err=True)
    if html:
        bundles = [folder for folder in folders if (folder / MANIFEST).is_file()]
        write_report(html, output, results, CostSettings(), bundles)
        click.echo(f"Report: {html};  edgedc bench report  makes it with other assumptions", err=True)


def _open_locals(
    stack: ExitStack, folders: Sequence[Path], engine: Engine | None, quantizations: tuple[str, ...], mode: Asked
) -> list[System]:
    """One system for each model and quantization asked for. Chooses all of them before it loads any."""
    pairs = itertools.product(folders, quantizations or (None,))
    choices = [choose(folder, engine=engine, quantization=wanted, measure=True) for folder, wanted in pairs]
    for choice in choices:
        check_decomposes(choice.folder, choice.manifest.method)
    systems = []
    for choice in choices:
        name = _name(choice, several=len(folders) > 1)
        click.echo(f"{name}: {choice.folder} {choice.measured}".rstrip(), err=True)
        local = Local(choice, Settings(), choice.manifest.max_subquestions)
        alone = stack.enter_context(local.decomposer())
        # what is asked at the same time is worked on together, as  edgedc serve  does
        decomposer = replace(alone, generate=stack.enter_context(together(alone.generate_as_they_come)))
        systems.append(System(name, mode, decomposer, local.key))
    return systems


def _name(choice: Choice, *, several: bool) -> str:
    parts = ["local", choice.manifest.name if several else "", choice.engine]
    return " ".join(part for part in (*parts, choice.artifact.quantization if choice.artifact else "") if part)


def _urls(remote: Remote) -> tuple[str, str]:
    """Of the solver's server and of the remote decomposer's."""
    near = server_of(remote.solver_url)
    return near, remote.remote_url or near


def _open_remote(
    stack: ExitStack,
    remote: Remote,
    urls: Sequence[str],
    vias: Sequence[str | None],
    prices: tuple[Price, Price],
    mode: Asked,
) -> tuple[Provider, System]:
    """The solver and the remote decomposer, each reached by its way. Every call is booked."""
    price, remote_price = prices
    budget = Budget(math.inf if remote.max_cost is None else remote.max_cost, price)
    recorded = partial(RecordingSolver, recording=recording_in(stack, remote.record)) if remote.record else None
    solver = open_solver(remote.solver_model, urls[0], budget=budget, via=vias[0])
    stack.callback(_close, solver)
    decomposer = solver
    if remote.remote_model or remote.remote_url:
        keys = decomposer_keys(urls[1], urls[0])
        model = remote.remote_model or remote.solver_model
        budget = budget.at(remote_price)
        decomposer = open_solver(model, urls[1], keys=keys, budget=budget, via=vias[1], flags=REMOTE_FLAGS)
        stack.callback(_close, decomposer)
    solves, decomposes = (recorded(one) if recorded else one for one in (solver, decomposer))
    return Provider(solves, price, solver.url), remote_system(decomposes, remote_price, decomposer.url, mode)


def _close(solver: OpenAISolver) -> None:
    solver.close()
    if solver.retried:
        calls = f"{solver.retried} calls of {solver.model} failed and were repeated"
        doubtful = f"; what a provider may bill for {solver.retried_doubtful} of those is shown apart from the money"
        click.echo(f"note: {calls}{doubtful if solver.retried_doubtful else ''}", err=True)


def _without_folder(questions: Questions) -> dict[str, object]:
    """What was asked, with the name of a data file but not the place where it lies on this machine."""
    data = Path(questions.data).name if Path(questions.data).is_absolute() else questions.data
    return asdict(replace(questions, data=data))
