"""WanPipeline: a rectified flow on a video transformer, with a VAE that is causal in time. Wan 2.1, Wan 2.2 5B."""

from typing import Any

import torch
from torch import Tensor, nn

from beholder.config import PolicyConfig
from beholder.errors import InputError
from beholder.policies.family import pixel_size
from beholder.policies.vae import frames_of
from beholder.rollouts.trajectory import Condition


class WanFamily:
    pipeline_class = "WanPipeline"
    network_name = "transformer"
    lora_targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    fps = 16
    # The pipeline's own call: its models say neither.
    DEFAULT_SIZE = (480, 832)
    DEFAULT_FRAMES = 81
    DEFAULT_TEXT_TOKENS = 512

    def __init__(self, pipeline: Any, config: PolicyConfig) -> None:
        self.pipeline = pipeline
        if pipeline.config.boundary_ratio is not None or pipeline.transformer_2 is not None:
            raise InputError(
                "policy.model: this WanPipeline has two denoisers, one for each end of the schedule, and only one can "
                "be trained; use a Wan 2.1 or the 5B of Wan 2.2"
            )
        self.spatial, self.temporal = pipeline.vae_scale_factor_spatial, pipeline.vae_scale_factor_temporal
        patch = pipeline.transformer.config.patch_size
        self.size = pixel_size(config, self.DEFAULT_SIZE, self.spatial * max(patch[1:]))
        self.frames: int | None = self._frames(config.frames or self.DEFAULT_FRAMES)
        self.text_tokens = config.max_sequence_length or self.DEFAULT_TEXT_TOKENS
        stats = (pipeline.vae.config.latents_mean, pipeline.vae.config.latents_std)
        self.mean, self.std = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in stats)

    def _frames(self, wanted: int) -> int:
        if (wanted - 1) % self.temporal:
            nearest = round((wanted - 1) / self.temporal) * self.temporal + 1
            raise InputError(
                f"policy.frames: {wanted} is not one more than a multiple of this model's {self.temporal}; "
                f"use {max(1, nearest)}"
            )
        return wanted

    def encode(self, prompts: list[str]) -> Condition:
        tokens, _ = self.pipeline.encode_prompt(
            prompts, do_classifier_free_guidance=False, max_sequence_length=self.text_tokens
        )
        return Condition({"tokens": tokens})

    def latent_shape(self) -> tuple[int, ...]:
        height, width = (side // self.spatial for side in self.size)
        assert self.frames is not None
        return (self.pipeline.transformer.config.in_channels, self._latent_frames(self.frames), height, width)

    def _latent_frames(self, frames: int) -> int:
        return (frames - 1) // self.temporal + 1

    def schedule(self, steps: int) -> Tensor:
        """The levels of a flow-matching Euler scheduler; of another flow scheduler (UniPC), its shift of even times.

        UniPC itself begins at σ = 0.9997, where the SDE kernels, which divide by 1 - σ, have a huge first step.
        """
        from diffusers import FlowMatchEulerDiscreteScheduler

        own = self.pipeline.scheduler
        if isinstance(own, FlowMatchEulerDiscreteScheduler):
            scheduler: Any = type(own).from_config(own.config)
            scheduler.set_timesteps(steps)
            return scheduler.sigmas.double()
        if not own.config.get("use_flow_sigmas"):
            raise InputError(
                f"policy.model: its scheduler {type(own).__name__} has no flow levels; set use_flow_sigmas in "
                "scheduler/scheduler_config.json, or save it with a FlowMatchEulerDiscreteScheduler"
            )
        even, shift = torch.linspace(1, 0, steps + 1, dtype=torch.float64), own.config.flow_shift
        return shift * even / (1 + (shift - 1) * even)

    def to_path(self, latents: Tensor, sigma_N: Tensor) -> Tensor:
        return latents

    def velocity(self, network: nn.Module, x: Tensor, sigma_N: Tensor, condition: Condition) -> Tensor:
        dtype = self.pipeline.transformer.dtype
        return network(
            hidden_states=x.to(dtype),
            timestep=sigma_N * self.pipeline.scheduler.config.num_train_timesteps,
            encoder_hidden_states=condition.tensors["tokens"].to(dtype),
            return_dict=False,
        )[0].float()

    def decode(self, x: Tensor, sigma_N: Tensor, frame_NK: Tensor | None = None) -> Tensor:
        """A frame depends on those before it alone, so decoding ends with the last one asked for."""
        if frame_NK is not None:
            x = x[:, :, : self._latent_frames(int(frame_NK.max()) + self.temporal)]
        raw = (x * self.std.to(x) + self.mean.to(x)).to(self.pipeline.vae.dtype)
        videos = (self.pipeline.vae.decode(raw, return_dict=False)[0].float() / 2 + 0.5).clamp(0, 1).transpose(1, 2)
        return videos if frame_NK is None else frames_of(videos, frame_NK)

    @torch.no_grad()
    def to_latents(self, media: Tensor) -> Tensor:
        """The posterior's mean, standardised."""
        vae = self.pipeline.vae
        mean = vae.encode((media.transpose(1, 2) * 2 - 1).to(vae.device, vae.dtype)).latent_dist.mean.float()
        return (mean - self.mean.to(mean)) / self.std.to(mean)
