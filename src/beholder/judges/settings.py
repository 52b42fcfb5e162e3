"""Settings of a judge; imports nothing heavy. The line under a field is its help text."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["image", "video"]
PUBLISHED: dict[Kind, str] = {"image": "zai-org/VisionReward-Image-bf16", "video": "zai-org/VisionReward-Video"}
"""The judges that the published checklists were made with, by kind of medium."""


TEMPLATE = "{question}\nAnswer with yes or no."
"""What a chat model reads that was not trained on a checklist."""
ADVICE = (
    "name a vision-language model on the hub or in a folder, e.g. Qwen/Qwen3-VL-4B-Instruct, a server, e.g. "
    "http://localhost:8000/v1, or shapes for the bundled world"
)


@dataclass(frozen=True)
class JudgeConfig:
    """How questions are put to a model and its answers are read."""

    answers: Literal["probability", "hard"] = "probability"
    """probability: P(yes) / (P(yes) + P(no)) of the first generated token; hard: whether the greedy text starts with
    yes or no."""
    template: str | None = None
    """What the model reads, with {question} in it; none asks chat models to answer with yes or no, and gives the
    published VisionReward judges the bare question."""
    top: int = 20
    """An answer counts only when a yes or a no is among this many likeliest first tokens."""
    batch: int = 16
    """Questions per network call of a model in this process."""
    share_prefix: bool = True
    """Encode a picture once for all its questions, where the model's family allows it."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of a model in this process; auto is bfloat16 on a GPU and float32 elsewhere."""
    device: str | None = None
    """Where it runs, e.g. cuda:1; none takes a GPU if there is one."""
    trust_remote_code: bool = False
    """Run the Python code in the model's folder, as CogVLM2 needs; only for folders you trust."""
    concurrency: int = 16
    """Questions a server is asked at a time."""
    timeout: float = 60.0
    """Seconds a server has for one answer."""
    retries: int = 3
    """Further attempts after a timeout, a refused connection, a broken answer or a server error."""
    backoff: float = 0.5
    """Seconds before the first further attempt; doubled before each one after it."""
    max_side: int = 1024
    """Pictures sent to a server are made smaller until neither side is longer."""
