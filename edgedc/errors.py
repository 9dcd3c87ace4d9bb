"""Everything that edgedc raises on purpose, and the exit code each becomes.

EdgedcError                 1   something failed
├── InputError              2   the user's input, flag or file is wrong
│   ├── ContextError            a prompt does not fit the model's context, or is too long for its price
│   ├── MissingExtra            an optional package is not installed
│   └── NoGpu                   it is made for a GPU, and none can be used here
├── GateError               3   an exported artifact is not equal to the model it was made from
├── BudgetError             4   the next call could cost more than --max-cost leaves
└── SolverError             1   the remote model could not be used
    ├── SolverUnreachable       no connection, or it broke
    ├── SolverTimeout           no answer in time
    └── SolverReply             an answer that is an error or not the protocol
        └── SolverRefused       ... and no later call would fare better

The message is one line: it names the input, what is wrong, and what to do about it. Trouble with a file, an OSError
that names one, becomes a line too; anything else that is raised is a bug and keeps its traceback.
"""

import importlib.util


class EdgedcError(Exception):
    exit_code = 1


class InputError(EdgedcError):
    exit_code = 2


class ContextError(InputError):
    pass


class MissingExtra(InputError):
    def __init__(self, package: str, extra: str) -> None:
        self.package = package
        super().__init__(f"{package} is not installed: run  pip install 'edgedc[{extra}]'")


class NoGpu(InputError):
    pass


def need(module: str, package: str, extra: str) -> None:
    """Raises MissingExtra where there is no such module; it is not imported, those above it are."""
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise MissingExtra(package, extra)


class GateError(EdgedcError):
    exit_code = 3


class BudgetError(EdgedcError):
    exit_code = 4


class SolverError(EdgedcError):
    cost: float | None = None  # US dollars booked for attempts that the server may charge for; None without a Budget
    doubtful = 0  # attempts that the server may charge for
    bytes_sent = 0  # that left this device for attempts that came to nothing


class SolverUnreachable(SolverError):
    pass


class SolverTimeout(SolverError):
    pass


class SolverReply(SolverError):
    pass


class SolverRefused(SolverReply):
    pass
