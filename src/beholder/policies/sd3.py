"""StableDiffusion3Pipeline: a rectified flow on an MMDiT. SD3, SD3.5 and the bundled generator."""

from typing import Any

from torch import Tensor, nn

from beholder.config import PolicyConfig
from beholder.policies.family import check_still, pixel_size
from beholder.policies.vae import decode_latents, encode_images
from beholder.rollouts.trajectory import Condition


class SD3Family:
    pipeline_class = "StableDiffusion3Pipeline"
    network_name = "transformer"
    lora_targets: tuple[str, ...] = (
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
    )
    DEFAULT_TEXT_TOKENS = 256
    """What the pipeline itself pads T5 to."""

    frames: int | None = None
    fps = 0

    def __init__(self, pipeline: Any, config: PolicyConfig) -> None:
        check_still(config, self.pipeline_class)
        self.pipeline = pipeline
        scale, patch = pipeline.vae_scale_factor, pipeline.transformer.config.patch_size
        own = pipeline.default_sample_size * scale
        self.size = pixel_size(config, (own, own), scale * patch)
        self.text_tokens = config.max_sequence_length or self.DEFAULT_TEXT_TOKENS

    def encode(self, prompts: list[str]) -> Condition:
        tokens, _, pooled, _ = self.pipeline.encode_prompt(
            prompt=prompts,
            prompt_2=None,
            prompt_3=None,
            do_classifier_free_guidance=False,
            max_sequence_length=self.text_tokens,
        )
        return Condition({"tokens": tokens, "pooled": pooled})

    def latent_shape(self) -> tuple[int, ...]:
        height, width = (side // self.pipeline.vae_scale_factor for side in self.size)
        return (self.pipeline.transformer.config.in_channels, height, width)

    def schedule(self, steps: int) -> Tensor:
        scheduler = type(self.pipeline.scheduler).from_config(self.pipeline.scheduler.config)
        scheduler.set_timesteps(steps, **self._shift(scheduler))
        return scheduler.sigmas.double()

    def _shift(self, scheduler: Any) -> dict[str, float]:
        # SD3.5's image-size dependent shift, where the scheduler asks for it (as the pipeline computes it).
        if not scheduler.config.use_dynamic_shifting:
            return {}
        from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

        _, height, width = self.latent_shape()
        patch = self.pipeline.transformer.config.patch_size
        names = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
        return {"mu": calculate_shift((height // patch) * (width // patch), *(scheduler.config[n] for n in names))}

    def to_path(self, latents: Tensor, sigma_N: Tensor) -> Tensor:
        return latents

    def velocity(self, network: nn.Module, x: Tensor, sigma_N: Tensor, condition: Condition) -> Tensor:
        dtype = self.pipeline.transformer.dtype
        return network(
            hidden_states=x.to(dtype),
            timestep=sigma_N * self.pipeline.scheduler.config.num_train_timesteps,
            encoder_hidden_states=condition.tensors["tokens"],
            pooled_projections=condition.tensors["pooled"],
            return_dict=False,
        )[0].float()

    def decode(self, x: Tensor, sigma_N: Tensor, frame_NK: Tensor | None = None) -> Tensor:
        return decode_latents(self.pipeline.vae, x)

    def to_latents(self, media: Tensor) -> Tensor:
        return encode_images(self.pipeline.vae, media)
