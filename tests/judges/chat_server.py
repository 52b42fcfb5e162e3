"""A small chat server that speaks OpenAI's protocol over real sockets, and misbehaves as its questions ask it to."""

import base64
import io
import json
import math
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image


class ChatServer(ThreadingHTTPServer):
    """Answers with what stands in the question: ``p=0.7`` is P(yes) / (P(yes) + P(no)); see `Handler.answer`."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.models: Any = {"data": [{"id": "tiny"}]}
        self.models_status = 200
        self.token: str | None = None
        self.asked: Counter[str] = Counter()
        self.seen: list[dict[str, Any]] = []
        self.tokens_seen: list[str | None] = []
        self.flight = self.most_at_once = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ChatServer

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    flying = False
    """Whether a question of this connection is being answered."""

    def do_GET(self) -> None:
        self.server.tokens_seen.append(self.headers["Authorization"])
        if self.server.token and self.headers["Authorization"] != f"Bearer {self.server.token}":
            return self.send(401, {"error": "no such token"})
        self.send(self.server.models_status, self.server.models)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = body["messages"][0]["content"][-1]["text"].split("\n")[0]
        with self.server.lock:
            self.server.asked[question] += 1
            self.server.seen.append(body)
            self.server.tokens_seen.append(self.headers["Authorization"])
            self.server.flight += 1
            self.flying = True
            self.server.most_at_once = max(self.server.most_at_once, self.server.flight)
        try:
            self.answer(question, body, self.server.asked[question])
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            self.landed()

    def landed(self) -> None:
        """Not counted any more: before the answer leaves, or the next request could be here first."""
        with self.server.lock:
            self.server.flight -= self.flying
            self.flying = False

    def answer(self, question: str, body: dict[str, Any], attempt: int) -> None:
        words = dict(word.split("=", 1) for word in question.split() if "=" in word)
        if "sleep" in words:
            self.server.closing.wait(float(words["sleep"]))
        if attempt <= int(words.get("fail_first", 0)):
            return self.send(int(words.get("status", 500)), {"error": "not now"}, words.get("retry_after"))
        if "status" in words and "fail_first" not in words:
            return self.send(int(words["status"]), {"error": f"refused {words['status']}"})
        if "redirect" in words:
            self.send_response(307)
            self.send_header("Location", words["redirect"])
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if "raw" in words:
            return self.send_bytes(200, words["raw"].encode())
        if "drip" in words:
            return self.drip()
        if "hang_up" in words:
            self.close_connection = True
            return self.connection.close()
        self.send(200, reply(words, body))

    def drip(self) -> None:
        """A byte at a time, for ever."""
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        while not self.server.closing.is_set():
            self.wfile.write(b" ")
            time.sleep(0.02)

    def send(self, status: int, content: Any, retry_after: str | None = None) -> None:
        self.send_bytes(status, json.dumps(content).encode(), retry_after)

    def send_bytes(self, status: int, content: bytes, retry_after: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.landed()
        self.wfile.write(content)


def reply(words: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
    """A completion; log-probabilities only where they were asked for, and not where the question says ``mute``."""
    yes = float(words.get("p", 0.5))
    shares = {"Yes": 0.5 * yes, " yes": 0.2 * yes, "No": 0.7 * (1 - yes), "Hm": 0.3}
    if "off" in words:
        shares = {"Hm": 0.9, "Well": 0.1}
    top = [{"token": t, "logprob": math.log(p) if p else -9999.0} for t, p in shares.items()]
    message = {"role": "assistant", "content": words.get("says", "Yes" if yes > 0.5 else "No")}
    choice: dict[str, Any] = {"index": 0, "message": message, "logprobs": None}
    if body.get("logprobs") and "mute" not in words:
        choice["logprobs"] = {"content": [{"token": top[0]["token"], "top_logprobs": top[: body["top_logprobs"]]}]}
    return {"choices": [choice]}


def pictures_in(body: dict[str, Any]) -> list[Image.Image]:
    """The pictures of a request."""
    parts = body["messages"][0]["content"][:-1]
    urls = [part["image_url"]["url"] for part in parts]
    assert all(url.startswith("data:image/png;base64,") for url in urls)
    return [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]
