"""Judges that bring their own Python code, as CogVLM2 does; nothing here runs before the user has opted in.

The contract is that of CogVLM2: ``model.build_conversation_input_ids(tokenizer, query, images, history,
template_version)`` encodes one question, with a picture, or with a video as one tensor ``[3, F, H, W]``. VisionReward's
released script then generates up to 2048 tokens and reads the first; here that token's logits come from one pass. The
code keeps its own kind of cache, so every question is one whole pass.
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from beholder.errors import InputError
from beholder.judges.judge import Answers, all_failed, said_in_short
from beholder.judges.medium import Medium
from beholder.judges.settings import JudgeConfig
from beholder.judges.yes_no import find_answer_tokens, read_answers


class RemoteJudge:
    """A model with CogVLM2's contract."""

    def __init__(self, name: str, model: Any, tokenizer: Any, config: JudgeConfig) -> None:
        self.name, self.model, self.tokenizer, self.config = name, model, tokenizer, config
        self.tokens = find_answer_tokens(tokenizer.get_vocab())
        self.template = config.template or "{question}"
        if config.share_prefix:
            print(f"judge {name}: its own code cannot share a picture's encoding between questions", file=sys.stderr)

    def ask(self, medium: Medium, questions: Sequence[str]) -> Answers:
        """One pass a question; an exception makes that answer invalid, with its message."""
        each = [self._ask(medium, question) for question in questions]
        return Answers(torch.cat([torch.empty(0), *(one.yes_Q for one in each)]), tuple(one.why_Q[0] for one in each))

    def _ask(self, medium: Medium, question: str) -> Answers:
        try:
            with torch.inference_mode():
                logits_V = self._logits(medium, self.template.replace("{question}", question))
            return read_answers(logits_V[None], self.tokens, self.tokenizer, self.config)
        except Exception as error:  # anybody's code; what it raised is kept with the answer
            return all_failed(1, said_in_short(error))

    def _logits(self, medium: Medium, query: str) -> Tensor:
        """``[V]`` of the token after the question."""
        made = self.model.build_conversation_input_ids(
            tokenizer=self.tokenizer,
            query=query,
            images=[_frames(medium) if medium.kind == "video" else medium.stills[0]],
            history=[],
            template_version="chat",
        )
        device, dtype = self.model.device, self.model.dtype
        inputs = {key: made[key][None].to(device) for key in ("input_ids", "token_type_ids", "attention_mask")}
        images = [[image.to(device, dtype) for image in made["images"]]]
        return self.model(**inputs, images=images, use_cache=False).logits[0, -1].float().cpu()


def _frames(medium: Medium) -> Tensor:
    """uint8 ``[3, F, H, W]``, as the released script passes them."""
    return torch.from_numpy(np.stack([np.asarray(still) for still in medium.stills])).permute(3, 0, 1, 2)


def load_remote(name: str, config: JudgeConfig, device: str, dtype: torch.dtype) -> RemoteJudge:
    """The judge in a folder or hub repository with code; the caller has checked that the user trusts it."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=True)
        model: Any = AutoModelForCausalLM.from_pretrained(name, trust_remote_code=True, dtype=dtype)
    except Exception as error:  # importing runs the repository's code, which may raise anything
        raise InputError(f"model: the code of {name!r} does not load here ({said_in_short(error)})") from error
    if not callable(getattr(model, "build_conversation_input_ids", None)):
        raise InputError(f"model: the code of {name!r} has no build_conversation_input_ids, as CogVLM2's has")
    return RemoteJudge(name, model.eval().to(device), tokenizer, config)
