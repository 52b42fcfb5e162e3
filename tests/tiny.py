"""Tiny pipelines with random weights, built offline in a second: 32×32 images, 16×16 latents, prompts of 16 tokens.

They are genuine diffusers pipelines, so what passes with them runs unchanged on the published ones.
"""

import math
import string
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, TypeVar

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLWan,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    TextToVideoSDPipeline,
    UNet2DConditionModel,
    UNet3DConditionModel,
    WanPipeline,
    WanTransformer3DModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)

Prediction = Literal["epsilon", "v_prediction"]
Pipeline = TypeVar(
    "Pipeline",
    StableDiffusion3Pipeline,
    FluxPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    WanPipeline,
    TextToVideoSDPipeline,
)

IMAGE_SIZE = 32
LATENT_SIZE = 16
LATENT_CHANNELS = 4
VIDEO_SIZE = 16
VIDEO_LATENT_SIZE = 8
"""Of ModelScope's; Wan's are half of it."""
MAX_TOKENS = 16
TEXT_WIDTH = 32
CORPUS = (
    "a photo of a red circle",
    "two orange squares",
    "three yellow triangles",
    "four green crosses",
    "a cyan circle and a blue cat",
    "a purple square left of a white triangle",
    "a red cross right of an orange circle",
    "a blue triangle above a green square",
    "a white cross below a yellow circle",
)
WORDS = tuple(sorted(set(" ".join(CORPUS).split())))
WORD_END = "</w>"


def tiny_sd3(seed: int = 0, t5: bool = True) -> StableDiffusion3Pipeline:
    """Stable Diffusion 3: two CLIP encoders, T5 (or none), rectified flow with shift 3."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = clip_tokenizer()
        tokenizer_3 = t5_tokenizer() if t5 else None
        pipeline = StableDiffusion3Pipeline(
            transformer=_sd3_transformer(),
            vae=_autoencoder(quant_conv=False),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            text_encoder=CLIPTextModelWithProjection(_clip_config(tokenizer)),
            tokenizer=tokenizer,
            text_encoder_2=CLIPTextModelWithProjection(_clip_config(tokenizer)),
            tokenizer_2=clip_tokenizer(),
            text_encoder_3=_t5_encoder(tokenizer_3) if tokenizer_3 else None,
            tokenizer_3=tokenizer_3,
        )
        return _finish(pipeline)


def tiny_flux(seed: int = 0, distilled: bool = True) -> FluxPipeline:
    """FLUX.1: a CLIP encoder, T5, rectified flow; dev (guidance as an input, a shift by image size) or schnell."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer, tokenizer_2 = clip_tokenizer(), t5_tokenizer()
        vae = _autoencoder(quant_conv=False)
        vae.register_to_config(scaling_factor=0.5, shift_factor=0.1)
        shift = {"shift": 3.0, "use_dynamic_shifting": True} if distilled else {"shift": 1.0}
        pipeline = FluxPipeline(
            transformer=_flux_transformer(distilled),
            vae=vae,
            scheduler=FlowMatchEulerDiscreteScheduler(**shift),
            text_encoder=CLIPTextModel(_clip_config(tokenizer)),
            tokenizer=tokenizer,
            text_encoder_2=_t5_encoder(tokenizer_2),
            tokenizer_2=tokenizer_2,  # pyright: ignore[reportArgumentType]
        )
        return _finish(pipeline)


def tiny_sd(seed: int = 0, prediction_type: Prediction = "epsilon") -> StableDiffusionPipeline:
    """Stable Diffusion 1.5 (ε) or 2.1 (v): one CLIP encoder, a UNet, DDIM on scaled-linear betas."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = clip_tokenizer()
        pipeline = StableDiffusionPipeline(
            unet=_unet(),
            vae=_autoencoder(quant_conv=True),
            text_encoder=CLIPTextModel(_clip_config(tokenizer)),
            tokenizer=tokenizer,
            scheduler=_ddim(prediction_type),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        return _finish(pipeline)


def tiny_sdxl(seed: int = 0, prediction_type: Prediction = "epsilon", zeros: bool = True) -> StableDiffusionXLPipeline:
    """SDXL: two CLIP encoders, a UNet that is told sizes, Euler on scaled-linear betas; the empty text may be zeros."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = clip_tokenizer()
        scheduler = EulerDiscreteScheduler.from_config(
            _ddim(prediction_type).config, timestep_spacing="leading", interpolation_type="linear"
        )
        pipeline = StableDiffusionXLPipeline(
            unet=_unet_xl(),
            vae=_autoencoder(quant_conv=True),
            text_encoder=CLIPTextModel(_clip_config(tokenizer)),
            tokenizer=tokenizer,
            text_encoder_2=CLIPTextModelWithProjection(_clip_config(tokenizer)),
            tokenizer_2=clip_tokenizer(),
            scheduler=scheduler,
            force_zeros_for_empty_prompt=zeros,
        )
        return _finish(pipeline)


def tiny_wan(seed: int = 0) -> WanPipeline:
    """Wan 2.1: UMT5, a video transformer, a causal VAE that shrinks sides and frames fourfold, rectified flow."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = t5_tokenizer()
        pipeline = WanPipeline(
            tokenizer=tokenizer,  # pyright: ignore[reportArgumentType]
            text_encoder=UMT5EncoderModel(_umt5_config(tokenizer)),
            transformer=_wan_transformer(),
            vae=_wan_autoencoder(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        )
        return _finish(pipeline)


def tiny_text_to_video_sd(seed: int = 0) -> TextToVideoSDPipeline:
    """ModelScope: one CLIP encoder, a UNet over space and time, a VAE of images, DDIM on scaled-linear betas."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = clip_tokenizer()
        pipeline = TextToVideoSDPipeline(
            unet=_unet_3d(),
            vae=_autoencoder(quant_conv=True),
            text_encoder=CLIPTextModel(_clip_config(tokenizer)),
            tokenizer=tokenizer,
            scheduler=_ddim("epsilon"),
        )
        return _finish(pipeline)


def clip_tokenizer() -> CLIPTokenizer:
    """Byte-level BPE with CLIP's specials, trained until every word of `CORPUS` is one token."""
    letters = sorted(ByteLevel.alphabet())
    merges = _byte_pairs(WORDS)
    pieces = [*letters, *(letter + WORD_END for letter in letters), *(left + right for left, right in merges)]
    vocab = {piece: i for i, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_TOKENS)


def t5_tokenizer() -> T5Tokenizer:
    """Unigram pieces with T5's specials: the words of `CORPUS`, and single letters for any other."""
    specials = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    words = [("▁" + word, -2.0) for word in WORDS]
    letters = [(letter, -8.0) for letter in "▁" + string.ascii_lowercase]
    vocab = list(dict([*specials, *letters, *words]).items())
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=MAX_TOKENS)


def _byte_pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    """The merges of byte-pair encoding; ties are broken by spelling, where `tokenizers`' own trainer draws lots."""
    splits = [[*word[:-1], word[-1] + WORD_END] for word in words]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for split in splits for pair in pairwise(split)):
        merges.append(max(pairs, key=lambda pair: (pairs[pair], pair)))
        splits = [_merge(split, merges[-1]) for split in splits]
    return merges


def _merge(split: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for piece in split:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


def _clip_config(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=64,
        num_attention_heads=4,
        num_hidden_layers=2,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=TEXT_WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _t5_encoder(tokenizer: T5Tokenizer) -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=2 * TEXT_WIDTH,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return T5EncoderModel(config)


def _umt5_config(tokenizer: T5Tokenizer) -> UMT5Config:
    return UMT5Config(
        vocab_size=len(tokenizer),
        d_model=TEXT_WIDTH,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=4,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def _wan_transformer() -> WanTransformer3DModel:
    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        text_dim=TEXT_WIDTH,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
    )


def _wan_autoencoder() -> AutoencoderKLWan:
    return AutoencoderKLWan(
        base_dim=8,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        latents_mean=[0.2, -0.1, 0.0, 0.1],
        latents_std=[0.8, 1.2, 1.0, 0.9],
        scale_factor_temporal=4,
        scale_factor_spatial=4,
    )


def _unet_3d() -> UNet3DConditionModel:
    return UNet3DConditionModel(
        sample_size=VIDEO_LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock3D", "CrossAttnDownBlock3D"),
        up_block_types=("CrossAttnUpBlock3D", "UpBlock3D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=4,
    )


def _sd3_transformer() -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        sample_size=LATENT_SIZE,
        patch_size=2,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=2 * TEXT_WIDTH,
        caption_projection_dim=32,
        pooled_projection_dim=2 * TEXT_WIDTH,
        pos_embed_max_size=LATENT_SIZE,
    )


def _flux_transformer(distilled: bool) -> FluxTransformer2DModel:
    return FluxTransformer2DModel(
        in_channels=4 * LATENT_CHANNELS,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=2 * TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        guidance_embeds=distilled,
        axes_dims_rope=(4, 6, 6),
    )


def _unet(text_width: int = TEXT_WIDTH, **more: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=text_width,
        attention_head_dim=4,
        norm_num_groups=8,
        **more,
    )


def _unet_xl() -> UNet2DConditionModel:
    return _unet(
        2 * TEXT_WIDTH,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=TEXT_WIDTH + 6 * 8,
    )


def _autoencoder(quant_conv: bool) -> AutoencoderKL:
    return AutoencoderKL(
        latent_channels=LATENT_CHANNELS,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=IMAGE_SIZE,
        scaling_factor=1.0,
        shift_factor=None if quant_conv else 0.0,
        use_quant_conv=quant_conv,
        use_post_quant_conv=quant_conv,
    )


def _ddim(prediction_type: Prediction) -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )


def _finish(pipeline: Pipeline) -> Pipeline:
    """Livens the weights and leaves dropout off: modules built from a config start in train mode."""
    for module in pipeline.components.values():
        if isinstance(module, nn.Module):
            _liven(module)
            module.eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _liven(module: nn.Module) -> None:
    """Draws every weight from N(0, 1/fan_in), so that prompts and guidance change the picture."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.Conv3d):
            nn.init.normal_(layer.weight, std=1 / math.sqrt(layer.weight[0].numel()))
        elif isinstance(layer, nn.Embedding):
            nn.init.normal_(layer.weight)
