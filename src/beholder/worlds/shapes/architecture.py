"""The bundled generator's parts, all of diffusers and transformers: a genuine, tiny StableDiffusion3Pipeline."""

from typing import Any

from beholder.worlds.shapes.prompts import all_prompts
from beholder.worlds.shapes.scenes import SIZE

TEXT_TOKENS = 9
"""Length every prompt is padded or cut to: start, at most seven words, end."""
ABSENT_TOKENS = 1
"""Zero tokens in place of the absent T5 encoder (the pipeline's ``max_sequence_length``)."""
TEXT_WIDTH = 48
LATENT_CHANNELS = 4


def build_tokenizer() -> Any:
    """A CLIP tokenizer in which every word of the world is one token and any other text still has a spelling.

    Made without training: `tokenizers`' trainer breaks ties in no fixed order, and a resumed run needs equal numbers.
    """
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = dict.fromkeys(letters + [f"{letter}</w>" for letter in letters])
    merges: list[tuple[str, str]] = []
    for word in sorted({word for prompt in all_prompts() for word in prompt.text.split()}):
        pieces = _spell([*word[:-1], f"{word[-1]}</w>"], merges)
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            symbols[pieces[0] + pieces[1]] = None
            pieces = _spell(pieces, merges)
    numbered = {symbol: i for i, symbol in enumerate([*symbols, "<|startoftext|>", "<|endoftext|>"])}
    settings: dict[str, Any] = {"vocab": numbered, "merges": merges, "model_max_length": TEXT_TOKENS}
    return CLIPTokenizer(**settings)


def _spell(pieces: list[str], merges: list[tuple[str, str]]) -> list[str]:
    """``pieces`` after every merge, earlier ones first, as byte-pair encoding applies them."""
    for left, right in merges:
        i = 0
        while i < len(pieces) - 1:
            if (pieces[i], pieces[i + 1]) == (left, right):
                pieces = [*pieces[:i], left + right, *pieces[i + 2 :]]
            i += 1
    return pieces


def build_text_encoder(tokenizer: Any) -> Any:
    """A two-layer CLIP text encoder; SD3 reads its first layer per token and its pooled projection."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_attention_heads=4,
            num_hidden_layers=2,
            max_position_embeddings=TEXT_TOKENS,
            projection_dim=TEXT_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_vae() -> Any:
    """An f4 autoencoder: 32×32 pixels to 8×8 latents of four channels."""
    from diffusers import AutoencoderKL

    settings: dict[str, Any] = dict(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=SIZE,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=1.0,
        shift_factor=0.0,
    )
    return AutoencoderKL(**settings)


def build_transformer() -> Any:
    """The MMDiT: four joint blocks of width 192 over 4×4 image tokens and the text tokens."""
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        sample_size=SIZE // 4,
        patch_size=2,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=4,
        attention_head_dim=32,
        num_attention_heads=6,
        joint_attention_dim=2 * TEXT_WIDTH,
        caption_projection_dim=192,
        pooled_projection_dim=2 * TEXT_WIDTH,
        pos_embed_max_size=SIZE // 8,
        qk_norm="rms_norm",
    )


def build_pipeline() -> Any:
    """The untrained pipeline. The T5 encoder is absent, as SD3 allows; one zero token stands for it."""
    from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline

    tokenizer = build_tokenizer()
    absent: dict[str, Any] = {"text_encoder_3": None, "tokenizer_3": None}
    return StableDiffusion3Pipeline(
        transformer=build_transformer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, shift_terminal=0.1),
        vae=build_vae(),
        text_encoder=build_text_encoder(tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=build_text_encoder(tokenizer),
        tokenizer_2=tokenizer,
        **absent,
    )
