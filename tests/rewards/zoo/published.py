"""Small reward models with random weights, in exactly the files, tensor names and shapes that are published.

The names are written down from the authors' code (open_clip's model.py, BLIP's vit.py and med.py), not from the maps
under test; with the published sizes they give the published number of tensors and parameters.
"""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from tiny import clip_tokenizer

State = dict[str, Tensor]
Make = Callable[..., Tensor]

WORDS = len(clip_tokenizer())
BERT_WORDS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"abcdefghijklmnopqrstuvwxyz,.!",
    "red",
    "circle",
    "##s",
    "日",
)
MED_CONFIG = {
    **{"architectures": ["BertModel"], "attention_probs_dropout_prob": 0.1, "hidden_dropout_prob": 0.1},
    **{"hidden_act": "gelu", "initializer_range": 0.02, "layer_norm_eps": 1e-12, "model_type": "bert"},
    **{"max_position_embeddings": 512, "pad_token_id": 0, "type_vocab_size": 2, "add_cross_attention": True},
    **{"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12},
    **{"vocab_size": 30524, "encoder_width": 768},
}
SMALL_MED = MED_CONFIG | {
    **{"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_hidden_layers": 2},
    **{"vocab_size": len(BERT_WORDS) + 2, "max_position_embeddings": 64},
}


def noise(seed: int, scale: float = 0.3) -> Make:
    """Makes tensors of this scale, one after another from one seed."""
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: scale * torch.randn(shape, generator=generator)


def meta(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


# --------------------------------------------------------------------------------------------------------- open_clip


def open_clip_state(
    make: Make, text: int, vision: int, layers: tuple[int, int], patch: int, grid: int, width: int, words: int
) -> State:
    """CLIP's state dict in OpenAI's and open_clip's layout: ``layers`` of the text and the image half."""
    state = {
        "positional_embedding": make(77, text),
        "text_projection": make(text, width),
        "logit_scale": make().abs(),
        "visual.class_embedding": make(vision),
        "visual.positional_embedding": make(grid * grid + 1, vision),
        "visual.proj": make(vision, width),
        "visual.conv1.weight": make(vision, 3, patch, patch),
        "token_embedding.weight": make(words, text),
        **norm(make, "visual.ln_pre", vision),
        **norm(make, "visual.ln_post", vision),
        **norm(make, "ln_final", text),
    }
    for prefix, size, count in (("transformer", text, layers[0]), ("visual.transformer", vision, layers[1])):
        for i in range(count):
            state |= _block(make, f"{prefix}.resblocks.{i}", size)
    return state


def norm(make: Make, name: str, size: int) -> State:
    return {f"{name}.weight": 1 + make(size), f"{name}.bias": make(size)}


def line(make: Make, name: str, out: int, into: int) -> State:
    return {f"{name}.weight": make(out, into), f"{name}.bias": make(out)}


def _block(make: Make, name: str, size: int) -> State:
    return {
        **norm(make, f"{name}.ln_1", size),
        f"{name}.attn.in_proj_weight": make(3 * size, size),
        f"{name}.attn.in_proj_bias": make(3 * size),
        **line(make, f"{name}.attn.out_proj", size, size),
        **norm(make, f"{name}.ln_2", size),
        **line(make, f"{name}.mlp.c_fc", 4 * size, size),
        **line(make, f"{name}.mlp.c_proj", size, 4 * size),
    }


def small_open_clip(seed: int = 0) -> State:
    """Images of 32 × 32, text 64 wide with one head, image half 128 wide with two."""
    return open_clip_state(noise(seed, 0.1), 64, 128, (2, 3), 8, 4, 48, WORDS)


def vit_h_14() -> State:
    """Names and shapes of HPSv2's checkpoint."""
    return open_clip_state(meta, 1024, 1280, (24, 32), 14, 16, 1024, 49408)


def save_hps(folder: Path, name: str, seed: int = 0) -> State:
    """``{"state_dict": …}`` in half precision beside a tokenizer; returns what is in the file."""
    folder.mkdir(parents=True, exist_ok=True)
    clip_tokenizer().save_pretrained(folder)
    state = {key: value.half() for key, value in small_open_clip(seed).items()}
    torch.save({"epoch": 1, "name": "hps", "state_dict": state}, folder / name)
    return {key: value.float() for key, value in state.items()}


# ------------------------------------------------------------------------------------------------------ transformers


def small_clip(seed: int = 0, width: int = 48) -> CLIPModel:
    """Images of 32 × 32, with the old ``eos_token_id`` that the published configurations have."""
    tokenizer = clip_tokenizer()
    half = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1, "vocab_size": len(tokenizer)}
    text = {**half, **ids, "max_position_embeddings": 77, "hidden_act": "gelu"}
    vision = {**half, "image_size": 32, "patch_size": 8, "hidden_act": "gelu"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=width)).eval()
    make = noise(seed, 0.1)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(make(*value.shape))
        model.logit_scale.fill_(4.6)
    return model


def save_clip(folder: Path, seed: int = 0, width: int = 48, pickle: bool = False) -> CLIPModel:
    """A folder as on the hub: configuration, weights with position ids, tokenizer."""
    model = small_clip(seed, width)
    model.config.save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)
    state = {name: value.clone().contiguous() for name, value in model.state_dict().items()}
    state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    state["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    if pickle:
        torch.save(state, folder / "pytorch_model.bin")
    else:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return model


# ------------------------------------------------------------------------------------------------------- ImageReward


def image_reward_state(make: Make, vision: int, depth: int, patch: int, grid: int, settings: dict) -> State:
    """The state dict of ImageReward.pt: BLIP's image encoder, text encoder, two unused projections, the head."""
    size, encoder = settings["hidden_size"], "blip.visual_encoder"
    state = {
        f"{encoder}.cls_token": make(1, 1, vision),
        f"{encoder}.pos_embed": make(1, grid * grid + 1, vision),
        f"{encoder}.patch_embed.proj.weight": make(vision, 3, patch, patch),
        f"{encoder}.patch_embed.proj.bias": make(vision),
        **norm(make, f"{encoder}.norm", vision),
    }
    for i in range(depth):
        name = f"{encoder}.blocks.{i}"
        state |= norm(make, f"{name}.norm1", vision) | norm(make, f"{name}.norm2", vision)
        state |= line(make, f"{name}.attn.qkv", 3 * vision, vision) | line(make, f"{name}.attn.proj", vision, vision)
        state |= line(make, f"{name}.mlp.fc1", 4 * vision, vision) | line(make, f"{name}.mlp.fc2", vision, 4 * vision)
    text = "blip.text_encoder"
    state |= {
        f"{text}.embeddings.position_ids": torch.arange(settings["max_position_embeddings"])[None],
        f"{text}.embeddings.word_embeddings.weight": make(settings["vocab_size"], size),
        f"{text}.embeddings.position_embeddings.weight": make(settings["max_position_embeddings"], size),
        **norm(make, f"{text}.embeddings.LayerNorm", size),
    }
    for i in range(settings["num_hidden_layers"]):
        name, inner = f"{text}.encoder.layer.{i}", settings["intermediate_size"]
        for attention, keys in (("attention", size), ("crossattention", vision)):
            state |= line(make, f"{name}.{attention}.self.query", size, size)
            state |= line(make, f"{name}.{attention}.self.key", size, keys)
            state |= line(make, f"{name}.{attention}.self.value", size, keys)
            state |= line(make, f"{name}.{attention}.output.dense", size, size)
            state |= norm(make, f"{name}.{attention}.output.LayerNorm", size)
        state |= line(make, f"{name}.intermediate.dense", inner, size) | line(make, f"{name}.output.dense", size, inner)
        state |= norm(make, f"{name}.output.LayerNorm", size)
    state |= line(make, "blip.vision_proj", 256, vision) | line(make, "blip.text_proj", 256, size)
    return state | head_state(make, "mlp.layers", size)


def head_state(make: Make, name: str, size: int) -> State:
    sizes = (size, 1024, 128, 64, 16, 1)
    layers = zip((0, 2, 4, 6, 7), sizes[:-1], sizes[1:], strict=True)
    return {
        key: value for place, into, out in layers for key, value in line(make, f"{name}.{place}", out, into).items()
    }


def save_image_reward(folder: Path, seed: int = 0) -> State:
    """ImageReward.pt and med_config.json as on the hub, and BERT's vocabulary beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    state = image_reward_state(noise(seed, 0.1), 128, 2, 8, 4, SMALL_MED)
    torch.save(state, folder / "ImageReward.pt")
    (folder / "med_config.json").write_text(json.dumps(SMALL_MED))
    (folder / "vocab.txt").write_text("\n".join(BERT_WORDS) + "\n", encoding="utf-8")
    return state


# --------------------------------------------------------------------------------------------------------- aesthetic


def save_aesthetic(folder: Path, seed: int = 0) -> tuple[CLIPModel, State, State]:
    """A CLIP with LAION's two heads beside it, under their published names."""
    model = save_clip(folder, seed)
    second = head_state(noise(seed + 1, 0.1), "layers", 48)
    first = {"weight": noise(seed + 2)(1, 48), "bias": noise(seed + 3)(1)}
    torch.save(second, folder / "sac+logos+ava1-l14-linearMSE.pth")
    torch.save(first, folder / "sa_0_4_vit_l_14_linear.pth")
    return model, first, second
