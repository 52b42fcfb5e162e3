"""A small judge: a network that answers the questions of one checklist, and no others, about pictures of 32×32 or so.

It is trained from scratch (`beholder teach`) in minutes on one core. A folder holds it:

runs/judge/config.json          the questions it knows, its vocabulary and sizes
runs/judge/model.safetensors    the weights

Shapes: ``_N`` pictures, ``_S`` their side, ``_Q`` the questions it knows.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from beholder.errors import InputError
from beholder.judges.checklist import SLOT
from beholder.judges.judge import Answers, Judge
from beholder.judges.load import load_judge, load_judge_or_published
from beholder.judges.medium import Medium
from beholder.judges.settings import JudgeConfig, Kind
from beholder.judges.templates import Templates
from beholder.rewards.learned.small import SmallBackbone, SmallConfig

FORMAT = 1
EYE = 64
LOUDNESS = 0.1
"""Of log p(prompt | picture) among the features."""
UNKNOWN = "the judge was not taught this question"


class SmallJudge(nn.Module):
    """``(pixels [N, 3, S, S] in 0..1, prompts) → logits [N, Q]``; as a judge, it answers what it was taught.

    An eye without words answers what is not about the prompt, so that the prompt cannot change it; for the others, a
    backbone reads the prompt while it looks at the picture.
    """

    def __init__(self, asks: Sequence[str], config: SmallConfig, name: str = "small") -> None:
        super().__init__()
        self.name, self.templates, self.config = name, Templates(asks), config
        self.backbone = SmallBackbone(config)
        self.eye = nn.Sequential(
            *(nn.Conv2d(3, EYE // 2, 5, 2, 2), nn.GroupNorm(4, EYE // 2), nn.SiLU()),
            *(nn.Conv2d(EYE // 2, EYE, 3, 2, 1), nn.GroupNorm(8, EYE), nn.SiLU()),
            *(nn.Conv2d(EYE, EYE, 3, 1, 1), nn.GroupNorm(8, EYE), nn.SiLU()),
        )
        self.about_prompt = torch.tensor([SLOT in ask for ask in asks])
        self.without_words = _head(3 * EYE, len(asks))
        self.with_words = _head(3 * EYE + self.backbone.features, len(asks))

    @property
    def asks(self) -> tuple[str, ...]:
        return self.templates.asks

    def forward(self, pixels: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Logits ``[N, Q]``, and log p(prompt | picture) ``[N]``."""
        read_NF = self.backbone(pixels, list(prompts))
        likelihood_N = read_NF[:, -1]
        read_NF = torch.cat([read_NF[:, :-1], LOUDNESS * likelihood_N[:, None]], 1)
        seen = self.eye(2 * pixels - 1).flatten(2)
        spread = seen.var(2, unbiased=False).add(1e-6).sqrt()
        seen_NF = torch.cat([seen.mean(2), seen.amax(2), spread], 1)
        told_NQ = self.with_words(torch.cat([read_NF, seen_NF], 1))
        return torch.where(self.about_prompt.to(pixels.device), told_NQ, self.without_words(seen_NF)), likelihood_N

    def pixels(self, media: Sequence[Medium]) -> Tensor:
        """``[N, 3, S, S]``; InputError for a video."""
        if any(medium.kind != "image" for medium in media):
            raise InputError("model: a small judge looks at pictures only, not at videos; name another model")
        arrays = [np.asarray(medium.stills[0], np.float32).transpose(2, 0, 1) / 255 for medium in media]
        device = self.backbone.position.device
        return torch.cat([self.backbone.prepare(torch.from_numpy(one.copy())[None]) for one in arrays]).to(device)

    @torch.inference_mode()
    def ask(self, medium: Medium, questions: Sequence[str]) -> Answers:
        """Probabilities of yes; a question that it was not taught is invalid and says so."""
        found = [self.templates.find(question) for question in questions]
        prompts = list(dict.fromkeys(one.prompt or "" for one in found if one))
        if not prompts:
            return Answers(torch.full((len(found),), torch.nan), (UNKNOWN,) * len(found))
        self.eval()
        pixels = self.pixels([medium]).expand(len(prompts), -1, -1, -1)
        yes_NQ = self(pixels, prompts)[0].sigmoid().cpu()
        row = {prompt: i for i, prompt in enumerate(prompts)}
        answers = [yes_NQ[row[one.prompt or ""], one.question].item() if one else torch.nan for one in found]
        return Answers(torch.tensor(answers), tuple("" if one else UNKNOWN for one in found))

    def save_pretrained(self, folder: Path) -> None:
        """Writes both files, the configuration last."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        temporary = folder / "model.safetensors.tmp"
        try:
            save_file(tensors, temporary, metadata={"format": "pt"})
            os.replace(temporary, folder / "model.safetensors")
        finally:
            temporary.unlink(missing_ok=True)
        config = {"beholder_small_judge": FORMAT, "questions": self.asks, "backbone": asdict(self.config)}
        temporary = folder / "config.json.tmp"
        temporary.write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(temporary, folder / "config.json")


def _head(features: int, questions: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(features, 128), nn.SiLU(), nn.Linear(128, questions))


def is_small_judge(name: str) -> bool:
    """Whether this is the folder of one."""
    try:
        return "beholder_small_judge" in json.loads((Path(name) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def load_small_judge(folder: Path | str) -> SmallJudge:
    """The judge in a folder; InputError where its files do not fit together."""
    config: dict[str, Any] = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    if config["beholder_small_judge"] != FORMAT:
        raise InputError(f"model: {str(folder)!r} was written by another version; teach the judge again")
    try:
        settings: dict[str, Any] = {**config["backbone"], "words": tuple(config["backbone"]["words"])}
        judge = SmallJudge(config["questions"], SmallConfig(**settings), str(folder))
        judge.load_state_dict(load_file(Path(folder) / "model.safetensors"))
    except (KeyError, TypeError, RuntimeError, OSError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(f"model: {str(folder)!r} is no whole judge ({said}); teach it again") from error
    return judge.eval()


def load_any_judge(name: str, config: JudgeConfig | None = None) -> Judge:
    """A judge by name as `load_judge` knows it, or a small one of one's own in a folder."""
    return load_small_judge(name) if is_small_judge(name) else load_judge(name, config)


def load_any_judge_or_published(name: str | None, kind: Kind, config: JudgeConfig) -> Judge:
    """The judge called ``name``, or where none is named the one that the published checklist was made with."""
    if name is not None and is_small_judge(name):
        return load_small_judge(name)
    return load_judge_or_published(name, kind, config)
