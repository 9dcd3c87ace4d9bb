"""What `--decomposer` may name, and the system that each becomes."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from edgedc.answers import Mode
from edgedc.bench.published import Cap
from edgedc.bench.sources import file_system, gold_system, remembered
from edgedc.bench.systems import BASELINES, System
from edgedc.catalogue import find_model
from edgedc.commands._local import Local, Settings, choose_local
from edgedc.commands._solver import Opened
from edgedc.decomposer import Decomposer
from edgedc.errors import InputError
from edgedc.prompts import MAX_SUBQUESTIONS
from edgedc.tasks import Example

_ALONE = {"none": BASELINES[0], "cot": BASELINES[1]}
NAMES = ("local", "remote", "gold", *_ALONE)


def _is_model(name: str) -> bool:
    """A name that means something here means no folder that happens to be called so."""
    return name == "local" or (name not in NAMES and find_model(Path(name)).is_dir())


class Decomposers:
    """Opens each local model once, whatever the tasks, modes and solvers; the stack closes them."""

    def __init__(self, stack: ExitStack, settings: Settings) -> None:
        self._stack, self._settings = stack, settings
        self._chosen: dict[str, Local] = {}
        self._open: dict[tuple[str, Cap], tuple[Local, Decomposer]] = {}

    def check(self, name: str, *, solver: bool) -> None:
        """Raises InputError for what cannot be a decomposer here. Nothing is loaded."""
        if name in _ALONE or name == "remote":
            if not solver:
                raise InputError(f"--decomposer {name} needs a solver: name one with --solver-model, or give --replay")
        elif _is_model(name):
            self._choose(name, "own")
        elif name not in NAMES and not Path(name).is_file():
            raise InputError(
                f"--decomposer {name}: no such file; give {', '.join(NAMES)}, a bundle, a name in  edgedc models, "
                "or a file of decompositions"
            )

    def system(
        self, name: str, examples: Sequence[Example], mode: Mode, opened: Opened | None, cap: Cap = "own"
    ) -> System:
        """`cap` "own" is what the model was trained with, else the default; "none": no limit.

        `opened` is needed for a remote one alone. Raises InputError for a file that lacks one of the questions.
        """
        if name in _ALONE:
            return replace(_ALONE[name], name=name)
        if _is_model(name):
            local, decomposer = self._local(name, cap)
            return System(local.choice.manifest.name, mode, decomposer, local.key)
        most = self._most(cap)
        if name == "gold":
            return gold_system(examples, mode, most)
        if name != "remote":
            return file_system(Path(name), examples, mode, most)
        if opened is None:
            raise ValueError("a remote decomposer needs a solver")
        far = opened.remote
        decomposer = Decomposer(far.solver.model, "remote", far.solver.solve, "instruct-1", most)
        # asked anew for every system: what it costs is part of what is measured
        return System(
            f"remote {far.solver.model}", mode, decomposer, f"{far.solver.model} at {far.identity}", far.price
        )

    def _most(self, cap: Cap) -> int | None:
        if cap == "own":
            return self._settings.max_subquestions or MAX_SUBQUESTIONS
        return None if cap == "none" else cap

    def _choose(self, name: str, cap: Cap) -> Local:
        if name not in self._chosen:
            own = name == "local"
            self._chosen[name] = choose_local(self._settings if own else replace(self._settings, model=Path(name)))
        local = self._chosen[name]
        return local if cap == "own" else replace(local, cap=self._most(cap))

    def _local(self, name: str, cap: Cap) -> tuple[Local, Decomposer]:
        if (name, cap) not in self._open:
            local = self._choose(name, cap)
            self._open[name, cap] = local, remembered(self._stack.enter_context(local.decomposer()))
        return self._open[name, cap]
