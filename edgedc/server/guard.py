"""Who may ask: whoever has the key; without a key, only programs of this machine, and no page in its browser."""

import hmac
import ipaddress
import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from edgedc.server.reply import Refused, error_response

_OPEN = "/health"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Guard:
    """ASGI middleware. `key` None: a request must name this machine by its loopback address.

    A web page can send requests to 127.0.0.1, and reach it under its own name (DNS rebinding); it can neither send a
    Host of ours then, nor JSON as JSON without being asked first, which is not answered.
    """

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        self._app, self._key = app, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and scope["path"] != _OPEN:
            problem = self._problem(Headers(scope=scope))
            app = error_response(problem) if problem else app
        await app(scope, receive, send)

    def _problem(self, headers: Headers) -> Refused | None:
        if self._key is None:
            if is_loopback(re.sub(r":\d*\Z", "", headers.get("host", "")).strip("[]")):
                return None
            return Refused(403, "without a key, only this machine is served, by the name 127.0.0.1 or localhost")
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._key.encode()):
            return None
        return Refused(401, "the key is missing or wrong: send it as Authorization: Bearer KEY", code="invalid_api_key")
