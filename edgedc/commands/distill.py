"""`edgedc distill`: teach, screen, train, merge and export by a recipe, in one go that can be stopped and run again."""

import dataclasses
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from click.core import ParameterSource

from edgedc.bench.table import table
from edgedc.bundle import Manifest, read_manifest
from edgedc.commands._made import Values, keys_of, make, settings_of
from edgedc.commands._say import say
from edgedc.commands._verbs import run, values
from edgedc.errors import EdgedcError, GateError, InputError
from edgedc.files import beside, check_replaceable, read_rows
from edgedc.flags import flags
from edgedc.recipes import Recipe, find_recipe
from edgedc.tasks import Selection, load_examples, read_examples
from edgedc.workshop import workshop

ROWS = ("teach", "screen")  # these verbs go on by themselves, row by row


@dataclasses.dataclass(frozen=True)
class Step:
    """A verb, the words behind it, and the file or folder that it makes."""

    verb: str
    words: tuple[object, ...]
    made: Path

    @property
    def line(self) -> tuple[object, ...]:
        return (self.verb, *self.words)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("distilled"), show_default=True, help="Folder.")
@flags(Selection)
@click.argument("recipe")
def command(out: Path, selection: Selection, recipe: str) -> None:  # noqa: ARG001 (passed on as it was given)
    """Teach, screen, train, merge and export by RECIPE, the name of one that ships with edgedc, or a file.

    Each step is a verb, shown as you would type it. Stopped at any moment and run again it goes on: rows that are
    there are not asked for again, and what was made of the same inputs with the same settings stays. Flags of the task
    given here win over the recipe's [teach].
    """
    found = find_recipe(recipe)
    for key, text in found.about.items():
        click.echo(f"{key}: {text.strip()}", err=True)
    steps = _steps(found, recipe, out, _given_flags())
    if "merge" in found.tables and all(step.verb != "merge" for step in steps):
        click.echo("note: [merge] has no part in this: every weight is trained, and nothing is merged", err=True)
    _check(steps)
    told, chosen = [], dict[object, Path]()
    for planned in steps:
        step = dataclasses.replace(planned, words=tuple(chosen.get(word, word) for word in planned.words))
        seconds = _carry_out(step)
        if step.verb in ROWS:
            chosen[step.made] = _chosen(step)
        told.append(_told(step, seconds, chosen.get(step.made, step.made)))
    say(table(("step", "made", "result", "time", "cost"), told))
    failed = [a for a in read_manifest(steps[-1].made).artifacts if a.passed is False]
    if failed:
        lines = "; ".join(f"{a.path}: {a.gate['first_difference']}" for a in failed)
        raise GateError(f"{steps[-1].made}: not equal enough to the model it was made from: {lines}")


def _given_flags() -> list[str]:
    """The flags of the task that stand on the command line or in the environment."""
    context = click.get_current_context()
    words = []
    for field in dataclasses.fields(Selection):
        if context.get_parameter_source(field.name) not in (None, ParameterSource.DEFAULT):
            value = context.params[field.name]
            words += [f"--{field.name.replace('_', '-')}", "none" if value is None else str(value)]
    return words


def _steps(recipe: Recipe, name: str, out: Path, given: list[str]) -> list[Step]:
    by = ("--recipe", name)
    rows, adapter, student = out / "demonstrations.jsonl", out / "adapter", out / "student"
    steps = [Step("teach", (*by, *given, rows), rows)]
    if "screen" in recipe.tables:
        rows = out / "screened.jsonl"
        steps.append(Step("screen", (*by, steps[0].made, rows), rows))
    train = values("train", *by, rows, adapter)
    if train["from_scratch"] or train["tuning"] == "full":
        steps.append(Step("train", (*by, rows, student), student))  # a whole model, with nothing to merge
    else:
        steps.append(Step("train", (*by, rows, adapter), adapter))
        prompts = () if values("merge", *by)["prompts"] else ("--prompts", steps[0].made)
        steps.append(Step("merge", (*by, *prompts, adapter, student), student))
    return [*steps, Step("export", (*by, student, out / "bundle"), out / "bundle")]


def _check(steps: list[Step]) -> None:
    """Raises InputError for what can be told before anything is paid for."""
    given = {step.verb: values(*step.line) for step in steps}
    _check_method(given["train"]["method"], screened="screen" in given)
    if "screen" in given:
        screen = workshop("train.teaching.screen")
        screen.find_job(settings_of(screen.ScreenSettings, given["screen"]))
    sft, train = workshop("train.fitting.sft"), settings_of(workshop("train.settings").TrainSettings, given["train"])
    workshop("train.fitting.launch").check(train)
    sft.check(train)
    base = Path(sft.find_base(train.base)[0])
    order = _order(given["export"])
    prompts = [(given.get("merge") or {}).get("prompts"), order.prompts, order.calibrate]
    read = [Path(path) for path in (base, train.held_out, *prompts) if path]
    for step in steps:
        if step.verb not in ROWS:
            check_replaceable(step.made, *read)
    questions = settings_of(Selection, given["teach"])
    pairs = _check_leaks(questions, train)
    if train.from_scratch:
        workshop("export.order").check_order(base, order)  # by the default base, whose shape is like the student's
    else:
        _check_student(Path(questions.data or questions.task), pairs, train, order, steps[0].made)
    for asked in prompts:
        if asked and Path(asked) != steps[0].made:
            load_examples(Selection(task="jsonl", data=str(asked)))


def _order(given: Values) -> Any:
    return dataclasses.replace(
        settings_of(workshop("export.order").Order, given),
        quantizations=",".join(given["quantizations"]) or None,
        precisions=",".join(given["precisions"]),
        max_drop=given["max_drop"] and workshop("export.gate.candidates").parse_drop(given["max_drop"]),
    )


def _check_leaks(selection: Selection, train: Any) -> list[Any]:
    """As  edgedc train  does with the rows that come of these questions; the pairs of those that it learns from."""
    leaks, untaught = workshop("train.sets.leaks"), workshop("train.sets.pairs").untaught
    tests = leaks.held_out_in([train.held_out] if train.held_out else [])
    how = (train.method, train.prompt_style, train.max_subquestions)
    pairs = [untaught(example, line, *how) for line, example in enumerate(read_examples(selection), start=1)]
    kept: list[Any] = leaks.check_leaks(selection.data or selection.task, pairs, tests, exclude=train.exclude_leaks)[0]
    return kept


def _check_student(data: Path, pairs: list[Any], train: Any, order: Any, rows: Path) -> None:
    """What train and export would say of the base, which the student will be like in all but the weights."""
    with TemporaryDirectory(prefix="edgedc-") as scratch:
        student = Path(scratch)
        context = workshop("train.fitting.sft").check_untaught(data, pairs, train, student)
        asked = student / "questions.jsonl"  # for the rows that are not there yet
        asked.write_text("".join(json.dumps({"question": p.question, "premise": p.premise}) + "\n" for p in pairs))
        files = {name: asked for name in ("prompts", "calibrate") if getattr(order, name) == rows}
        manifest = Manifest(
            kind="model",
            name="student",
            base=train.base,
            method=train.method,
            prompt_style=train.prompt_style,
            max_subquestions=train.max_subquestions,
            context_length=context,
        )
        try:
            workshop("export.ship").check(student, manifest, dataclasses.replace(order, **files), _note)
        except EdgedcError as error:
            error.args = (str(error).replace(scratch, train.base),)
            raise


def _note(line: str) -> None:
    click.echo(line, err=True)


def _check_method(method: str, *, screened: bool) -> None:
    """As train/sets/pairs.py has it, whose rows would be there, and paid for, by then."""
    said = f"[train] method {method}: is made from rows of  edgedc"
    if method == "S_D-T" and screened:
        raise InputError(f'{said} teach: say method = "S_D-R", or leave [screen] out')
    if method in ("S_D-R", "S_E-T", "S_E-A") and not screened:
        raise InputError(f"{said} screen: add [screen] with its solver_model")


def _carry_out(step: Step) -> float | None:
    """Seconds; None for what was there already. A gate's refusal is told at the end, from the bundle's manifest."""
    started = time.monotonic()
    try:
        if step.verb in ROWS:
            run(*step.line)
        elif not make(*step.line):
            return None
    except GateError:
        if step.verb != "export":
            raise
    return time.monotonic() - started


def _chosen(step: Step) -> Path:
    """The rows that this recipe asks for. What another one left in the file was paid for, but is not to be learnt."""
    keys = keys_of(step.verb, values(*step.line))
    path = step.made.with_suffix(".chosen.jsonl")
    wanted = [row["key"] in keys for row in read_rows(step.made)]
    if all(wanted):
        path.unlink(missing_ok=True)
        return step.made
    with beside(path) as stage, stage.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in read_rows(step.made) if row["key"] in keys)
    click.echo(f"{path}: the {sum(wanted)} of {len(wanted)} rows that this recipe asks for", err=True)
    return path


def _told(step: Step, seconds: float | None, chosen: Path) -> list[str | None]:
    took = "there already" if seconds is None else f"{seconds:.0f} s"
    if step.verb in ROWS:
        return [step.verb, str(step.made), _outcomes(chosen), took, _cost(step.made)]
    return [step.verb, str(step.made), _figures(step), took, None]


def _outcomes(path: Path) -> str:
    counts: dict[str, int] = {}
    for row in read_rows(path):
        word = row["outcome"] if "verdict" not in row else "passed" if row["verdict"] else "did not pass"
        counts[word] = counts.get(word, 0) + 1
    told = ", ".join(f"{n} {word}" for word, n in sorted(counts.items(), key=lambda item: -item[1]))
    return f"{sum(counts.values())} rows: {told}"


def _cost(path: Path) -> str:
    """Of all runs, calls without a row included; a row without a price is told apart from one that cost nothing."""
    costs = {row["key"]: row.get("cost") for row in read_rows(path)}
    unpriced = list(costs.values()).count(None)
    with workshop("train.calls.spending").Spending(path, costs, sum(cost or 0 for cost in costs.values())) as spending:
        return f"${spending.total:.4f}" + (f", {unpriced} rows without a price" if unpriced else "")


def _figures(step: Step) -> str:
    manifest = read_manifest(step.made)
    if step.verb == "train":
        return f"{manifest.method}, {sum(data.rows for data in manifest.data)} rows"
    if step.verb == "merge":
        agreement = manifest.recipe["merge"]["agreement"]
        return f"as the adapter: KL {agreement['kl']:.1e}, top-1 {agreement['top1']:.1%}"
    said = {True: "passed", False: "FAILED", None: "not gated"}
    return ", ".join(f"{a.quantization} {said[a.passed]}" for a in manifest.artifacts)
