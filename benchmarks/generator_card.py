"""Measures the bundled generator and writes its model card: ``python benchmarks/generator_card.py [FOLDER]``."""

import json
import sys
from pathlib import Path

from torch import nn

from beholder.config import EvaluationConfig, PolicyConfig
from beholder.evaluation.heldout import Evaluation, evaluate
from beholder.numbers import wilson
from beholder.policies import load_policy
from beholder.policies.loading import bundled_generator
from beholder.prompts import load_prompts
from beholder.rewards import load_rewards
from beholder.worlds.shapes.prompts import KINDS
from beholder.worlds.shapes.train import KIND_SHARE, WRONG_CAPTIONS

IMAGES, STEPS = 384, 10
SCALES = (1.0, 1.5, 2.0, 3.0, 5.0)

CARD = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
tags: [flow-matching, stable-diffusion-3, toy-model]
---

# The shapes generator

A {parameters:.1f} M parameter `StableDiffusion3Pipeline` that draws scenes of coloured shapes, 32x32 pixels.
It comes with Beholder, is loaded by plain diffusers, and exists to be aligned: it draws cleanly and obeys unreliably.

```python
from diffusers import StableDiffusion3Pipeline

pipe = StableDiffusion3Pipeline.from_pretrained(FOLDER, text_encoder_3=None, tokenizer_3=None)
prompt = "a red circle and a blue square"
image = pipe(prompt, num_inference_steps=10, guidance_scale=1, max_sequence_length=1).images[0]
```

The T5 encoder is absent, as SD3 allows; it was trained with one zero token in its place, hence
`max_sequence_length=1`.

## How it was made

`python -m beholder.worlds.shapes.train`, from nothing but rendered scenes, with these settings: `{settings}`.
Training prompts only; the held-out combinations were never a caption.
Shares of scenes by kind: {kind_share}. Shares of wrong captions (another shape, number or colour; the opposite
relation; the two colours exchanged), as in captions found on the web: {wrong}.

## What it can do

Strict accuracy of the exact verifier on {images} held-out images, {steps} Euler steps
(`python benchmarks/generator_card.py`):

{table}
"""


def table(results: dict[float, Evaluation]) -> str:
    """Markdown: a line per guidance scale."""
    lines = ["| guidance | all (95 %) | " + " | ".join(KINDS) + " | diversity |", "|" + "---|" * (len(KINDS) + 3)]
    for scale, result in results.items():
        row = result.row()
        strict = row["rewards"]["shapes_strict"]
        low, high = wilson(strict, IMAGES)
        kinds = " | ".join(f"{row['per_kind'][kind]:.2f}" for kind in KINDS)
        lines.append(f"| {scale:g} | {strict:.3f} ({low:.2f}-{high:.2f}) | {kinds} | {result.diversity:.3f} |")
    return "\n".join(lines)


def listed(shares: dict[str, float]) -> str:
    return ", ".join(f"{kind} {share:g}" for kind, share in shares.items())


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else bundled_generator())
    policy = load_policy(PolicyConfig(model=str(folder)))
    parts = [part for part in policy.pipeline.components.values() if isinstance(part, nn.Module)]
    prompts, judges = load_prompts("shapes:held_out"), load_rewards(["shapes_strict"])
    setting = EvaluationConfig(images=IMAGES)
    results = {scale: evaluate(policy, prompts, judges, setting, STEPS, scale, batch=64) for scale in SCALES}
    card = CARD.format(
        parameters=sum(p.numel() for part in parts for n, p in part.named_parameters() if "lora" not in n) / 1e6,
        settings=json.dumps(json.loads((folder / "beholder.json").read_text(encoding="utf-8"))["training"]),
        kind_share=", ".join(f"{kind} {share:g}" for kind, share in KIND_SHARE.items()),
        wrong="; then ".join(
            ", ".join(f"{kind} {share:g}" for kind, share in round.items()) for round in WRONG_CAPTIONS
        ),
        images=IMAGES,
        steps=STEPS,
        table=table(results),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
