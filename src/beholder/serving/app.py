"""The routes: ``GET /health``, ``GET /rewards``, ``POST /score``; every error is JSON."""

import asyncio
import hmac
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from beholder import __version__
from beholder.serving.batching import Batcher, Job
from beholder.serving.body import MIB, Budget, read_body
from beholder.serving.problem import Problem
from beholder.serving.schema import Failed, ScoreReply, ScoreRequest, items_of, read_request
from beholder.serving.settings import ServeConfig
from beholder.serving.worker import Item, Scored, Served

SCHEMA = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": ScoreRequest.model_json_schema()}}}
}


def make_app(
    batcher: Callable[[], Batcher],
    served: Sequence[Served],
    config: ServeConfig,
    token: str | None,
    broken: Callable[[], None],
) -> FastAPI:
    """The application; ``batcher`` is made on its event loop, ``broken`` is called when no worker starts any more."""
    budget, names = Budget(config.held_mb * MIB), [row.name for row in served]
    running: dict[str, Batcher] = {}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        running["batcher"] = batcher()
        task = asyncio.create_task(running["batcher"].run())
        task.add_done_callback(lambda _: broken())
        yield
        task.cancel()
        running["batcher"].worker.kill()  # nobody waits for it any more; frees the thread that does
        await asyncio.gather(task, return_exceptions=True)

    app = FastAPI(title="beholder serve", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    _say_errors(app)

    def admit(request: Request) -> None:
        said = request.headers.get("authorization", "")
        if token is not None and not hmac.compare_digest(said.encode(), f"Bearer {token}".encode()):
            raise Problem(401, "Authorization", "no token, or another one", "send the bearer token of this server")

    @app.get("/health")
    async def health() -> JSONResponse:
        """200 while scores are given, 503 while the worker is being replaced."""
        line = running["batcher"]
        content = {"status": line.state, "waiting": line.waiting, "held_bytes": budget.held, "restarts": line.restarts}
        return JSONResponse(content | {"version": __version__}, 200 if line.state == "ok" else 503)

    @app.get("/rewards")
    async def rewards(request: Request) -> JSONResponse:
        """What is served, under which licence."""
        admit(request)
        limits = {"items": config.queue, "bytes": config.body_mb * MIB, "pixels": config.pixels}
        return JSONResponse({"rewards": [asdict(row) for row in served], "limits": limits})

    @app.post("/score", response_model=ScoreReply, openapi_extra=SCHEMA)
    async def score(request: Request) -> JSONResponse:
        """The values of media under their prompts."""
        admit(request)
        with budget.share() as share:
            body = await read_body(request, config, share)
            items, asked = await asyncio.to_thread(_understand, body, names)
            del body
            jobs = running["batcher"].submit([item for item in items if isinstance(item, Item)])
            try:
                scored = await _answers(request, jobs, config.timeout)
            finally:
                running["batcher"].forget(jobs)
        return JSONResponse(_reply(items, scored, asked).model_dump())

    return app


def _understand(body: bytes, names: list[str]) -> tuple[list[Item | Failed], list[str]]:
    request = read_request(body, names)
    return items_of(request, names), list(dict.fromkeys(request.rewards or names))


async def _answers(request: Request, jobs: Sequence[Job], timeout: float) -> list[Scored]:
    """What the worker says of each; Problem 504 when time is up, 400 when the client has left."""
    if not jobs:
        return []
    together = asyncio.gather(*(job.answer for job in jobs))
    left = asyncio.create_task(_departure(request))
    try:
        await asyncio.wait({together, left}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if together.done():
            return together.result()
        if left.done():
            raise Problem(400, "connection", "closed by the client", "wait for the answer")
        raise Problem(504, "time", f"no scores after {timeout:g} s", "send fewer media, or serve with more --timeout")
    finally:
        left.cancel()
        together.cancel()


async def _departure(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _reply(items: Sequence[Item | Failed], scored: Sequence[Scored], asked: Sequence[str]) -> ScoreReply:
    values: dict[str, list[float | None]] = {name: [] for name in asked}
    failed: list[Failed] = []
    answers = iter(scored)
    for i, item in enumerate(items):
        one = Scored()
        if isinstance(item, Failed):
            failed.append(item)
        else:
            one = next(answers)
            if one.unreadable:
                failed.append(_failed(i, None, one.unreadable))
            failed += [_failed(i, name, why) for name, why in one.failed.items()]
        for name in asked:
            values[name].append(one.values.get(name))
    return ScoreReply(values=values, failed=failed)


def _failed(i: int, reward: str | None, why: str) -> Failed:
    """Beholder's own messages are ``field: what is wrong; remedy``."""
    field, colon, rest = why.partition(": ")
    field, rest = (field, rest) if colon else ("reward", why)
    value, _, remedy = rest.partition("; ")
    remedy = remedy or "leave the item out, or send another one"
    return Failed(item=i, reward=reward, field=f"items[{i}].{field}", value=value, remedy=remedy)


def _say_errors(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def problem(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Problem)
        return _said(error)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        asked = f"{request.method} {request.url.path}"
        return _said(Problem(error.status_code, "path", asked, "use GET /health, GET /rewards or POST /score"))

    @app.exception_handler(Exception)
    async def surprise(request: Request, error: Exception) -> JSONResponse:
        return _said(Problem(500, "server", type(error).__name__, "see the server's log"))


def _said(problem: Problem) -> JSONResponse:
    content: Any = problem.content
    return JSONResponse(content, problem.status, problem.headers)
