"""Vision-language models with random weights, built offline in a second, as the folders their families publish.

Each is a genuine transformers model with its own image processor, tokenizer and chat template, so what passes with them
runs unchanged on the published ones. No processor of theirs is constructed here: some cannot be without torchvision.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from tokenizers.pre_tokenizers import ByteLevel

WIDTH = 32
TEXT: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
ANSWERS = ("yes", "Yes", "no", "No")

TURN = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""A chat template in the manner of ChatML, with IMAGE for what the family writes for a picture."""


def save_vlm(family: str, folder: Path, seed: int = 0) -> Path:
    """A random model of the family (a key of `FAMILIES`) as a folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        FAMILIES[family](folder)
    return folder


def tokenizer(specials: tuple[str, ...], named: dict[str, str] | None = None) -> Any:
    """Bytes, and yes and no with and without a capital or a space before them as single tokens."""
    merges: Any = []
    for word in ANSWERS:
        merges += [(word[:i], word[i]) for i in range(1, len(word))]
        merges.append(("Ġ", word))
    pieces = [*sorted(ByteLevel.alphabet()), *dict.fromkeys(left + right for left, right in merges)]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    made = tf.Qwen2Tokenizer(vocab=vocabulary, merges=merges, extra_special_tokens=named or {})
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", *specials]})
    return made


def _finish(
    model: torch.nn.Module, words: Any, pictures: Any, folder: Path, image: str, processor: dict[str, Any]
) -> None:
    for name, weight in model.named_parameters():
        if weight.dim() > 1:  # livelier than the usual 0.02, so that pictures and questions change the answers
            lively = "embed" in name or "lm_head" in name
            torch.nn.init.normal_(weight, std=0.5 if lively else weight[0].numel() ** -0.5)
    model.eval()
    model.save_pretrained(folder)  # pyright: ignore[reportCallIssue]
    words.chat_template = TURN.replace("IMAGE", image)
    words.save_pretrained(folder)
    pictures.save_pretrained(folder)
    (folder / "processor_config.json").write_text(json.dumps(processor))


QWEN_SPECIALS = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


def _qwen(name: str, vision: dict[str, Any], patch: int, rope: dict[str, Any], **text: Any) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        words = tokenizer(QWEN_SPECIALS)
        ids = {
            key: words.convert_tokens_to_ids(token)
            for key, token in zip(
                ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"),
                QWEN_SPECIALS,
                strict=True,
            )
        }
        config = getattr(tf, f"{name}Config")(
            text_config={**TEXT, "vocab_size": len(words), "rope_parameters": rope, **text}, vision_config=vision, **ids
        )
        model = getattr(tf, f"{name}ForConditionalGeneration")(config)
        side = 2 * patch
        pictures = tf.Qwen2VLImageProcessorPil(
            patch_size=patch, merge_size=2, min_pixels=side * side, max_pixels=9 * side * side
        )
        _finish(model, words, pictures, folder, QWEN_IMAGE, {"processor_class": f"{name}Processor"})

    return build


def _idefics3(folder: Path) -> None:
    _idefics(folder, "Idefics3")


def _smolvlm(folder: Path) -> None:
    _idefics(folder, "SmolVLM")


def _idefics(folder: Path, name: str) -> None:
    rows = tuple(f"<row_{i}_col_{j}>" for i in range(1, 4) for j in range(1, 4))
    words = tokenizer(("<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", *rows))
    config = getattr(tf, f"{name}Config")(
        image_token_id=words.convert_tokens_to_ids("<image>"),
        text_config={**TEXT, "model_type": "llama", "vocab_size": len(words)},
        vision_config={
            **{"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
            **{"image_size": 32, "patch_size": 8},
        },
        scale_factor=2,
    )
    model = getattr(tf, f"{name}ForConditionalGeneration")(config)
    pictures = getattr(tf, f"{name}ImageProcessorPil")(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}, do_image_splitting=True
    )
    _finish(model, words, pictures, folder, "<image>", {"processor_class": f"{name}Processor", "image_seq_len": 4})


def _llava(folder: Path) -> None:
    _like_llava(folder, "Llava")


def _vipllava(folder: Path) -> None:
    _like_llava(folder, "VipLlava", vision_feature_layers=[-1, -2])


def _like_llava(folder: Path, name: str, **settings: Any) -> None:
    words = tokenizer(("<image>",))
    config = getattr(tf, f"{name}Config")(
        image_token_index=words.convert_tokens_to_ids("<image>"),
        text_config={**TEXT, "model_type": "llama", "vocab_size": len(words)},
        vision_config={
            **{"model_type": "clip_vision_model", "hidden_size": WIDTH, "intermediate_size": 64},
            **{"num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8},
            "projection_dim": WIDTH,
        },
        **settings,
    )
    size = {"height": 32, "width": 32}
    pictures = tf.CLIPImageProcessorPil(size=size, crop_size=size)
    processor = {
        **{"processor_class": "LlavaProcessor", "patch_size": 8, "num_additional_image_tokens": 1},
        "vision_feature_select_strategy": "default",
    }
    _finish(getattr(tf, f"{name}ForConditionalGeneration")(config), words, pictures, folder, "<image>\n", processor)


def _internvl(folder: Path) -> None:
    named = {
        **{"start_image_token": "<img>", "end_image_token": "</img>"},
        **{"context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"},
    }
    words = tokenizer((), named)
    config = tf.InternVLConfig(
        image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"),
        text_config={**TEXT, "model_type": "qwen2", "vocab_size": len(words)},
        vision_config={
            **{"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
            **{"image_size": [32, 32], "patch_size": [8, 8]},
        },
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    pictures = tf.GotOcr2ImageProcessorPil(
        size={"height": 32, "width": 32}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    processor = {"processor_class": "InternVLProcessor", "image_seq_length": 4}
    _finish(tf.InternVLForConditionalGeneration(config), words, pictures, folder, "<IMG_CONTEXT>\n", processor)


OLD_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
NEW_ROPE = {**OLD_ROPE, "mrope_interleaved": True}
FAMILIES: dict[str, Callable[[Path], None]] = {
    "qwen2_vl": _qwen(
        "Qwen2VL",
        {"depth": 2, "embed_dim": WIDTH, "hidden_size": WIDTH, "num_heads": 2, "mlp_ratio": 2, "patch_size": 4},
        4,
        OLD_ROPE,
    ),
    "qwen2_5_vl": _qwen(
        "Qwen2_5_VL",
        {
            **{"depth": 2, "hidden_size": WIDTH, "out_hidden_size": WIDTH, "intermediate_size": 64, "num_heads": 2},
            **{"patch_size": 4, "window_size": 16, "fullatt_block_indexes": [1]},
        },
        4,
        OLD_ROPE,
    ),
    "qwen3_vl": _qwen(
        "Qwen3VL",
        {
            **{"depth": 2, "hidden_size": WIDTH, "out_hidden_size": WIDTH, "intermediate_size": 64, "num_heads": 2},
            **{"patch_size": 4, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
        },
        4,
        NEW_ROPE,
        head_dim=8,
    ),
    "idefics3": _idefics3,
    "smolvlm": _smolvlm,
    "llava": _llava,
    "vipllava": _vipllava,
    "internvl": _internvl,
}
