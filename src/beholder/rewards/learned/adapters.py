"""LoRA adapters (2106.09685) inside a frozen network, the only part of it that trains."""

from torch import nn

from beholder.errors import InputError


def add_adapters(network: nn.Module, rank: int, targets: str) -> None:
    """Adapters of this rank, in float32, in every linear layer whose whole name matches the pattern ``targets``.

    They begin as nothing: B is 0. InputError where no layer matches.
    """
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets)
    try:
        inject_adapter_in_model(config, network)
    except ValueError as error:
        kind = type(network).__name__
        raise InputError(f"lora: {kind} has no layers to adapt ({error}); leave out --lora") from error
    for name, parameter in network.named_parameters():
        own = ".lora_" in name
        parameter.requires_grad_(own)
        if own:
            parameter.data = parameter.data.float()
