"""The systems of a comparison: no decomposer, a remote one, local ones."""

from dataclasses import dataclass

from edgedc.answers import Asked
from edgedc.decomposer import Decomposer
from edgedc.generation import Solver
from edgedc.prices import Price

# a solver that fails this often in a row is down, not unlucky
MAX_FAILURES = 5


@dataclass(frozen=True)
class System:
    """A way to answer questions: one row of the results.

    `identity` says which decomposer it is, whatever its name: a hash of a local one, the model and URL of a
    remote one. `price` is that of a remote decomposer's tokens.
    """

    name: str
    mode: Asked
    decomposer: Decomposer | None = None
    identity: str = ""
    price: Price | None = None


# what a decomposition has to beat: the published baseline, and the fair one that may think first
BASELINES = (System("single-stage", "single-stage"), System("cot", "cot"))


def remote_system(solver: Solver, price: Price, url: str, mode: Asked) -> System:
    """A large model that has not been trained to decompose breaks the question down over the network."""
    decomposer = Decomposer(solver.model, "remote", solver.solve, "instruct-1")
    return System("remote", mode, decomposer, f"{solver.model} at {url}", price)
