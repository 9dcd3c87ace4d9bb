"""Interactive mode: one call per subquestion, and at the same time those that do not wait for one another."""

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TypeVar

Outcome = TypeVar("Outcome")

AT_ONCE = 8


def run_steps(
    before: Sequence[Sequence[int]],
    done: set[int],
    ask: Callable[[int], Outcome],
    keep: Callable[[int, Outcome], bool],
) -> None:
    """Ask for each number from 1 once all `before` it are done, AT_ONCE of them at most at the same time.

    `ask` runs in threads of its own; `keep` gets what it returned, one at a time, in the caller's thread, and says
    whether the number is done. Once one is not, or an `ask` raises, nothing more is asked; what is in flight is waited
    for and kept, as it is paid for, and then the first error is raised. Ctrl-C waits for nothing.
    """
    outcomes: SimpleQueue[tuple[int, Outcome | None, BaseException | None]] = SimpleQueue()

    def work(number: int) -> None:
        try:
            outcomes.put((number, ask(number), None))
        except BaseException as error:
            outcomes.put((number, None, error))

    left = [number for number in range(1, len(before) + 1) if number not in done]
    in_flight = 0
    failure: BaseException | None = None
    going = True
    while True:
        ready = [number for number in left if done.issuperset(before[number - 1])] if going else []
        for number in ready[: AT_ONCE - in_flight]:
            left.remove(number)
            in_flight += 1
            # A daemon: a call that hangs must not keep a program that was told to end.
            threading.Thread(target=work, args=(number,), name=f"edgedc-step-{number}", daemon=True).start()
        if not in_flight:
            break
        number, outcome, error = outcomes.get()
        in_flight -= 1
        if error is not None:
            failure, going = failure or error, False
        elif keep(number, outcome):  # type: ignore[arg-type]
            done.add(number)
        else:
            going = False
    if failure is not None:
        raise failure
