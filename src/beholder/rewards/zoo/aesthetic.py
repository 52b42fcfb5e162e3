"""LAION's two aesthetic predictors: a linear map of the image's CLIP embedding to a rating, 1 … 10; no prompt."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection

from beholder.errors import InputError
from beholder.rewards.zoo.clip import find_model, image_embedding, image_size, read_clip, unit
from beholder.rewards.zoo.files import fetch, find_file, read_weights
from beholder.rewards.zoo.head import linear, linear_head
from beholder.rewards.zoo.preprocess import Preprocess
from beholder.rewards.zoo.scorer import Network, StagedScorer

OTHER_CLIP = "openai/clip-vit-large-patch14"
"""For a head of another name."""
RAW = "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class Published:
    """Where the authors keep a head, its sha256, and the names of heads with the CLIP that each was fitted on."""

    home: str
    url: str
    sha256: str
    clips: Mapping[str, str]


V1 = Published(
    "github.com/LAION-AI/aesthetic-predictor",
    f"{RAW}/LAION-AI/aesthetic-predictor/6d122adad522ab246644d9dc1c6d7a3810ee255f/sa_0_4_vit_l_14_linear.pth",
    "2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba",
    {
        "sa_0_4_vit_l_14_linear.pth": "openai/clip-vit-large-patch14",
        "sa_0_4_vit_b_32_linear.pth": "openai/clip-vit-base-patch32",
        "sa_0_4_vit_b_16_linear.pth": "openai/clip-vit-base-patch16",
    },
)
V2 = Published(
    "github.com/christophschuhmann/improved-aesthetic-predictor",
    f"{RAW}/christophschuhmann/improved-aesthetic-predictor/6934dd81792f086e613a121dbce43082cb8be85e/"
    "sac%2Blogos%2Bava1-l14-linearMSE.pth",
    "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
    {
        "sac+logos+ava1-l14-linearMSE.pth": "openai/clip-vit-large-patch14",
        "ava+logos-l14-linearMSE.pth": "openai/clip-vit-large-patch14",
        "aesthetic-model.pth": "openai/clip-vit-large-patch14",
    },
)


class Aesthetic(nn.Module):
    """head(embedding / ‖embedding‖)."""

    def __init__(self, clip: CLIPVisionModelWithProjection, head: nn.Module) -> None:
        super().__init__()
        self.clip, self.head = clip, head

    def forward(self, pixels: Tensor) -> Tensor:
        """Values [N] of pixels [N, 3, S, S]."""
        return self.head(unit(image_embedding(self.clip, pixels))).squeeze(-1)


def load_aesthetic(checkpoint: str) -> StagedScorer:
    """LAION aesthetic v2 ("improved aesthetic predictor"), about 4.5 … 7.

    ``checkpoint`` is the head's file, or a folder or hub repository that holds it; the CLIP ViT-L/14 is taken from the
    same folder when there is one, from the hub otherwise.
    """
    return _scorer(checkpoint, V2, lambda state, source: linear_head(state, "layers.", source))


def load_aesthetic_v1(checkpoint: str) -> StagedScorer:
    """LAION aesthetic v1: one linear layer, for CLIP ViT-L/14, B/32 or B/16 as the head's file name says."""
    return _scorer(checkpoint, V1, _one_layer)


def _one_layer(state: Mapping[str, Tensor], source: Path) -> nn.Module:
    if set(state) != {"weight", "bias"}:
        raise InputError(f"rewards: {str(source)!r} is no linear layer: it has {', '.join(sorted(state))}")
    return linear(state["weight"], state["bias"])


def _scorer(
    checkpoint: str, published: Published, read_head: Callable[[Mapping[str, Tensor], Path], nn.Module]
) -> StagedScorer:
    if checkpoint == published.home:
        head_file = fetch(published.url, published.sha256)
    else:
        head_file = find_file(checkpoint, *published.clips)
    clip_name = published.clips.get(head_file.name, OTHER_CLIP)
    beside = (head_file.parent / "config.json").is_file()
    config, weights = find_model(str(head_file.parent) if beside else clip_name)

    def load() -> Network:
        clip = read_clip(CLIPVisionModelWithProjection, config, weights)
        head = read_head(read_weights(head_file), head_file)
        wide = next(head.parameters()).shape[1]
        if wide != clip.config.projection_dim:
            raise InputError(
                f"rewards: the head {str(head_file)!r} takes {wide} numbers, the CLIP in {str(config.parent)!r} gives "
                f"{clip.config.projection_dim}"
            )
        model = Aesthetic(clip, head)

        def values(pixels: Tensor, prompts: Sequence[str]) -> Tensor:
            return model(pixels)

        return Network(model, Preprocess(image_size(clip.config)), values)

    return StagedScorer(load)
