"""Reading the body of a request: no longer than allowed, no slower than allowed, and all of them within one budget."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from starlette.requests import ClientDisconnect, Request

from beholder.serving.problem import Problem
from beholder.serving.settings import ServeConfig

MIB = 2**20
DRAIN = 5.0
"""Seconds that a refused client is listened to: one that is still sending would not read the answer."""


class Budget:
    """Bytes of requests that are in memory."""

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """What one request holds, given back at the end."""
        share = Share(self)
        try:
            yield share
        finally:
            self.held -= share.held


class Share:
    def __init__(self, budget: Budget) -> None:
        self._budget, self.held = budget, 0

    def take(self, size: int) -> None:
        """Problem 503 where the budget has no room."""
        budget = self._budget
        if budget.held + size > budget.limit:
            said = f"{budget.held // MIB} of {budget.limit // MIB} MiB are taken by other requests"
            raise Problem(503, "memory", said, "come back in 1 s", retry_after=1)
        budget.held += size
        self.held += size


async def read_body(request: Request, config: ServeConfig, share: Share) -> bytes:
    """All of it; Problem 413 when it is too long, 408 when it takes too long, 503 when there is no memory for it."""
    stream = request.stream()
    try:
        async with asyncio.timeout(config.upload):
            return await _read(request, stream, config.body_mb * MIB, share)
    except TimeoutError:
        raise Problem(408, "body", f"not there after {config.upload:g} s", "send it faster or in parts") from None
    except ClientDisconnect:
        raise Problem(400, "body", "cut off", "send all of it") from None
    except Problem:
        if "expect" not in request.headers:  # who expects "100 Continue" has sent nothing yet
            await _drain(stream)
        raise


async def _read(request: Request, stream: AsyncIterator[bytes], limit: int, share: Share) -> bytes:
    said = request.headers.get("content-length", "")
    if said.isdigit() and int(said) > limit:
        raise _too_long(int(said), limit)
    parts: list[bytes] = []
    async for part in stream:
        if share.held + len(part) > limit:
            raise _too_long(share.held + len(part), limit)
        share.take(len(part))
        parts.append(part)
    return b"".join(parts)


def _too_long(size: int, limit: int) -> Problem:
    remedy = f"send at most {limit // MIB} MiB in a request: fewer images, or smaller ones"
    return Problem(413, "body", f"{size:,} bytes or more", remedy)


async def _drain(stream: AsyncIterator[bytes]) -> None:
    """Reads on for a while and keeps nothing."""
    try:
        async with asyncio.timeout(DRAIN):
            async for _ in stream:
                pass
    except (TimeoutError, ClientDisconnect, RuntimeError):  # starlette: a stream that has been closed
        return
