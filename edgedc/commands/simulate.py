"""edgedc simulate: the simulated solver on this machine, for a second terminal."""

import shlex
import threading

import click

from edgedc.flags import flags
from edgedc.solvers.loopback import Timing
from edgedc.solvers.simulated import MODEL, Skill, simulated_server


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8123, show_default=True, help="Port; 0: a free one.")
@click.option("--split", default="test", show_default=True, help="Microworld split: train, test or heldout.")
@click.option(
    "--count", type=click.IntRange(min=1), default=1000, show_default=True, help="How many of its problems are known."
)
@click.option("--seed", default=0, show_default=True, help="Seed of the problems and of the solver's errors.")
@flags(Skill)
@flags(Timing)
def command(port: int, split: str, count: int, seed: int, skill: Skill, timing: Timing) -> None:
    """Serve a simulated solver for microworld problems until Ctrl-C.

    It speaks the OpenAI chat protocol and goes wrong at the rates given here: what it scores is an assumption.
    """
    from edgedc.tasks.microworld import problems

    known = list(problems(split, count, seed))
    example = next((problem for problem in known if len(problem.steps) > 1), known[0])
    with simulated_server(known, skill, port, timing=timing, seed=seed) as url:
        ask = f"edgedc ask {shlex.quote(example.question)} --solver-url {url} --solver-model {MODEL}"
        click.echo(
            f"A simulated solver is at {url}; it knows {count} problems of microworld's {split} split.\n"
            f"In another terminal, the solver alone:\n  {ask} --mode cot\n"
            f"and with the newest bundle there, else the model named default:\n  {ask}\nCtrl-C stops it.",
            err=True,
        )
        threading.Event().wait()
