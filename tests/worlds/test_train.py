"""The generator's training command: every stage resumes to the same weights, captions are wrong as often as stated."""

from pathlib import Path

import numpy as np
import pytest
import torch

from beholder.worlds.shapes import train as T
from beholder.worlds.shapes.prompts import parse, split

SMALL = dict(autoencoder_steps=4, autoencoder_batch=4, scenes=24, denoiser_steps=(2, 2), denoiser_batch=8)


def config(output: Path) -> T.TrainConfig:
    return T.TrainConfig(output=output, checkpoint_every=2, threads=1, **SMALL)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "denoiser.pt", weights_only=True)["ema"]


def test_training_interrupted_at_any_checkpoint_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    T.train(config(tmp_path / "whole"))
    save, calls = T.save_atomically, 0

    def interrupted(state: dict, path: Path) -> None:
        nonlocal calls
        save(state, path)
        calls += 1
        if calls in (1, 4):  # in the middle of the autoencoder, and of the denoiser
            raise KeyboardInterrupt

    monkeypatch.setattr(T, "save_atomically", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            T.train(config(tmp_path / "parts"))
    folder = T.train(config(tmp_path / "parts"))
    assert (folder / "model_index.json").exists()
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_captions_are_wrong_and_empty_as_often_as_stated() -> None:
    pool, _ = T.caption_pool()
    true = np.arange(len(pool)).repeat(60)
    shares = T.WRONG_CAPTIONS[0]
    captions = T.draw_captions(true, T.wrong_caption_table(0), shares, 0.1, np.random.default_rng(0))
    assert (captions == -1).mean() == pytest.approx(0.1, abs=0.01)
    for kind, share in shares.items():
        of_kind = np.array([pool[i].kind == kind for i in true]) & (captions != -1)
        assert (captions[of_kind] != true[of_kind]).mean() == pytest.approx(share, abs=0.04)
        assert all(pool[i].kind == kind for i in np.unique(captions[of_kind]))


def test_the_tokenizer_spells_every_word_as_one_token() -> None:
    from beholder.worlds.shapes.architecture import TEXT_TOKENS, build_tokenizer

    tokenizer = build_tokenizer()
    for prompt in (*split("train"), *split("held_out")):
        ids = tokenizer(prompt.text).input_ids
        assert len(ids) == len(prompt.text.split()) + 2 <= TEXT_TOKENS
    assert tokenizer.decode(tokenizer(parse("an orange triangle").text).input_ids, skip_special_tokens=True).strip()
