"""`beholder serve` as a process, with rewards that do as their prompts say, and clients over real sockets."""

import base64
import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

MODULE = '''
import os, pathlib, signal, time
import torch

def number(images, prompts):
    """The number that ends the prompt plus the grey level of the image, after doing what the prompt says."""
    for prompt in prompts:
        word, _, rest = prompt.partition(" ")
        if word == "sleep":
            time.sleep(float(rest.split()[0]))
        if word == "refuse":
            raise ValueError("not this one")
        if word == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "lose":
            raise torch.AcceleratorError("device-side assert")
        if word == "once":
            marker = pathlib.Path(rest.split()[0])
            if not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
    numbers = torch.tensor([float(prompt.split()[-1]) for prompt in prompts])
    return numbers + (images.mean((1, 2, 3)) * 255).round()

def together(images, prompts):
    return torch.full((len(images),), float(len(images)))

def gradual(images, prompts):
    return images.mean((1, 2, 3))

gradual.differentiable = True

def pairs(first, second, prompts):
    return torch.ones(len(first))

pairs.pairwise = True
'''
NUMBER, TOGETHER = "taste_of_tests:number", "taste_of_tests:together"


@dataclass
class Server:
    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON and headers of one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=280)
        try:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, data, headers)
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read()), dict(reply.headers)
        finally:
            connection.close()

    def score(self, *items: dict[str, Any], rewards: list[str] | None = None) -> tuple[int, Any]:
        return self.send("POST", "/score", {"items": list(items), "rewards": rewards})[:2]

    def health(self) -> dict[str, Any]:
        return self.send("GET", "/health")[1]

    def worker(self) -> psutil.Process:
        """The scoring process; multiprocessing's resource tracker is another child."""
        children = psutil.Process(self.process.pid).children()
        return next(child for child in children if "spawn_main" in " ".join(child.cmdline()))

    def stop(self, how: int = signal.SIGINT) -> tuple[int, str]:
        """The exit code and what it said on stderr."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said


def start(folder: Path, *arguments: str, **environment: str) -> Server:
    """A server of `MODULE`'s rewards on a free port, ready to answer."""
    (folder / "taste_of_tests.py").write_text(MODULE)
    command = [sys.executable, "-m", "beholder.cli", "serve", *arguments, "--port", "0"]
    settings = {"env": os.environ | {"OMP_NUM_THREADS": "1"} | environment, "cwd": folder, "text": True}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **settings)  # type: ignore[call-overload]
    assert process.stdout is not None and process.stderr is not None
    for line in process.stdout:
        if found := re.search(r"serving on http://127\.0\.0\.1:(\d+)", line):
            return Server(process, int(found[1]))
    raise AssertionError(process.stderr.read())


def png(grey: int = 0, size: int = 8) -> str:
    """A picture of one grey level as base64."""
    data = io.BytesIO()
    Image.new("RGB", (size, size), (grey, grey, grey)).save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


def item(prompt: str, grey: int = 0) -> dict[str, Any]:
    return {"prompt": prompt, "image": png(grey)}


def wait_until(condition: Any, seconds: float = 150.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
