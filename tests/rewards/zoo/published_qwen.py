"""Small Qwen2-VL reward models with random weights, in exactly the files and tensor names that are published.

Names and shapes are written down from the tensors of Qwen2-VL under transformers 4.45, which both authors trained with.
"""

import json
from pathlib import Path

import torch
from published import Make, State, line, noise, norm
from safetensors.torch import save_file

from tiny_vlms import QWEN_SPECIALS, tokenizer

WIDTH, INNER, DEPTH, HEADS, KEYS, PATCH = 32, 64, 2, 4, 2, 14
MARKS = ("<|VQ_reward|>", "<|MQ_reward|>", "<|TA_reward|>")
ROPE = {"type": "mrope", "mrope_section": [1, 1, 2]}
CONFIG = {
    **{"architectures": ["Qwen2VLForConditionalGeneration"], "model_type": "qwen2_vl", "hidden_act": "silu"},
    **{"hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS},
    **{"num_key_value_heads": KEYS, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "rope_scaling": ROPE},
    **{"max_position_embeddings": 32768, "max_window_layers": DEPTH, "use_sliding_window": False},
    **{"tie_word_embeddings": False, "vocab_size": 999, "attention_dropout": 0.0, "torch_dtype": "bfloat16"},
    "vision_config": {
        **{"depth": 2, "embed_dim": WIDTH, "mlp_ratio": 2, "num_heads": 2, "in_chans": 3, "hidden_size": WIDTH},
        **{"patch_size": PATCH, "spatial_merge_size": 2, "spatial_patch_size": PATCH, "temporal_patch_size": 2},
    },
}
"""As in the hub's config.json of that time: the language model's settings stand at the top."""
NORMALISATION = {
    **{"VQ_mean": 3.6757, "VQ_std": 2.2476, "MQ_mean": 1.1646, "MQ_std": 1.3811, "TA_mean": 2.8105, "TA_std": 2.5121}
}


def vocabulary() -> int:
    return len(tokenizer(QWEN_SPECIALS))


def qwen_state(make: Make, words: int) -> State:
    """``visual.``, ``model.`` and ``lm_head.`` of Qwen2-VL."""
    state = {
        "visual.patch_embed.proj.weight": make(WIDTH, 3, 2, PATCH, PATCH),
        **norm(make, "visual.merger.ln_q", WIDTH),
        **line(make, "visual.merger.mlp.0", 4 * WIDTH, 4 * WIDTH),
        **line(make, "visual.merger.mlp.2", WIDTH, 4 * WIDTH),
        "model.embed_tokens.weight": 5 * make(words, WIDTH),
        "model.norm.weight": 1 + make(WIDTH),
        "lm_head.weight": make(words, WIDTH),
    }
    for i in range(2):
        name = f"visual.blocks.{i}"
        state |= norm(make, f"{name}.norm1", WIDTH) | norm(make, f"{name}.norm2", WIDTH)
        state |= line(make, f"{name}.attn.qkv", 3 * WIDTH, WIDTH) | line(make, f"{name}.attn.proj", WIDTH, WIDTH)
        state |= line(make, f"{name}.mlp.fc1", 2 * WIDTH, WIDTH) | line(make, f"{name}.mlp.fc2", WIDTH, 2 * WIDTH)
    side = WIDTH // HEADS * KEYS
    for i in range(DEPTH):
        name = f"model.layers.{i}"
        state |= line(make, f"{name}.self_attn.q_proj", WIDTH, WIDTH) | line(
            make, f"{name}.self_attn.k_proj", side, WIDTH
        )
        state |= line(make, f"{name}.self_attn.v_proj", side, WIDTH)
        state[f"{name}.self_attn.o_proj.weight"] = make(WIDTH, WIDTH)
        state[f"{name}.mlp.gate_proj.weight"] = make(INNER, WIDTH)
        state[f"{name}.mlp.up_proj.weight"] = make(INNER, WIDTH)
        state[f"{name}.mlp.down_proj.weight"] = make(WIDTH, INNER)
        state[f"{name}.input_layernorm.weight"] = 1 + make(WIDTH)
        state[f"{name}.post_attention_layernorm.weight"] = 1 + make(WIDTH)
    return state


def renamed(state: State) -> State:
    """The names since transformers 4.52."""
    new = {}
    for name, value in state.items():
        name = f"model.{name}" if name.startswith("visual.") else name.replace("model.", "model.language_model.", 1)
        new[name] = value
    return new


def save_base(folder: Path) -> None:
    """Configuration and tokenizer of Qwen2-VL, without the reward tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    tokenizer(QWEN_SPECIALS).save_pretrained(folder)


def save_hpsv3(folder: Path, seed: int = 0, new_names: bool = False) -> State:
    """``HPSv3.safetensors`` beside its base's files; returns its tensors by their old names."""
    save_base(folder)
    make = noise(seed, 0.2)
    state = qwen_state(make, vocabulary() + 1)
    state |= line(make, "rm_head.0", 1024, WIDTH) | line(make, "rm_head.3", 16, 1024) | line(make, "rm_head.5", 2, 16)
    state["rm_head.3.weight"] /= 8
    save_file(renamed(state) if new_names else state, folder / "HPSv3.safetensors")
    return state


def save_videoalign(folder: Path, seed: int = 0, outputs: int = 1, form: str = "full", rank: int = 4) -> State:
    """VideoReward's folder with its base in ``base/``; returns the plain tensors that its LoRA amounts to.

    ``full``: a peft model's ``model.pth``, as released; ``plain``: one without an adapter; ``adapter``: peft's file
    beside what else was trained.
    """
    base = folder / "base"
    save_base(base)
    checkpoint = folder / "checkpoint-100"
    checkpoint.mkdir(parents=True)
    make = noise(seed, 0.2)
    state = qwen_state(make, vocabulary() + 3) | {"rm_head.weight": make(outputs, WIDTH)}
    (folder / "model_config.json").write_text(json.dumps(settings(str(base), outputs, form != "plain", rank)))
    if form == "plain":
        torch.save(state, checkpoint / "model.pth")
        return state
    adapted = [name for name in state if name.startswith("model.layers.") and "proj.weight" in name]
    lora = {
        name: (make(rank, state[name].shape[1]), make(state[name].shape[0], rank)) for name in adapted
    }  # train.sh leaves lm_head, rm_head, embed_tokens and the image half out
    a_and_b = {
        f"base_model.model.{name.removesuffix('.weight')}.lora_{half}{{}}.weight": value
        for name, halves in lora.items()
        for half, value in zip("AB", halves, strict=True)
    }
    if form == "full":
        words = tokenizer((*QWEN_SPECIALS, *MARKS))
        words.save_pretrained(checkpoint / "tokenizer")
        plain = {
            f"base_model.model.{name.replace('.weight', '.base_layer.weight') if name in lora else _based(name)}": value
            for name, value in state.items()
        }
        torch.save(plain | {name.format(".default"): v for name, v in a_and_b.items()}, checkpoint / "model.pth")
    else:
        half = {name: value for name, value in state.items() if name != "rm_head.weight"}
        save_file(half | {"model.embed_tokens.weight": half["model.embed_tokens.weight"][:-3].clone()},
                  base / "model.safetensors")  # fmt: skip
        save_file({name.format(""): value for name, value in a_and_b.items()}, checkpoint / "adapter_model.safetensors")
        trained = [n for n in state if n.startswith("visual.") or n in ("rm_head.weight", "model.embed_tokens.weight")]
        torch.save({f"base_model.model.{n}": state[n] for n in trained}, checkpoint / "non_lora_state_dict.pth")
    return state | {name: state[name] + 2.0 * b @ a for name, (a, b) in lora.items()}


def _based(name: str) -> str:
    """The bias of an adapted layer moves with its weight."""
    return name.replace(".bias", ".base_layer.bias") if name.startswith("model.layers.") else name


def settings(base: str, outputs: int, lora: bool, rank: int) -> dict:
    """``model_config.json``; its LoRA scale is 2."""
    return {
        "data_config": {
            **{"max_frame_pixels": 200704, "num_frames": None, "fps": 2.0, "eval_dim": ["VQ", "MQ", "TA"]},
            **{"prompt_template_type": "detailed_special", "sample_type": "uniform", "meta_data": "", "data_dir": ""},
        },
        "training_args": {},
        "model_config": {
            **{"model_name_or_path": base, "output_dim": outputs, "use_special_tokens": True},
            "reward_token": "special",
        },
        "peft_lora_config": {"lora_enable": lora, "lora_r": rank, "lora_alpha": 2 * rank, "use_rslora": False},
        "inference_config": NORMALISATION,
    }
