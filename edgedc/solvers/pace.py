"""How fast a server is asked: so many requests and tokens a minute, for all threads together."""

import threading
import time


class Pace:
    """Spreads requests evenly, so that no minute has more than it may. None is no limit.

    Before a request its longest reply is counted; `give_back` returns what was not used of it.
    """

    def __init__(self, requests_per_minute: float | None = None, tokens_per_minute: float | None = None) -> None:
        self._a_request_s = 60 / requests_per_minute if requests_per_minute else 0.0
        self._a_token_s = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._request_at = self._tokens_at = self._held_until = 0.0  # of time.monotonic
        self._lock = threading.Lock()

    def wait(self, tokens: int) -> float:
        """Sleep until a request of so many tokens, its reply included, may be sent. Returns the seconds slept."""
        started = time.monotonic()
        with self._lock:
            at = max(started, self._request_at, self._tokens_at)
            self._request_at = at + self._a_request_s
            self._tokens_at = at + tokens * self._a_token_s
        while (rest := max(at, self._held_until) - time.monotonic()) > 0:
            time.sleep(rest)
        return time.monotonic() - started

    def give_back(self, tokens: int) -> None:
        with self._lock:
            self._tokens_at -= tokens * self._a_token_s

    def hold(self, seconds: float) -> None:
        """Nobody asks for so long: the server said so."""
        with self._lock:
            self._held_until = max(self._held_until, time.monotonic() + seconds)
