"""Policies from folders and hub names: the pipeline, its family, and what of it learns.

Add a family by writing its file (`sd3.py`, `wan.py`) and naming it in `FAMILIES`.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from beholder.config import PolicyConfig
from beholder.errors import InputError
from beholder.policies.family import Family, check_embedded_guidance
from beholder.policies.flux import FluxFamily
from beholder.policies.policy import ADAPTER, Policy
from beholder.policies.sd import SDFamily
from beholder.policies.sd3 import SD3Family
from beholder.policies.sdxl import SDXLFamily
from beholder.policies.text_to_video_sd import TextToVideoSDFamily
from beholder.policies.wan import WanFamily

FAMILIES: tuple[type[Family], ...] = (SD3Family, FluxFamily, SDFamily, SDXLFamily, WanFamily, TextToVideoSDFamily)


def load_policy(config: PolicyConfig | str = "shapes", device: str | torch.device = "cpu", seed: int = 0) -> Policy:
    """The policy named by ``config.model``, its trainable parameters in float32 and ready to learn.

    ``seed`` draws the initial adapters. InputError when the folder is missing, damaged, or of an unknown family.
    """
    config = PolicyConfig(model=config) if isinstance(config, str) else config
    folder = bundled_generator() if config.model == "shapes" else config.model
    config = with_folder_defaults(config, folder)
    pipeline = _load_pipeline(folder, config)
    family = _family_of(pipeline)(pipeline, config)
    check_embedded_guidance(config, family, pipeline)
    pipeline.to(device)
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.requires_grad_(False).eval()
    policy = Policy(pipeline, family, config)
    _make_trainable(policy, seed)
    return policy


def bundled_generator() -> str:
    """Folder of the generator that comes with the package."""
    folder = Path(__file__).parent.parent / "worlds" / "shapes" / "generator"
    if not (folder / "model_index.json").exists():
        raise InputError(
            f"policy.model: the bundled generator is not in {folder}; reinstall beholder, or make it with "
            "python -m beholder.worlds.shapes.train --help"
        )
    return str(folder)


def with_folder_defaults(config: PolicyConfig, folder: str) -> PolicyConfig:
    """Fills unset fields from ``beholder.json`` in the model's folder, if there is one."""
    path = Path(folder) / "beholder.json"
    if not path.exists():
        return config
    try:
        tokens = json.loads(path.read_text(encoding="utf-8")).get("max_sequence_length")
    except (ValueError, AttributeError) as error:
        raise InputError(f"policy.model: {str(path)!r} is not a JSON object: {error}") from error
    if config.max_sequence_length is None and tokens is not None:
        config = replace(config, max_sequence_length=int(tokens))
    return config


def _load_pipeline(folder: str, config: PolicyConfig) -> Any:
    from diffusers import DiffusionPipeline

    _quiet()
    is_hub_name = folder.count("/") == 1 and not folder.startswith((".", "/", "~"))
    if not is_hub_name and not Path(folder).is_dir():
        raise InputError(f"policy.model: no folder {folder!r}; give a diffusers folder, a hub name, or 'shapes'")
    with _loading("policy.model", folder):
        absent = _absent_parts(Path(folder))
        dtype = getattr(torch, config.dtype)
        return DiffusionPipeline.from_pretrained(folder, dtype=dtype, use_safetensors=True, **absent)


@contextmanager
def _loading(setting: str, folder: str | Path) -> Iterator[None]:
    """Whatever diffusers, transformers and peft raise at a damaged or foreign folder, as one line."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise InputError(
            f"{setting}: {str(folder)!r} does not load: its weights are damaged ({error}); copy or download it again"
        ) from error
    # LookupError: an empty or unforeseen listing; AttributeError: an unknown class.
    except (OSError, RuntimeError, ValueError, LookupError, AttributeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:2]) or type(error).__name__
        if "safetensors" in reason and ("no file named" in reason or "Could not find" in reason):
            reason += "; only safetensors are read, never pickles: load it once with diffusers and save_pretrained it"
        raise InputError(f"{setting}: {str(folder)!r} does not load: {reason}") from error


def _absent_parts(folder: Path) -> dict[str, None]:
    """Parts saved as absent must be passed as None again, or diffusers refuses the folder."""
    index = folder / "model_index.json"
    if not index.exists():
        return {}
    entries = json.loads(index.read_text(encoding="utf-8"))
    return {name: None for name, value in entries.items() if isinstance(value, list) and value == [None, None]}


def _quiet() -> None:
    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()


def _family_of(pipeline: Any) -> type[Family]:
    name = type(pipeline).__name__
    for family in FAMILIES:
        if family.pipeline_class == name:
            return family
    known = ", ".join(family.pipeline_class for family in FAMILIES)
    raise InputError(f"policy.model: pipelines of class {name} are not supported yet; supported: {known}")


def _make_trainable(policy: Policy, seed: int) -> None:
    """Marks what learns, in float32: the whole denoiser, or new or loaded adapters."""
    config = policy.config
    if config.training == "full":
        policy.module.float()
        if config.adapter is not None:
            _load_weights(policy, Path(config.adapter), config.share)
        policy.module.requires_grad_(True)
        return
    if config.adapter is not None:
        _load_adapter(policy, Path(config.adapter), config.share)
    else:
        _add_adapter(policy, seed)
    for name, parameter in policy.module.named_parameters():
        if ".lora_" in name:
            parameter.requires_grad_(True)
            parameter.data = parameter.data.float()


def _add_adapter(policy: Policy, seed: int) -> None:
    from peft import LoraConfig

    lora = policy.config.lora
    targets = list(lora.targets or policy.family.lora_targets)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            policy.module.add_adapter(  # pyright: ignore[reportCallIssue]
                LoraConfig(r=lora.rank, lora_alpha=lora.alpha, init_lora_weights="gaussian", target_modules=targets),
                adapter_name=ADAPTER,
            )
        except ValueError as error:
            raise InputError(f"policy.lora.targets: {error}") from error


def _load_adapter(policy: Policy, folder: Path, share: float) -> None:
    if (folder / "config.json").exists():
        raise InputError(f"policy.adapter: {str(folder)!r} holds a whole denoiser; use --policy.training full")
    if not folder.is_dir():
        raise InputError(f"policy.adapter: no folder {str(folder)!r}; give RUN/policy of a run")
    with _loading("policy.adapter", folder):
        policy.pipeline.load_lora_weights(folder, adapter_name=ADAPTER, use_safetensors=True)
    adapted = {name for name, part in policy.pipeline.components.items() if _is_adapted(part)}
    network = policy.family.network_name
    if adapted - {network}:
        raise InputError(
            f"policy.adapter: {str(folder)!r} also adapts {', '.join(sorted(adapted - {network}))}, which a run would "
            f"not save; give an adapter of the {network} alone"
        )
    if not adapted:
        raise InputError(f"policy.adapter: {str(folder)!r} adapts no layer of this {network}")
    for name, parameter in policy.module.named_parameters():
        if ".lora_B." in name:  # the change of the weights is linear in B
            parameter.data *= share


def _is_adapted(part: Any) -> bool:
    return isinstance(part, nn.Module) and any(".lora_" in name for name, _ in part.named_parameters())


def _load_weights(policy: Policy, folder: Path, share: float) -> None:
    if not (folder / "config.json").exists():
        raise InputError(f"policy.adapter: {str(folder)!r} holds no whole denoiser; use --policy.training lora")
    kind: Any = type(policy.module)
    with _loading("policy.adapter", folder):
        trained = kind.from_pretrained(folder, use_safetensors=True).float().state_dict()
        own = policy.module.state_dict()
        policy.module.load_state_dict({name: torch.lerp(own[name], value, share) for name, value in trained.items()})
