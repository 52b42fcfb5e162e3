"""Waiting images become batches, batches become answers; a worker that dies is replaced and its images tried again.

An image is tried twice at most, the second time alone: whatever kills the worker takes no other image with it.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from beholder.errors import InputError
from beholder.serving.problem import Problem
from beholder.serving.settings import ServeConfig
from beholder.serving.worker import Item, Scored, Worker, WorkerDied

TRIES = 2
"""How often an image may be with the worker when that dies."""
STARTS = 3
"""Failed starts in a row after which the server gives up."""
PAUSE = 0.5
"""Seconds before the second of these; doubled before each further one."""
LOOK = 1.0
"""Seconds between two looks at an idle worker."""
MOST_PATIENCE = 60
"""Seconds that a client is asked to stay away at most."""
BATCH_BYTES = 2**26
"""Encoded bytes that are sent to the worker together."""


@dataclass(eq=False)
class Job:
    """An image that waits for its scores."""

    item: Item
    answer: "asyncio.Future[Scored]"
    tries: int = 0


class Batcher:
    """The queue and the one task that empties it. Lives on the event loop; only `Worker`'s methods run in threads."""

    def __init__(self, worker: Worker, start: Callable[[], Worker], config: ServeConfig) -> None:
        self.worker, self._start, self._config = worker, start, config
        self._waiting: deque[Job] = deque()
        self._came = asyncio.Event()
        self._seconds = 0.1
        """What an image took lately."""
        self.restarts = 0
        self.state = "ok"
        """ok, restarting, or broken when no worker starts any more."""

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, items: Sequence[Item]) -> list[Job]:
        """Lines the images up, all or none; Problem 503 when the queue is full, 413 when they can never fit."""
        room = self._config.queue
        if self.state == "broken":
            raise Problem(503, "server", self.state, "no scoring process starts; see the server's log")
        if len(items) > room:
            raise Problem(413, "items", f"{len(items)} media", f"send {room} or fewer in a request")
        if len(items) + len(self._waiting) > room:
            patience = min(math.ceil(len(self._waiting) * self._seconds) or 1, MOST_PATIENCE)
            said = f"{len(self._waiting)} of {room} images are waiting"
            raise Problem(503, "queue", said, f"come back in {patience} s", retry_after=patience)
        loop = asyncio.get_running_loop()
        jobs = [Job(item, loop.create_future()) for item in items]
        self._waiting.extend(jobs)
        self._came.set()
        return jobs

    def forget(self, jobs: Sequence[Job]) -> None:
        """Takes images out of the queue whose client has left."""
        for job in jobs:
            job.answer.cancel()  # those that are answered do not mind
        if any(job.answer.cancelled() for job in jobs):
            self._waiting = deque(job for job in self._waiting if not job.answer.done())

    async def run(self) -> None:
        """Until cancelled, or until no worker starts."""
        while self.state != "broken":
            batch = await self._gather()
            if batch:
                await self._put(batch)
            elif not self.worker.alive:
                await self._restart()

    async def _gather(self) -> list[Job]:
        """The next images; none when nothing came for a while."""
        if not self._waiting:
            self._came.clear()
            try:
                await asyncio.wait_for(self._came.wait(), LOOK)
            except TimeoutError:
                return []
            await asyncio.sleep(self._config.linger_ms / 1000)
        batch: list[Job] = []
        size = 0
        while self._waiting and len(batch) < self._config.batch:
            job = self._waiting[0]
            size += len(job.item.data)
            if batch and (size > BATCH_BYTES or job.tries or batch[0].tries):
                break
            self._waiting.popleft()
            if not job.answer.done():
                batch.append(job)
        return batch

    async def _put(self, batch: list[Job]) -> None:
        began = time.monotonic()
        asked = asyncio.create_task(asyncio.to_thread(self.worker.ask, [job.item for job in batch]))
        done, _ = await asyncio.wait({asked}, timeout=self._config.batch_timeout)
        if not done:
            self.worker.kill()
        try:
            scored = await asked
        except WorkerDied as died:
            late = "" if done else f" after {self._config.batch_timeout:g} s without an answer"
            self._again(batch, f"{died}{late}")
            return await self._restart()
        for job, one in zip(batch, scored, strict=True):
            if not job.answer.done():
                job.answer.set_result(one)
        self._seconds = 0.8 * self._seconds + 0.2 * (time.monotonic() - began) / len(batch)

    def _again(self, batch: list[Job], why: str) -> None:
        for job in reversed(batch):
            job.tries += 1
            if job.answer.done():
                continue
            if job.tries < TRIES:
                self._waiting.appendleft(job)
            else:
                job.answer.set_result(Scored(unreadable=f"worker: {why}, twice, the second time with this item alone"))

    async def _restart(self) -> None:
        """Another worker, ready to score; after too many failures the server is broken and everybody is told."""
        self.state, why = "restarting", ""
        for attempt in range(STARTS):
            if attempt:
                await asyncio.sleep(PAUSE * 2 ** (attempt - 1))
            await asyncio.to_thread(self._bury)
            try:
                self.worker = await asyncio.to_thread(self._start)
                await asyncio.to_thread(self.worker.ready)
            except (WorkerDied, InputError, OSError) as error:
                why = str(error)
                continue
            self.restarts += 1
            self.state = "ok"
            return
        self.state = "broken"
        for job in self._waiting:
            if not job.answer.done():
                job.answer.set_exception(Problem(503, "worker", why, "no scoring process starts; see the server's log"))
        self._waiting.clear()

    def _bury(self) -> None:
        self.worker.kill()
        self.worker.leave()
