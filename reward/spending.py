"""Money for judging: what was spent, and a budget that isn't passed.

Before a call its dearest outcome is set aside; after it, what it cost. So calls that run at once can't pass the budget together, as
far as our count of the prompt's tokens is the server's. A call that failed counts as free, and one that the SDK repeated as one.
Leaves out prices (`chat/prices.py`).
"""

import math
import threading

from chat.types import Price, Usage
from reward.errors import JudgeError


class Purse:
    """Spent and set-aside money of one judge, over all its calls; safe for many threads."""

    def __init__(self, budget: float | None, price: Price | None, model: str) -> None:
        """`budget` is in the price's currency; None: no limit. Raises: JudgeError for a budget that can't be kept."""
        if budget is not None and not 0.0 <= budget < math.inf:
            raise JudgeError(f"budget: expected a finite sum of 0 or more, got {budget}")
        if budget is not None and price is None:
            raise JudgeError(f"budget: expected a model whose price is known, got {model!r}, which the price table doesn't name; add it to "
                             "a table and set FETCHGATE_PRICES, or judge without a budget")
        self.budget = budget
        self.price = price
        self._lock = threading.Lock()
        self._spent = 0.0
        self._aside = 0.0
        self._calls = 0

    @property
    def spent(self) -> float | None:
        """So far, in the price's currency; None: the price is unknown."""
        return None if self.price is None else self._spent

    @property
    def may_find_room(self) -> bool:
        """Whether calls are on their way, whose end may free some of what was set aside."""
        return self._calls > 0

    def set_aside(self, most: Usage) -> float | None:
        """Money for a call of at most this usage; None where the budget has no room for it."""
        sum_ = dearest(most, self.price)
        with self._lock:
            if self.budget is not None and self._spent + self._aside + sum_ > self.budget:
                return None
            self._aside += sum_
            self._calls += 1
        return sum_

    def settle(self, aside: float, cost: float | None) -> None:
        """The call is over: what was set aside comes back, and what it cost is spent."""
        with self._lock:
            self._calls -= 1
            self._aside = self._aside - aside if self._calls else 0.0
            self._spent += cost or 0.0


def dearest(usage: Usage, price: Price | None) -> float:
    """What a call can cost where nothing of its input is cached; 0 where the price is unknown."""
    return 0.0 if price is None else (usage.input_tokens * price.input + usage.output_tokens * price.output) / 1e6
