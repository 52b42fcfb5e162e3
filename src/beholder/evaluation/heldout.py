"""Held-out evaluation: the same prompts, the same seeds, deterministic sampling, every time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from beholder.config import EvaluationConfig, GuidanceConfig
from beholder.evaluation.diversity import diversity
from beholder.policies import Policy
from beholder.prompts import PromptSet
from beholder.rewards import Reward, RewardTable, score
from beholder.rollouts.engine import sample_ode

SEED = 1_000_000_007
"""Far from every training seed."""
DIVERSITY_PROMPTS = 24
"""Prompts in the diversity measure, fewer where fewer are evaluated."""
DIVERSITY_SAMPLES = 4
"""Images of each."""


@dataclass(frozen=True)
class Evaluation:
    prompts: list[str]
    kinds: list[str] | None
    images: Tensor
    table: RewardTable
    diversity: float

    def row(self) -> dict[str, Any]:
        """What goes into `metrics.jsonl`: means, the first reward per kind with a 95 % Wilson interval, diversity."""
        first = self.table.values_NM[:, 0]
        mean = first.nanmean().item()
        row: dict[str, Any] = {
            "rewards": self.table.means(),
            "n_images": len(self.prompts),
            "diversity": self.diversity,
        }
        row["failed_rewards"] = int(self.table.failed_N.sum())
        valid = first[~first.isnan()]
        if len(valid) and bool(((valid == 0) | (valid == 1)).all()):
            row["interval"] = wilson(mean, len(valid))
        if self.kinds is not None:
            row["per_kind"] = {
                kind: first[[i for i, k in enumerate(self.kinds) if k == kind]].nanmean().item()
                for kind in dict.fromkeys(self.kinds)
            }
        return row


def wilson(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of ``n`` trials."""
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * ((share * (1 - share) + z * z / (4 * n)) / n) ** 0.5 / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


@torch.no_grad()
def draw_images(
    policy: Policy, prompts: Sequence[str], seeds: Sequence[int], steps: int, guidance: float, batch: int
) -> Tensor:
    """Deterministic samples in 0..1, one per prompt and seed, ``batch`` at a time: ``[N, 3, H, W]``, or videos
    ``[N, F, 3, H, W]``."""
    sigmas = policy.schedule(steps)
    setting, images = GuidanceConfig(scale=guidance), []
    for i in range(0, len(prompts), batch):
        texts, seed_N = list(prompts[i : i + batch]), torch.tensor(seeds[i : i + batch])
        start = policy.start(
            texts, torch.zeros(len(texts), dtype=torch.int64), seed_N, seed_N, sigmas[0].item(), guidance != 1
        )
        images.append(policy.decode(sample_ode(policy, start, sigmas, setting), sigmas[-1].item(), batch))
    return torch.cat(images).cpu()


def evaluation_set(prompts: PromptSet, config: EvaluationConfig) -> tuple[list[int], list[int], Tensor]:
    """Prompt indices, seeds and groups of the images: a fixed draw, then more seeds of its first prompts."""
    chosen = prompts.draw(config.images, [SEED])
    again = chosen[: max(1, min(len(chosen), DIVERSITY_PROMPTS))]
    extra = [index for index in again for _ in range(DIVERSITY_SAMPLES - 1)]
    indices = chosen + extra
    groups = list(range(len(chosen))) + [g for g in range(len(again)) for _ in range(DIVERSITY_SAMPLES - 1)]
    return indices, [SEED + i for i in range(len(indices))], torch.tensor(groups)


def evaluate(
    policy: Policy,
    prompts: PromptSet,
    rewards: Sequence[Reward],
    config: EvaluationConfig,
    steps: int,
    guidance: float,
    batch: int,
    accelerator: Accelerator | None = None,
) -> Evaluation:
    """Rewards on ``config.images`` fixed held-out samples; diversity on several samples of the first prompts.

    With an ``accelerator`` each process draws and scores its share, and all get the whole.
    """
    indices, seeds, group_N = evaluation_set(prompts, config)
    texts, n = [prompts.texts[i] for i in indices], config.images
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    mine = range(rank, len(texts), world)
    own_texts, own_seeds = [texts[i] for i in mine], [seeds[i] for i in mine]
    images = draw_images(policy, own_texts, own_seeds, config.steps or steps, config.guidance or guidance, batch)
    judged = sum(i < n for i in mine)
    table = score(images[:judged], own_texts[:judged], rewards)
    if world > 1:
        parts = gather_object([(images, table.values_NM)])
        images, values = (_interleaved([part[i] for part in parts]) for i in (0, 1))
        table = RewardTable(values, table.names)
    kinds = None if prompts.kinds is None else [prompts.kinds[i] for i in indices[:n]]
    return Evaluation(texts[:n], kinds, images[:n], table, diversity(images, group_N))


def _interleaved(parts: list[Tensor]) -> Tensor:
    """Row i of part p is row i·len(parts) + p of the whole."""
    whole = parts[0].new_zeros(sum(len(part) for part in parts), *parts[0].shape[1:])
    for rank, part in enumerate(parts):
        whole[rank :: len(parts)] = part
    return whole
