"""A reply's text as it comes: in whole characters, and without the key, which a server may echo."""

import threading
from collections.abc import Sequence

from edgedc.generation import OnText

# Servers without keys are given ones like `none`, and a reply may well hold such a word.
_SHORTEST_SECRET = 12


class Hushed(Exception):
    """Raised in the thread that speaks, once nobody listens any more."""


class Speech:
    """Pieces of text, passed on to `on_text`, and joined in the end. What is heard, joined, is what `end` returns.

    With `aside` set nothing more is passed on: a model that would not answer says so instead of an answer.
    `trouble` is what `on_text` raised; Hushed is raised in its place, as whoever reads a reply may take a ValueError of
    a listener for the server's.
    """

    def __init__(self, on_text: OnText | None, secrets: Sequence[str]) -> None:
        self.heard = self.aside = False
        self.trouble: BaseException | None = None
        self._on_text, self._secrets = on_text, secrets
        self._said: list[str] = []
        self._held = ""
        self._hushed = False
        self._lock = threading.Lock()

    def add(self, piece: str) -> None:
        """Raises Hushed."""
        text, half = _halved(self._held + piece)
        text = without(self._secrets, text)
        keep = _begun(self._secrets, text)
        self._held = keep + half
        self._say(text.removesuffix(keep))

    def end(self) -> str:
        text, half = _halved(self._held)
        self._say(text + "\ufffd" * len(half))
        return "".join(self._said)

    def pulse(self) -> None:
        """Nothing has come: `on_text` hears "", and may raise, as long as the server is silent."""
        with self._lock:
            if self._on_text:
                self._on_text("")

    def hush(self) -> None:
        """Nothing more is heard after this returns."""
        with self._lock:
            self._hushed = True

    def _say(self, text: str) -> None:
        with self._lock:
            if self._hushed:
                raise Hushed
            if text:
                self._said.append(text)
                if self._on_text and not self.aside:
                    self.heard = True
                    try:
                        self._on_text(text)
                    except BaseException as error:
                        self.trouble = error
                        raise Hushed from None


def secrets_of(*values: str | None) -> tuple[str, ...]:
    """Those that are long enough to be secrets."""
    return tuple(value for value in values if value and len(value) >= _SHORTEST_SECRET)


def without(secrets: Sequence[str], text: str) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def _begun(secrets: Sequence[str], text: str) -> str:
    """The longest end of the text with which a secret begins: the rest of it may be in the next piece."""
    ends = (s[:n] for s in secrets for n in range(1, min(len(s), len(text) + 1)) if text.endswith(s[:n]))
    return max(ends, key=len, default="")


def _halved(text: str) -> tuple[str, str]:
    """Whole characters, and the first half of one whose second half is to come.

    A server may cut a character beyond U+FFFF into its two surrogates; a half that is left alone becomes U+FFFD.
    """
    half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
    text = text.removesuffix(half) if half else text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), half
