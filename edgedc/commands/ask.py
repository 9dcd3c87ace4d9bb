"""edgedc ask: break the question down here, have it answered there."""

import dataclasses
import json
from contextlib import ExitStack
from pathlib import Path

import click

from edgedc.commands._local import Settings, choose_local
from edgedc.decomposition import render
from edgedc.errors import InputError
from edgedc.ledger import Budget, Price, find_price, load_prices
from edgedc.pipeline import MODES, Answer, Decomposer, Mode, Where, answer
from edgedc.prompts import MAX_TOKENS_SOLVE
from edgedc.solvers.openai import TIMEOUT_S, OpenAISolver, open_solver


@click.command()
@click.argument("question")
@click.option("--premise", default="", help="The text that the question is about.")
@click.option(
    "--model", "folder", type=click.Path(path_type=Path), help="Bundle or model folder.  [newest bundle here]"
)
@click.option("--mode", type=click.Choice(MODES), default="static", show_default=True, help="How the solver is asked.")
@click.option("--solver-model", help="The model that answers, as its server calls it.")
@click.option(
    "--solver-url",
    default="",
    help="Its OpenAI-compatible server.  [EDGEDC_BASE_URL, OPENAI_BASE_URL, else OpenAI; key: EDGEDC_API_KEY, "
    "OPENAI_API_KEY]",
)
@click.option("--max-cost", type=float, help="Stop before the calls could cost more US dollars.")
@click.option("--prices", type=click.Path(path_type=Path), help="Price table in litellm's format.  [the one shipped]")
@click.option("--price-as", help="Price the solver as this model of the table.")
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    default=MAX_TOKENS_SOLVE,
    show_default=True,
    help="Longest reply of the solver.",
)
@click.option("--timeout", type=click.FloatRange(min=0.1), default=TIMEOUT_S, show_default=True, help="Seconds a call.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
def command(
    question: str,
    premise: str,
    folder: Path | None,
    mode: Mode,
    solver_model: str | None,
    solver_url: str,
    max_cost: float | None,
    prices: Path | None,
    price_as: str | None,
    max_tokens: int,
    timeout: float,
    as_json: bool,
) -> None:
    """Answer QUESTION: decompose it on this device, then ask a solver elsewhere.

    The subquestions and the solver's answer go to stdout; tokens, seconds, money and what left the device to stderr.
    The modes single-stage and cot ask the solver alone.
    """
    if not question.strip():
        raise InputError("the question is empty: give one to answer")
    if not solver_model:
        raise InputError("no solver: name the model that answers with --solver-model, for example gpt-4o-mini")
    price = _price(solver_model, price_as, prices, needed=max_cost is not None)
    budget = Budget(max_cost, price) if max_cost is not None and price else None
    with ExitStack() as stack:
        solver = open_solver(solver_model, solver_url, budget=budget, timeout_s=timeout)
        stack.callback(solver.close)
        decomposer = None
        if mode in ("static", "interactive"):
            decomposer = stack.enter_context(choose_local(Settings(model=folder)).decomposer())
        result = answer(question, premise, mode=mode, solver=solver, decomposer=decomposer, max_tokens=max_tokens)
    click.echo(json.dumps(_row(result, solver, price), ensure_ascii=False) if as_json else _text(result))
    for line in _summary(result, solver, decomposer, price):
        click.echo(line, err=True)
    for note in (*result.notes, *solver.remarks):
        click.echo(f"note: {note}", err=True)


def _price(model: str, price_as: str | None, table: Path | None, *, needed: bool) -> Price | None:
    """None for a model that the table does not have, unless the price is needed or was named."""
    if needed or price_as:
        return find_price(price_as or model, table)
    return load_prices(table).get(model)


def _text(result: Answer) -> str:
    decomposed = result.decomposition and result.decomposition.status == "decomposed"
    return f"{render(result.decomposition)}\n\n{result.text}" if decomposed and result.decomposition else result.text


def _summary(result: Answer, solver: OpenAISolver, decomposer: Decomposer | None, price: Price | None) -> list[str]:
    lines = [f"mode {result.mode}"]
    if decomposer:
        lines.append(f"decomposer {decomposer.name}: {_measured(result, decomposer.where)}")
    calls = sum(stage.where == "remote" for stage in result.stages)
    label = " (simulated)" if solver.simulated else ""
    lines.append(
        f"solver {solver.model}{label} at {solver.host}: {_measured(result, 'remote')}, {calls} call{'s' * (calls > 1)}"
    )
    if solver.retried:
        lines.append(f"{solver.retried} more calls failed and were repeated; a provider may bill those too")
    money = (
        f"${result.cost(price):.6f} (price of {price.model}, {price.date})"
        if price
        else "no price known (name one with --price-as)"
    )
    return [*lines, f"{result.seconds:.2f} s, {money}, {result.bytes_sent} bytes left this device"]


def _measured(result: Answer, where: Where) -> str:
    usage = result.usage(where)
    seconds = sum(stage.generation.total_s for stage in result.stages if stage.where == where)
    counted = " (estimated)" if usage.source == "estimate" else ""
    return f"{usage.input_tokens} + {usage.output_tokens} tokens{counted} in {seconds:.2f} s"


def _row(result: Answer, solver: OpenAISolver, price: Price | None) -> dict[str, object]:
    decomposition = result.decomposition
    return {
        "answer": result.final,
        "text": result.text,
        "mode": result.mode,
        "notes": [*result.notes, *solver.remarks],
        "subquestions": decomposition.texts if decomposition else None,
        "decomposition": decomposition.status if decomposition else None,
        "solver": solver.model,
        "simulated": solver.simulated,
        "seconds": result.seconds,
        "bytes_sent": result.bytes_sent,
        "usage": dataclasses.asdict(result.usage()),
        "cost_usd": result.cost(price) if price else None,
        "price": dataclasses.asdict(price) if price else None,
        "retried": solver.retried,
        "stages": [
            {"name": stage.name, "where": stage.where, **dataclasses.asdict(stage.generation)}
            for stage in result.stages
        ],
    }
