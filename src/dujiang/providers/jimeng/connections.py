"""How far a request got on its way to the endpoint.

Whether a failed submit is proved not to have been charged hangs on one fact: did any byte of it reach a connection?
httpcore tells each of its steps to a `trace`. Only steps that are known to come before sending count as such; whatever
a later version may tell instead counts as sent, so that an upgrade can bring doubt but never a false proof.
"""

from typing import Any, Final

import httpx2

NEVER_SENT: Final = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
"""Failures that httpcore can only raise before it sends the request: name lookup, TCP, TLS, proxy, no free socket."""

CONNECTING: Final = ("connection.", "proxy.", "socks.")  # how the names of steps begin that make a connection


class Progress:
    """How far one request got; to be passed as the `trace` extension of that request."""

    def __init__(self) -> None:
        self._begun = False
        self._in_tunnel = False
        self._left = False

    async def __call__(self, step: str, info: dict[str, Any]) -> None:
        """httpcore took a step."""
        self._begun = True
        if step.startswith(CONNECTING):
            self._in_tunnel = False
        elif _is_connect(info.get("request")):
            self._in_tunnel = True  # what is sent now goes to the proxy, ahead of the request and without a word of it
        elif not self._in_tunnel or "request" in info:
            self._left = True

    def proves_unsent(self, failure: BaseException) -> bool:
        """Whether no byte of the request can have reached a connection before `failure`.

        Either the steps prove it, or, on a transport that tells none, the kind of the failure does.
        """
        return not self._left and (self._begun or isinstance(failure, NEVER_SENT))


def _is_connect(request: object) -> bool:
    return getattr(request, "method", None) == b"CONNECT"
