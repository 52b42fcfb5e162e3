"""A policy: a diffusers pipeline that can be sampled, scored again, trained and put back on disk.

Nothing here knows a model class; that is the family's file (`sd3.py`, `wan.py`).
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beholder.config import GuidanceConfig, PolicyConfig
from beholder.errors import InputError
from beholder.policies.family import Family
from beholder.rollouts.engine import Start, noise_for
from beholder.rollouts.trajectory import Condition
from beholder.video import by_count

ADAPTER = "default"
REMEMBERED = 4096
"""Texts whose conditions are kept; one of SD3.5's takes 4 MB."""


class Policy:
    """The trained denoiser with everything around it. ``network`` is what learns (the accelerator may wrap it)."""

    def __init__(self, pipeline: Any, family: Family, config: PolicyConfig) -> None:
        self.pipeline, self.family, self.config = pipeline, family, config
        self.module: nn.Module = getattr(pipeline, family.network_name)
        """The denoiser itself."""
        self.network: nn.Module = self.module
        """The denoiser as it is called: itself, or wrapped for several processes."""
        self.frozen: nn.Module | None = None
        """The reference of a fully trained policy, made when first needed."""
        self._conditions: dict[str, Condition] = {}

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that learn, by name."""
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}

    def encode(self, prompts: list[str]) -> Condition:
        """Conditions ``[N, ...]``; a distinct text is encoded once and remembered in main memory."""
        rows = {text: self._condition(text) for text in dict.fromkeys(prompts)}
        return Condition.cat([rows[text] for text in prompts]).to(self.device)

    def _condition(self, text: str) -> Condition:
        """One row, on the CPU; the texts used longest ago are forgotten beyond `REMEMBERED`."""
        found = self._conditions.pop(text, None)
        if found is None:
            # One by one: a text's numbers must not depend on its company, or a resumed run would differ.
            with torch.no_grad():
                found = self.family.encode([text]).to("cpu")
        self._conditions[text] = found
        if len(self._conditions) > REMEMBERED:
            self._conditions.pop(next(iter(self._conditions)))
        return found

    def start(
        self,
        prompts: list[str],
        group_N: Tensor,
        seed_N: Tensor,
        origin_N: Tensor,
        sigma: float,
        guided: bool,
        clean: Tensor | None = None,
    ) -> Start:
        """Initial states at noise level ``sigma``; ``guided`` adds the unconditional condition.

        ``seed_N`` seeds the noise of the steps, ``origin_N`` the starting noise: samples of one origin (which must have
        one prompt) are one sample until their draws differ. ``clean`` latents, where given, are noised to ``sigma``
        instead of starting from noise alone.
        """
        noise = noise_for(origin_N, self.family.latent_shape(), 0).to(self.device)
        if clean is None:
            x = self.family.to_path(noise, torch.full((len(prompts),), sigma, device=self.device))
        else:
            x = (1 - sigma) * clean + sigma * noise
        unconditional = self.encode([self.config.negative] * len(prompts)) if guided else None
        condition = self.encode([self.config.prefix + text for text in prompts])
        return Start(prompts, group_N, seed_N, origin_N, x, condition, unconditional)

    def velocity(
        self,
        x: Tensor,
        sigma_N: Tensor,
        condition: Condition,
        unconditional: Condition | None,
        guidance: GuidanceConfig,
    ) -> Tensor:
        """v_u + scale (v_c - v_u), float32; one network call without guidance, and one of twice the batch with it."""
        predict = self.family.velocity
        if unconditional is None:
            return predict(self.network, x, sigma_N, condition)
        if torch.is_grad_enabled() and guidance.detach_unconditional:
            with torch.no_grad():
                v_u = predict(self.network, x, sigma_N, unconditional)
            v_c = predict(self.network, x, sigma_N, condition)
        else:
            both = Condition.cat([unconditional, condition])
            v_u, v_c = predict(self.network, torch.cat([x, x]), torch.cat([sigma_N, sigma_N]), both).chunk(2)
        return v_u + guidance.scale * (v_c - v_u)

    def schedule(self, steps: int) -> Tensor:
        """As `Family.schedule`; InputError where the scheduler has none (a stretched one has none of 1 step)."""
        sigmas = self.family.schedule(steps)
        if not sigmas.isfinite().all():
            name = self.family.pipeline_class
            raise InputError(f"steps: {name}'s scheduler has no schedule of {steps} step{'s' * (steps != 1)}; use more")
        return sigmas

    def decode(self, final_Nx: Tensor, sigma: float | Tensor, batch: int, frame_NK: Tensor | None = None) -> Tensor:
        """Images ``[N, 3, H, W]`` or videos ``[N, F, 3, H, W]`` in 0..1, float32, ``batch`` at a time.

        ``sigma`` is their noise level, or that of each ``[N]``. With gradient where the latents have one. ``frame_NK``
        (int64): of each video only these frames of its own.
        """
        if frame_NK is not None and self.family.frames is None:
            raise InputError(f"frames: {self.family.pipeline_class} draws images, which have none; leave them out")
        levels_N = torch.as_tensor(sigma, dtype=torch.float32, device=final_Nx.device).expand(len(final_Nx))
        decoded = []
        with torch.set_grad_enabled(final_Nx.requires_grad):
            for i in range(0, len(final_Nx), batch):
                x, sigma_N = final_Nx[i : i + batch], levels_N[i : i + batch]
                decoded.append(self.family.decode(x, sigma_N, None if frame_NK is None else frame_NK[i : i + batch]))
        return torch.cat(decoded)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """The policy before training: adapters off, or a frozen copy of the fully trained network."""
        if self.config.training == "lora" and self.config.adapter is None:
            self.module.disable_adapters()  # pyright: ignore[reportCallIssue]
            try:
                yield
            finally:
                self.module.enable_adapters()  # pyright: ignore[reportCallIssue]
            return
        if self.frozen is None:
            raise InputError("kl.beta: the reference was not kept; call keep_reference() before training")
        network, self.network = self.network, self.frozen
        try:
            yield
        finally:
            self.network = network

    def encode_images(self, images: list[Tensor]) -> Tensor:
        """Clean latents ``[N, ...]`` of images ``[3, H, W]`` or videos ``[F, 3, H, W]`` in 0..1, fitted to the policy's
        size and number of frames. InputError where the policy draws the other kind."""
        kind, ndim = ("images", 3) if self.family.frames is None else ("videos", 4)
        if any(image.ndim != ndim for image in images):
            name = self.family.pipeline_class
            raise InputError(f"policy.model: {name} draws {kind}, so it can only start and learn from {kind}")
        return self.family.to_latents(self.fitted(images).to(self.device))

    def fitted(self, images: list[Tensor]) -> Tensor:
        """Images ``[3, H, W]`` or videos ``[F, 3, H, W]`` of any size, scaled to cover the policy's and cut to it;
        of videos as many frames as the policy draws, spread evenly."""
        height, width = self.family.size
        fitted = []
        for image in images:
            pixels = image if image.ndim == 4 else image[None]
            if image.ndim == 4 and self.family.frames is not None:
                pixels = pixels[by_count(len(pixels), self.family.frames)]
            h, w = pixels.shape[-2:]
            if (h, w) != (height, width):
                scale = max(height / h, width / w)
                size = [max(height, round(h * scale)), max(width, round(w * scale))]
                pixels = F.interpolate(pixels, size, mode="area" if scale < 1 else "bilinear")
                top, left = (size[0] - height) // 2, (size[1] - width) // 2
                pixels = pixels[:, :, top : top + height, left : left + width]
            fitted.append(pixels if image.ndim == 4 else pixels[0])
        return torch.stack(fitted)

    def keep_reference(self) -> None:
        """Keeps a frozen copy where adapters cannot simply be turned off."""
        if self.config.training == "full" or self.config.adapter is not None:
            self.frozen = deepcopy(self.module).requires_grad_(False)

    def save(self, folder: Path) -> None:
        """The trained part in the ecosystem's format: a peft adapter, or the denoiser's own diffusers folder.

        Written beside and moved into place, so that an interrupted save leaves nothing.
        """
        temporary = folder.with_name(folder.name + ".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            if self.config.training == "lora":
                self._save_adapter(temporary)
            else:
                self.module.save_pretrained(temporary)  # pyright: ignore[reportCallIssue]
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _save_adapter(self, folder: Path) -> None:
        from peft import get_peft_model_state_dict

        name = self.family.network_name
        layers = {f"{name}_lora_layers": get_peft_model_state_dict(self.module, adapter_name=ADAPTER)}
        # The metadata carries alpha; without it diffusers would load the adapter with alpha = rank.
        settings = {f"{name}_lora_adapter_metadata": _in_order(self.module.peft_config[ADAPTER].to_dict())}  # pyright: ignore
        type(self.pipeline).save_lora_weights(folder, **layers, **settings)
        for file in folder.glob("*.safetensors"):
            _order_header(file)


def _in_order(settings: dict[str, Any]) -> dict[str, Any]:
    """Sets as sorted lists, so that the same adapter is the same file."""
    return {name: sorted(value) if isinstance(value, set) else value for name, value in settings.items()}


def _order_header(file: Path) -> None:
    """The header's metadata in alphabetical order: safetensors writes it in the order of a hash map, new every time."""
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps({"__metadata__": header.pop("__metadata__"), **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
