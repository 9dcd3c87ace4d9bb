"""The ceiling on spending: what calls may cost is set aside before each, and what they did cost is booked."""

import math
import threading
from dataclasses import dataclass
from typing import Protocol

from edgedc.errors import BudgetError, ContextError, InputError
from edgedc.prices import Price
from edgedc.usage import Usage


@dataclass(frozen=True)
class Hold:
    """What an account has set aside for a call: its worst case in US dollars, and the account's number for it."""

    worst: float
    number: int = 0


class Account(Protocol):
    """Money that several callers draw on, in US dollars: Purse in memory, or edgedc.spending's file."""

    @property
    def spent(self) -> float: ...

    @property
    def reserved(self) -> float: ...

    def hold(self, worst: float, *, wait: bool) -> Hold:
        """Set money aside. Raises BudgetError where a ceiling does not allow it; see Budget.reserve."""

    def settle(self, hold: Hold, cost: float) -> None:
        """Give a reservation back and book what the call cost."""


class Purse:
    """An account in this process's memory, for any number of threads, with one ceiling."""

    def __init__(self, ceiling: float, spent: float = 0.0) -> None:
        self.ceiling, self.spent, self.reserved = ceiling, spent, 0.0
        self._calls = 0  # that hold a reservation
        self._settled = threading.Condition()

    def hold(self, worst: float, *, wait: bool) -> Hold:
        with self._settled:
            while self.spent + self.reserved + worst > self.ceiling:
                if not wait or self.spent + worst > self.ceiling:
                    left = self.ceiling - self.spent - self.reserved
                    raise BudgetError(
                        f"the next call could cost ${worst:.6f}, and ${max(left, 0):.6f} of --max-cost "
                        f"${self.ceiling:.6f} is left for it: raise --max-cost or lower --max-tokens"
                    )
                self._settled.wait()
            self.reserved += worst
            self._calls += 1
        return Hold(worst)

    def settle(self, hold: Hold, cost: float) -> None:
        with self._settled:
            self._calls -= 1
            self.reserved = self.reserved - hold.worst if self._calls else 0.0  # sums of floats leave crumbs
            self.spent += cost
            self._settled.notify_all()


class Budget:
    """What calls of one model are paid from. Every call reserves its worst case first, then settles what it cost.

    Made with a ceiling in US dollars, it has a Purse of its own; `spent` is what has been spent before, and with
    math.inf as the ceiling calls are only booked. `Budget.on(account, price)` draws on any other account. Raises
    InputError for a ceiling that is not a number above 0.
    """

    def __init__(self, ceiling: float, price: Price, *, spent: float = 0.0) -> None:
        if not ceiling > 0:  # false for NaN too
            raise InputError(f"--max-cost {ceiling}: give US dollars, more than 0")
        self.ceiling = ceiling
        self.price = price
        self._account: Account = Purse(ceiling, spent)

    @classmethod
    def on(cls, account: Account, price: Price) -> "Budget":
        """Draw on an account that has its own ceilings."""
        made = cls(math.inf, price)
        made._account = account
        return made

    @property
    def spent(self) -> float:
        return self._account.spent

    @property
    def reserved(self) -> float:
        return self._account.reserved

    def at(self, price: Price) -> "Budget":
        """The same account, for calls of a model with another price."""
        made = Budget(self.ceiling, price)
        made._account = self._account
        return made

    def part(self, share: float) -> "Budget":
        """A budget apart, with this share of what is left, for a worker that cannot see what the others spend."""
        left = self.ceiling - self.spent
        spent = self.spent if share == 1 or math.isinf(left) else self.ceiling - share * left
        return Budget(self.ceiling, self.price, spent=spent)

    def reserve(self, input_tokens: int, max_tokens: int, *, attempts: int = 1, wait: bool = False) -> Hold:
        """Set the worst case of a call aside, which may be sent `attempts` times.

        `wait`: where only the reservations of other calls stand in the way, wait for those to be settled. For callers
        that hold no reservation themselves. Raises BudgetError when a ceiling does not allow it, and ContextError for
        a call that may be too long for the price, with a ceiling or without one: what it costs is not known.
        """
        price = self.price
        if price.up_to is not None and input_tokens > price.up_to:
            raise ContextError(
                f"a call could have {input_tokens:,} tokens, and the price of {price.model} ({price.source}) is for up "
                f"to {price.up_to:,}: shorten the question, or give --prices FILE with a price without that limit"
            )
        return self._account.hold(attempts * price.cost(Usage(input_tokens, max_tokens)), wait=wait)

    def settle(self, hold: Hold, cost: float) -> None:
        """Give a reservation back and book what the call cost."""
        self._account.settle(hold, cost)
