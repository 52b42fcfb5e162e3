"""JSON over HTTP with a deadline, further attempts after what may pass, and no redirect (it would carry the token)."""

import http.client
import json
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

TOKEN = "BEHOLDER_TOKEN"
"""The environment variable with the bearer token."""
LARGEST_REPLY = 4 * 2**20
LONGEST_REFUSAL = 4096
LONGEST_WAIT = 30.0
"""Seconds between attempts at most, whatever the server asks for."""
MAY_PASS = (408, 409, 425, 429, 500, 502, 503, 504)

T = TypeVar("T")


class Patience(Protocol):
    """How long and how often a server is asked."""

    @property
    def timeout(self) -> float: ...
    @property
    def retries(self) -> int: ...
    @property
    def backoff(self) -> float: ...


class Failure(Exception):
    """Why an exchange failed, and whether another attempt may do better."""

    def __init__(
        self,
        why: str,
        again: bool = False,
        status: int | None = None,
        wait: float = 0.0,
        answered: bool = False,
        said: str = "",
    ) -> None:
        super().__init__(why)
        self.why, self.again, self.status, self.wait, self.said = why, again, status, wait, said
        self.answered = answered or status is not None
        """Whether anybody sent anything back."""


def post_patiently(url: str, body: Any, patience: Patience, read: Callable[[Any], T]) -> T:
    """What ``read`` makes of the reply; the last Failure when every attempt failed, or one that cannot pass."""
    for attempt in range(patience.retries + 1):
        try:
            return read(exchange(url, body, patience.timeout))
        except Failure as failure:
            if not failure.again or attempt == patience.retries:
                raise
            pause = patience.backoff * 2**attempt * random.uniform(0.5, 1.0)  # so that many do not come back at once
            time.sleep(min(max(pause, failure.wait), LONGEST_WAIT))
    raise AssertionError("unreachable")


def exchange(url: str, body: Any, timeout: float) -> Any:
    """The JSON that a GET (``body`` None) or a POST gets; Failure for anything else, or when time is up."""
    headers = {"Accept": "application/json"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    if os.environ.get(TOKEN):
        headers["Authorization"] = f"Bearer {os.environ[TOKEN]}"
    data = None if body is None else json.dumps(body).encode()
    deadline = time.monotonic() + timeout
    try:
        with _OPENER.open(urllib.request.Request(url, data, headers), timeout=timeout) as reply:
            content = _read(reply, deadline)
    except urllib.error.HTTPError as error:
        with error:
            raise _refused(error) from None
    except TimeoutError as error:
        raise Failure(f"no answer within {timeout:g} s", again=True) from error
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise Failure(f"no answer within {timeout:g} s", again=True) from error
        raise Failure(f"connection failed ({type(reason).__name__})", again=True) from error
    except ValueError:  # its message may hold the token
        raise Failure("the address or the token cannot be sent") from None
    try:
        return json.loads(content)
    except ValueError as error:
        raise Failure("the reply is not JSON", again=True, answered=True) from error


def _read(reply: Any, deadline: float) -> bytes:
    """The body, which must be there by the deadline: a socket's own timeout only limits the time between bytes."""
    parts, size = [], 0
    while part := reply.read1(65536):
        parts.append(part)
        size += len(part)
        if size > LARGEST_REPLY:
            raise Failure(f"the reply is longer than {LARGEST_REPLY // 2**20} MiB", answered=True)
        if time.monotonic() > deadline:
            raise TimeoutError
    return b"".join(parts)


def _refused(error: urllib.error.HTTPError) -> Failure:
    try:
        said = " ".join(error.read(LONGEST_REFUSAL).decode("utf-8", "replace").split())
    except (OSError, http.client.HTTPException):
        said = ""
    asked = error.headers.get("Retry-After", "")
    return Failure(
        f"HTTP {error.code}" + (f": {said[:120]}" if error.code < 500 and said else ""),
        again=error.code in MAY_PASS,
        status=error.code,
        wait=float(asked) if asked.isdigit() else 0.0,
        said=said,
    )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        """No redirect is followed: it becomes an HTTPError."""


_OPENER = urllib.request.build_opener(_NoRedirect)
