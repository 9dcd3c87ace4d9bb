"""The verbs. Each lives in a file of edgedc/commands and is imported only when it is called."""

import errno
import importlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from edgedc import __version__, recipes
from edgedc.errors import EdgedcError

# verb -> what the list of verbs says of it; edgedc/commands/<verb>.py holds `command`
VERBS = {
    "decompose": "Break questions into subquestions, offline.",
    "ask": "Decompose here, solve there: the whole pairing.",
    "flush": "Send the questions that wait for a solver.",
    "distill": "Teach, screen, train, merge and export, by a recipe.",
    "teach": "Write demonstrations from a teacher's decompositions.",
    "screen": "Keep the decompositions that lead a solver to the answer.",
    "train": "Fit a LoRA adapter, or a tiny model from scratch.",
    "merge": "Merge an adapter into its base: a model folder.",
    "export": "Convert a model to GGUF or ONNX, through the gate.",
    "bench": "Measure speed; compare local with remote decomposition.",
    "compare": "Say what really changed between two benches.",
    "evaluate": "Score decomposers, with any solver, on any task.",
    "serve": "An OpenAI-compatible endpoint: decompose here, solve there.",
    "simulate": "Run the simulated solver on this machine.",
    "models": "List the models at hand.",
    "pull": "Fetch a model from the hub.",
    "doctor": "Say what is installed; check a bundle.",
    "demo": "The whole chain on this machine, offline.",
}


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return list(VERBS)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] not in VERBS and (near := recipes.nearest(args[0], VERBS)):
            ctx.fail(f"No such command {args[0]!r}; did you mean {near}?")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        if name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"edgedc.commands.{name}").command
        if name in recipes.VERBS and all(option.name != "recipe" for option in command.params):
            command.params.append(recipes.recipe_option())
        parts = command.commands if isinstance(command, click.Group) else {}
        for prefix, part in [(name, command), *((f"{name}_{k}", part) for k, part in parts.items())]:
            for key, option in recipes.options_of(part).items():
                option.envvar = (
                    f"EDGEDC_{prefix}_{key}".upper()
                )  # as the flag is called, where click takes the parameter
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgedc")
def cli() -> None:
    """Small decomposers on the device, large solvers elsewhere.

    A flag may also stand in the environment: EDGEDC_TRAIN_BATCH_SIZE=8 is --batch-size 8 of  edgedc train.

    Results go to stdout, progress to stderr. Exit codes: 0 done, 1 failed, 2 usage, 3 gate failed, 4 budget reached,
    130 interrupted, 143 terminated.
    """


def _variable(error: click.ClickException) -> str:
    """The environment variable that a value came from which cannot be: the message names the flag alone."""
    if not isinstance(error, click.BadParameter) or error.ctx is None or error.param is None:
        return ""
    source = error.ctx.get_parameter_source(str(error.param.name))
    return f"{error.param.envvar}: " if source is ParameterSource.ENVIRONMENT else ""


def _as_ctrl_c() -> list[int]:
    """SIGTERM, and SIGHUP unless nohup(1) has it ignored, end a verb as Ctrl-C does: what is staged is removed.

    A second one kills. A verb may have a handler of its own for some time. Returns the list that gets the number.
    """
    got: list[int] = []

    def end(number: int, frame: Any) -> None:
        got.append(number)
        signal.signal(number, signal.SIG_DFL)
        pressed = signal.getsignal(signal.SIGINT)
        if not callable(pressed):  # a shell starts what is in its background with SIGINT ignored
            raise KeyboardInterrupt
        pressed(signal.SIGINT, frame)

    for name in ("SIGTERM", "SIGHUP"):  # Windows knows no SIGHUP
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, end)
    return got


def _dashed(error: click.ClickException) -> str:
    """For a question that was taken for flags."""
    if not isinstance(error, click.NoSuchOption) or error.option_name.startswith("--") or error.ctx is None:
        return ""
    asks = any(param.name == "question" for param in error.ctx.command.params)
    return " Put  --  before a question that begins with a dash." if asks else ""


def main(args: list[str] | None = None) -> Any:
    """Run a verb; a known failure becomes one line on stderr and its exit code, and so does trouble with a file.

    Any other error is a bug, and keeps its traceback.
    """
    got = _as_ctrl_c() if threading.current_thread() is threading.main_thread() else []
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: nobody wants to see it
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 (until the process ends)
    try:
        code = cli.main(args, prog_name="edgedc", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except EdgedcError as error:
        click.echo(f"edgedc: {error}", err=True)
        sys.exit(error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        message = error.format_message()
        stop = "" if message.endswith((".", "?")) else "."
        hint = f"{stop}{_dashed(error)} See  {context.command_path} --help" if context else ""
        click.echo(f"edgedc: {_variable(error)}{message}{hint}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        ended_by = got[0] if got else signal.SIGINT
        click.echo(f"edgedc: {'terminated' if got else 'interrupted'}", err=True)
        sys.exit(128 + ended_by)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            said = f"{error.filename or 'stdout or a file'}: cannot be written: {error.strerror}"
        elif error.filename is not None:
            said = f"{error.filename}: {error.strerror}"
        elif error.errno == errno.ENOENT:  # getcwd(2)'s
            said = "the working folder is gone: go to another"
        else:
            raise
        click.echo(f"edgedc: {said}", err=True)
        sys.exit(1)
