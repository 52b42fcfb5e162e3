"""VideoScore: Mantis' regression head on Idefics2, from its published names, and its numbers derived once more."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image
from published import Make, State, line, noise, norm
from safetensors.torch import save_file
from torch import Tensor

from beholder.errors import InputError
from beholder.rewards import load_reward, score
from beholder.rewards.zoo.parts import PartedScorer
from beholder.rewards.zoo.videoscore import NAMES, strided
from beholder.rewards.zoo.wordings import wording
from tiny_vlms import tokenizer

WIDTH, LATENTS = 32, 4
SPECIALS = ("<image>", "<fake_token_around_image>", "<end_of_utterance>")
PROMPTS = ["a red circle", "", "two {crosses}, a longer line"]
HALF = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def config(words: int) -> dict[str, Any]:
    perceiver = {
        **{"resampler_n_latents": LATENTS, "resampler_depth": 1, "resampler_n_heads": 2, "resampler_head_dim": 8},
        **{"num_key_value_heads": 1, "hidden_size": WIDTH, "rms_norm_eps": 1e-5, "model_type": "idefics2"},
    }
    return {
        **{"architectures": ["Idefics2ForSequenceClassification"], "model_type": "idefics2", "image_token_id": words},
        "text_config": {
            **HALF,
            **{"model_type": "mistral", "num_key_value_heads": 2, "vocab_size": words + 8, "pad_token_id": 0},
            **{"max_position_embeddings": 32768, "sliding_window": None, "rms_norm_eps": 1e-5, "rope_theta": 10000.0},
        },
        "vision_config": {
            **HALF,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
            "model_type": "idefics2",
        },
        "perceiver_config": perceiver,
        **{"id2label": {str(i): f"LABEL_{i}" for i in range(5)}, "problem_type": "regression"},
        "tie_word_embeddings": False,
    }


def published_state(make: Make, words: int) -> State:
    """``model.`` and ``score.``, as Mantis' Idefics2ForSequenceClassification saves them."""
    tower, join, text = "model.vision_model", "model.connector", "model.text_model"
    state = {
        **{f"{tower}.embeddings.patch_embedding.weight": make(WIDTH, 3, 14, 14)},
        **{f"{tower}.embeddings.patch_embedding.bias": make(WIDTH)},
        **{f"{tower}.embeddings.position_embedding.weight": make(4, WIDTH)},
        **norm(make, f"{tower}.post_layernorm", WIDTH),
        f"{join}.modality_projection.gate_proj.weight": make(64, WIDTH),
        f"{join}.modality_projection.up_proj.weight": make(64, WIDTH),
        f"{join}.modality_projection.down_proj.weight": make(WIDTH, 64),
        f"{join}.perceiver_resampler.latents": make(LATENTS, WIDTH),
        f"{join}.perceiver_resampler.norm.weight": 1 + make(WIDTH),
        f"{text}.embed_tokens.weight": 4 * make(words, WIDTH),
        f"{text}.norm.weight": 1 + make(WIDTH),
        **line(make, "score", 5, WIDTH),
    }
    for i in range(2):
        name = f"{tower}.encoder.layers.{i}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            state |= line(make, f"{name}.self_attn.{part}", WIDTH, WIDTH)
        state |= norm(make, f"{name}.layer_norm1", WIDTH) | norm(make, f"{name}.layer_norm2", WIDTH)
        state |= line(make, f"{name}.mlp.fc1", 64, WIDTH) | line(make, f"{name}.mlp.fc2", WIDTH, 64)
        name = f"{text}.layers.{i}"
        state |= _gated(make, name, 64)
        state |= _attention(make, name, WIDTH, WIDTH // 2)
        state[f"{name}.input_layernorm.weight"] = 1 + make(WIDTH)
    name = f"{join}.perceiver_resampler.layers.0"
    state |= _gated(make, name, 4 * WIDTH) | _attention(make, name, 16, 8)
    state |= {
        f"{name}.input_latents_norm.weight": 1 + make(WIDTH),
        f"{name}.input_context_norm.weight": 1 + make(WIDTH),
    }
    return state


def _gated(make: Make, name: str, inner: int) -> State:
    return {
        f"{name}.mlp.gate_proj.weight": make(inner, WIDTH),
        f"{name}.mlp.up_proj.weight": make(inner, WIDTH),
        f"{name}.mlp.down_proj.weight": make(WIDTH, inner),
        f"{name}.post_attention_layernorm.weight": 1 + make(WIDTH),
    }


def _attention(make: Make, name: str, queries: int, keys: int) -> State:
    return {
        f"{name}.self_attn.q_proj.weight": make(queries, WIDTH),
        f"{name}.self_attn.k_proj.weight": make(keys, WIDTH),
        f"{name}.self_attn.v_proj.weight": make(keys, WIDTH),
        f"{name}.self_attn.o_proj.weight": make(WIDTH, queries),
    }


def save(folder: Path, seed: int = 0) -> State:
    """Safetensors in two shards, the processor's files, and the configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    words = tokenizer(SPECIALS)
    said = config(len(words))
    said["image_token_id"] = words.convert_tokens_to_ids("<image>")
    (folder / "config.json").write_text(json.dumps(said))
    words.save_pretrained(folder)
    pictures = {
        **{"image_processor_type": "Idefics2ImageProcessor", "do_image_splitting": False, "do_convert_rgb": True},
        **{"size": {"shortest_edge": 28, "longest_edge": 56}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
        **{"processor_class": "Idefics2Processor", "resample": 2},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    (folder / "processor_config.json").write_text(
        json.dumps({"processor_class": "Idefics2Processor", "image_seq_len": LATENTS})
    )
    state = published_state(noise(seed, 0.25), len(words) + 8)
    names = sorted(state)
    where = {}
    for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, folder / file)
        where |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return state


def by_hand(state: State, folder: Path, video: Tensor, prompt: str) -> np.ndarray:
    """Idefics2 with its language model's head, whose last state is scored; pixels by Pillow and numpy."""
    words = tokenizer(SPECIALS)
    said = json.loads((folder / "config.json").read_text())
    model: Any = tf.Idefics2ForConditionalGeneration(tf.Idefics2Config(**said)).eval()
    kept = {n: v for n, v in state.items() if n.startswith("model.")}
    assert set(model.load_state_dict(kept, strict=False).missing_keys) <= {"lm_head.weight"}
    one = "<fake_token_around_image>" + "<image>" * LATENTS + "<fake_token_around_image>"
    text = wording("videoscore").replace("{text_prompt}", prompt) + (one + " ") * len(video)
    pixels = []
    for frame in video:
        picture = Image.fromarray((frame.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
        width, height = picture.size
        if width > 56:
            width, height = 56, max(28, int(56 / (picture.width / picture.height)))
        pixels.append((np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR)) / 255 - 0.5) / 0.5)
    ids = torch.tensor(words(text)["input_ids"])[None]
    given = torch.from_numpy(np.stack(pixels)).float().permute(0, 3, 1, 2)[None]
    with torch.no_grad():
        out = model(input_ids=ids, pixel_values=given, output_hidden_states=True)
    state_at_end = out.hidden_states[-1][0, -1].double().numpy()
    return state["score.weight"].double().numpy() @ state_at_end + state["score.bias"].double().numpy()


def videos(count: int = 3, frames: int = 3, height: int = 40, width: int = 64) -> Tensor:
    return torch.rand(count, frames, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, State]:
    folder = tmp_path_factory.mktemp("videoscore")
    return folder, save(folder)


def parted(folder: Path) -> PartedScorer:
    scorer = load_reward(f"videoscore@{folder}").score
    assert isinstance(scorer, PartedScorer)
    return scorer


def test_values_are_the_head_on_the_last_state(saved: tuple[Path, State]) -> None:
    folder, state = saved
    scorer = parted(folder)
    table = scorer.table(videos(), PROMPTS)
    for i, prompt in enumerate(PROMPTS):
        assert table[i].tolist() == pytest.approx(
            by_hand(state, folder, videos()[i], prompt).tolist(), rel=1e-3, abs=1e-4
        )
    torch.testing.assert_close(scorer(videos(), PROMPTS), table.mean(1))
    assert list(scorer.named(table)[0]) == list(NAMES) and len(set(table[:, 0].tolist())) == 3


def test_values_do_not_depend_on_company_and_failures_are_alone(saved: tuple[Path, State]) -> None:
    reward = load_reward(f"videoscore@{saved[0]}")
    whole = reward.score(videos(), PROMPTS)
    single = torch.cat([reward.score(videos()[i : i + 1], PROMPTS[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(single, whole, atol=1e-5, rtol=1e-5)
    torn = videos()
    torn[1, 2, 0, 0, 0] = math.nan
    table = score(torn, [*PROMPTS[:2], "an <image>"], [reward])
    assert table.failed_N.tolist() == [False, True, True]
    torch.testing.assert_close(table.values_NM[0, 0], whole[0])
    assert reward.score(videos(0), []).shape == (0,)
    with pytest.raises(InputError, match=r"expected 0\.\.1"):
        reward.score(videos() * 2 - 1, PROMPTS)


@pytest.mark.parametrize(("total", "chosen"), [(3, [0, 1, 2]), (16, list(range(16))), (17, [*range(16)]), (40, None)])
def test_frames_are_those_of_the_authors_stride(total: int, chosen: list[int] | None) -> None:
    expected = chosen or np.arange(0, total, total / 16).astype(int).tolist()
    assert strided(16)([float(i) for i in range(total)]) == expected


def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    state = save(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    for broken, reason in (
        ({n: v for n, v in state.items() if n != "score.bias"}, "1 tensors missing"),
        ({**state, "lm_head.weight": torch.zeros(1)}, "1 unexpected"),
        ({n: v for n, v in state.items() if n != "model.connector.perceiver_resampler.latents"}, "1 tensors missing"),
        ({**state, "score.weight": torch.zeros(1, WIDTH), "score.bias": torch.zeros(1)}, "gives 1 numbers"),
    ):
        save_file(broken, tmp_path / "model.safetensors")
        with pytest.raises(InputError, match=reason):
            load_reward(f"videoscore@{tmp_path}").score(videos(1), ["a"])
