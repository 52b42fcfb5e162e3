"""Connections that say nothing are closed: uvicorn itself waits for a request's headers for ever."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


def patient(seconds: float) -> type[H11Protocol]:
    """uvicorn's protocol, with a limit on the time in which neither a request nor an answer is under way."""

    class Patient(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            asyncio.get_running_loop().call_later(seconds, self._look, None)

        def _look(self, idle_since: Any) -> None:
            """Closes where the last request is the one of the look before, and answered."""
            if self.transport.is_closing():
                return
            idle = self.cycle is None or self.cycle.response_complete
            if idle and self.cycle is idle_since:
                self.transport.close()
                return
            asyncio.get_running_loop().call_later(seconds, self._look, self.cycle if idle else self)

    return Patient
