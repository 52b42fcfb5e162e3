"""Small backbones on disk."""

from collections.abc import Callable
from functools import cache

import pytest


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The name of a kind's small backbone, made when first asked for; not to be written to."""

    @cache
    def named(kind: str) -> str:
        from test_richhf import save_t5, save_vit
        from test_siglip import save_siglip

        from rewards.zoo.published import save_clip, save_image_reward
        from tiny_vlms import save_vlm

        folder = tmp_path_factory.mktemp(kind)
        match kind:
            case "small":
                return "small"
            case "clip":
                save_clip(folder)
            case "siglip":
                save_siglip(folder)
            case "blip":
                save_image_reward(folder)
            case "vlm":
                save_vlm("qwen2_vl", folder)
            case "richhf":
                return f"richhf@{save_vit(folder / 'vit')}+{save_t5(folder / 't5')}"
            case _:
                raise ValueError(kind)
        return f"{kind}@{folder}"

    return named
