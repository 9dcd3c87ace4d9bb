"""A circuit breaker: a server that fails again and again is left alone for a while."""

import threading
import time

FAILURES = 5
PAUSE_S = 30.0


class Breaker:
    """After `failures` in a row calls are to fail at once for `pause_s`; then one may try, while the others still
    fail, and what comes of it decides. For any number of threads."""

    def __init__(self, failures: int = FAILURES, pause_s: float = PAUSE_S) -> None:
        self._most, self._pause_s = failures, pause_s
        self._failures, self._until = 0, 0.0
        self._lock = threading.Lock()

    def closed_for(self) -> float:
        """Seconds for which nobody is to ask; 0: ask, and say afterwards what came of it."""
        with self._lock:
            now = time.monotonic()
            if now < self._until:
                return self._until - now
            if self._failures >= self._most:  # this one tries; it may never tell, so the next one does in a while
                self._until = now + self._pause_s
            return 0.0

    def tell(self, *, well: bool) -> None:
        with self._lock:
            self._failures = 0 if well else self._failures + 1
            self._until = time.monotonic() + self._pause_s if self._failures >= self._most else 0.0
