"""Trains the bundled generator from nothing but rendered scenes: ``python -m beholder.worlds.shapes.train --help``.

Three stages, each resumable and each a pure function of (seed, step): the autoencoder on fresh renders, the latents
of a fixed set of scenes, the denoiser with its text encoders by rectified flow,

    x_t = (1 - t) x0 + t ε,   loss = mean |f(x_t, t, caption) - (ε - x0)|²   (Esser et al. 2403.03206, eq. 12-14).

The denoiser has two rounds; a controlled share of its captions is wrong (`WRONG_CAPTIONS`), as web captions are. The
first, long one has few, because a wrong caption hides what the right ones teach (of exchanged colours with share w
only 1 - 2w of the signal is left); the second, short one has many. The generator then knows how to obey and does so
unreliably, which leaves alignment something to do that is not drawing skill.
"""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beholder.worlds.shapes import prompts as P
from beholder.worlds.shapes.architecture import ABSENT_TOKENS, build_pipeline
from beholder.worlds.shapes.scenes import render

KIND_SHARE = {"single": 1.0, "two": 1.5, "counting": 2.0, "colour": 1.0, "position": 2.5, "attribution": 3.0}
WRONG_CAPTIONS = (
    {"single": 0.05, "two": 0.05, "counting": 0.05, "colour": 0.05, "position": 0.05, "attribution": 0.05},
    {"single": 0.15, "two": 0.30, "counting": 0.30, "colour": 0.25, "position": 0.30, "attribution": 0.30},
)
"""Share of training scenes whose caption is wrong, by round and kind."""


@dataclass
class TrainConfig:
    output: Path
    """Folder for checkpoints and, at the end, the pipeline in ``generator/``."""
    seed: int = 0
    """Seed of every random choice."""
    autoencoder_steps: int = 4800
    autoencoder_batch: int = 32
    autoencoder_lr: float = 2e-3
    kl_weight: float = 1e-3
    """Weight of the mean KL per latent dimension beside the mean absolute pixel error."""
    scenes: int = 120_000
    """Scenes rendered and encoded once for the denoiser."""
    denoiser_steps: tuple[int, int] = (4400, 1000)
    """Steps of each round; every round warms up and decays its learning rate."""
    denoiser_batch: int = 128
    muon_lr: float = 0.015
    adam_lr: float = 1.5e-3
    caption_drop: float = 0.1
    """Share of empty captions, for guidance."""
    ema_decay: float = 0.998
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    threads: int = 1


def caption_pool() -> tuple[list[P.Prompt], np.ndarray]:
    """The training prompts and the probability of each (``KIND_SHARE`` over kinds, uniform within a kind)."""
    pool = list(P.split("train"))
    sizes = {kind: sum(p.kind == kind for p in pool) for kind in P.KINDS}
    weight = np.array([KIND_SHARE[p.kind] / sizes[p.kind] for p in pool])
    return pool, weight / weight.sum()


def render_scenes(n: int, seed: list[int]) -> tuple[Tensor, np.ndarray]:
    """``images [n, 3, H, W]`` in 0..1 and the index of each one's true caption in the pool."""
    pool, weight = caption_pool()
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(pool), n, p=weight)
    images = np.stack([render(P.scene_for(pool[i], rng), rng) for i in chosen])
    return torch.from_numpy(images), chosen


def wrong_caption_table(seed: int, columns: int = 16) -> np.ndarray:
    """``[pool, columns]`` indices of wrong captions for each caption of the pool."""
    pool, _ = caption_pool()
    index = {p.text: i for i, p in enumerate(pool)}
    rng = np.random.default_rng([seed, 3])
    return np.array([[index[P.misdescribe(p, rng).text] for _ in range(columns)] for p in pool])


def save_atomically(state: dict[str, Any], path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def learning_rate(step: int, steps: int, warmup: int = 100, decay_from: float = 0.5) -> float:
    """Factor on the learning rate: linear warm-up, plateau, linear decay to zero over the last half."""
    return min(1.0, (step + 1) / warmup, max(0.0, (steps - step) / ((1 - decay_from) * steps)))


def set_lr(optimisers: list[torch.optim.Optimizer], factor: float) -> None:
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["initial_lr"] * factor


def with_initial_lr(optimiser: torch.optim.Optimizer) -> torch.optim.Optimizer:
    for group in optimiser.param_groups:
        group["initial_lr"] = group["lr"]
    return optimiser


def train_autoencoder(vae: nn.Module, config: TrainConfig) -> None:
    """Mean absolute error on fresh renders plus a little KL, so that nearby latents decode alike."""
    path = config.output / "autoencoder.pt"
    optimisers = [with_initial_lr(torch.optim.AdamW(vae.parameters(), lr=config.autoencoder_lr, weight_decay=1e-4))]
    first = load_checkpoint(path, vae, optimisers)
    vae.train().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    started, running = time.time(), 0.0
    for step in range(first, config.autoencoder_steps):
        images, _ = render_scenes(config.autoencoder_batch, [config.seed, 1, step])
        torch.manual_seed(config.seed * 1_000_003 + step)
        set_lr(optimisers, learning_rate(step, config.autoencoder_steps))
        posterior = vae.encode((images * 2 - 1).contiguous(memory_format=torch.channels_last)).latent_dist  # pyright: ignore[reportCallIssue]
        decoded = vae.decode(posterior.sample()).sample  # pyright: ignore[reportCallIssue]
        error = (decoded - (images * 2 - 1)).abs().mean()
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        (error + config.kl_weight * kl).backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimisers[0].step()
        optimisers[0].zero_grad(set_to_none=True)
        running = error.item() if step == first else 0.98 * running + 0.02 * error.item()
        if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.autoencoder_steps:
            save_atomically(checkpoint(vae, optimisers, step + 1), path)
            print(
                f"autoencoder {step + 1}: error {running / 2:.4f}, KL {kl.item():.2f}, {time.time() - started:.0f} s",
                flush=True,
            )
    vae.eval()


def checkpoint(model: nn.Module, optimisers: list[torch.optim.Optimizer], step: int, **more: Any) -> dict[str, Any]:
    return {"model": model.state_dict(), "optimisers": [o.state_dict() for o in optimisers], "step": step, **more}


def load_checkpoint(
    path: Path, model: nn.Module, optimisers: list[torch.optim.Optimizer], ema: dict | None = None
) -> int:
    """Restores a stage in place; the step to go on from, 0 without a checkpoint."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
        optimiser.load_state_dict(saved)
    if ema is not None:
        ema.update(state["ema"])
    return state["step"]


@torch.no_grad()
def encode_scenes(vae: nn.Module, config: TrainConfig) -> tuple[Tensor, np.ndarray]:
    """Latents ``[scenes, C, h, w]`` of zero mean and unit variance; writes the scale into the autoencoder's config."""
    path = config.output / "latents.pt"
    if not path.exists():
        latents, captions = [], []
        for block in range(0, config.scenes, 1000):
            images, chosen = render_scenes(min(1000, config.scenes - block), [config.seed, 2, block])
            latents.append(torch.cat([vae.encode(part * 2 - 1).latent_dist.mean for part in images.split(100)]))  # pyright: ignore[reportCallIssue]
            captions.append(chosen)
        save_atomically({"latents": torch.cat(latents), "captions": torch.from_numpy(np.concatenate(captions))}, path)
    state = torch.load(path, weights_only=True)
    latents = state["latents"].contiguous()
    shift, scale = latents.mean().item(), 1.0 / latents.std().item()
    vae.register_to_config(shift_factor=shift, scaling_factor=scale)  # pyright: ignore[reportCallIssue]
    return (latents - shift) * scale, state["captions"].numpy()


class TextAndImage(nn.Module):
    """The trained parts of the denoiser as one module, so that they share checkpoint, optimisers and average."""

    def __init__(self, pipeline: Any) -> None:
        super().__init__()
        self.transformer, self.first, self.second = pipeline.transformer, pipeline.text_encoder, pipeline.text_encoder_2

    def forward(self, x: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        parts = [encoder(ids, output_hidden_states=True) for encoder in (self.first, self.second)]
        tokens = torch.cat([p.hidden_states[-2] for p in parts], dim=-1)
        tokens = torch.cat([tokens, torch.zeros_like(tokens[:, :ABSENT_TOKENS])], dim=1)
        pooled = torch.cat([p.text_embeds for p in parts], dim=-1)
        return self.transformer(
            hidden_states=x,
            timestep=t * 1000,
            encoder_hidden_states=tokens,
            pooled_projections=pooled,
            return_dict=False,
        )[0]


def denoiser_optimisers(model: TextAndImage, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Muon on the attention and feed-forward matrices of the blocks, AdamW on everything else."""
    inside = [(name, p) for name, p in model.transformer.named_parameters() if "transformer_blocks" in name]
    blocks = [p for name, p in inside if p.ndim == 2 and ("attn" in name or ".ff" in name)]
    chosen = {id(p) for p in blocks}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    muon = torch.optim.Muon(blocks, lr=config.muon_lr, weight_decay=0.0, momentum=0.95, adjust_lr_fn="original")
    adam = torch.optim.AdamW(rest, lr=config.adam_lr, betas=(0.9, 0.99), weight_decay=1e-4)
    return [with_initial_lr(muon), with_initial_lr(adam)]


def draw_captions(
    true: np.ndarray, wrong: np.ndarray, shares: dict[str, float], drop: float, rng: np.random.Generator
) -> np.ndarray:
    """Caption indices for a batch of scenes, some wrong (``shares`` by kind), some empty (-1)."""
    pool, _ = caption_pool()
    share = np.array([shares[pool[i].kind] for i in true])
    mistaken = wrong[true, rng.integers(wrong.shape[1], size=len(true))]
    captions = np.where(rng.random(len(true)) < share, mistaken, true)
    return np.where(rng.random(len(true)) < drop, -1, captions)


def train_denoiser(pipeline: Any, latents: Tensor, captions: np.ndarray, config: TrainConfig) -> None:
    model = TextAndImage(pipeline).train()
    optimisers = denoiser_optimisers(model, config)
    ema: dict[str, Tensor] = {}
    path = config.output / "denoiser.pt"
    first = load_checkpoint(path, model, optimisers, ema)
    parameters = dict(model.named_parameters())
    if not ema:
        ema.update({name: p.detach().clone() for name, p in parameters.items()})
    pool, _ = caption_pool()
    texts = [p.text for p in pool] + [""]
    ids = pipeline.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    wrong = wrong_caption_table(config.seed)
    started, running = time.time(), 0.0
    total = sum(config.denoiser_steps)
    for step in range(first, total):
        second = step >= config.denoiser_steps[0]
        since = step - config.denoiser_steps[0] * second
        rng = np.random.default_rng([config.seed, 4, step])
        torch.manual_seed(config.seed * 1_000_003 + step)
        rows = rng.integers(len(latents), size=config.denoiser_batch)
        x0 = latents[rows]
        caption = draw_captions(captions[rows], wrong, WRONG_CAPTIONS[second], config.caption_drop, rng)
        t = torch.sigmoid(torch.randn(len(x0)))
        noise = torch.randn_like(x0)
        t4 = t[:, None, None, None]
        set_lr(optimisers, learning_rate(since, config.denoiser_steps[second]))
        loss = F.mse_loss(model((1 - t4) * x0 + t4 * noise, t, ids[caption]), noise - x0)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        decay = min(config.ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            names = list(parameters)
            torch._foreach_lerp_([ema[n] for n in names], [parameters[n] for n in names], 1 - decay)
        running = loss.item() if step == first else 0.99 * running + 0.01 * loss.item()
        if (step + 1) % config.checkpoint_every == 0 or step + 1 == total:
            save_atomically(checkpoint(model, optimisers, step + 1, ema=ema), path)
            print(f"denoiser {step + 1}: loss {running:.4f}, {time.time() - started:.0f} s", flush=True)
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(ema[name])
    model.eval()


def train(config: TrainConfig) -> Path:
    """Runs every stage that is not done yet; the folder of the finished pipeline."""
    config.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    print(asdict(config), flush=True)
    pipeline = build_pipeline()
    train_autoencoder(pipeline.vae, config)
    latents, captions = encode_scenes(pipeline.vae, config)
    train_denoiser(pipeline, latents, captions, config)
    folder = config.output / "generator"
    pipeline.to(dtype=torch.float16).save_pretrained(folder)
    made = {name: value for name, value in asdict(config).items() if name not in ("output", "checkpoint_every")}
    settings = {"max_sequence_length": ABSENT_TOKENS, "training": made}
    (folder / "beholder.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    return folder


if __name__ == "__main__":
    import tyro

    print(train(tyro.cli(TrainConfig)))
