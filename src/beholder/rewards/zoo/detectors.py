"""Objects in an image, by transformers' own detectors: instance segmentation (Mask2Former), or by name (zero-shot)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

from beholder.errors import InputError
from beholder.rewards.zoo.files import find_file
from beholder.rewards.zoo.geneval_prompts import OBJECTS
from beholder.rewards.zoo.geneval_rules import THRESHOLD, Detection

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHORT, LONG, MULTIPLE = 800, 1333, 32
"""Sides of what Mask2Former sees, and what they are padded to a multiple of."""
MOST = 100
"""(query, class) pairs that are considered, the surest first."""


class Detector(Protocol):
    """One image at a time."""

    def detect(self, image: np.ndarray, names: Sequence[str]) -> list[Detection]:
        """Objects of these classes in an RGB image uint8 ``[H, W, 3]``, those above `THRESHOLD` at least."""
        ...


class Mask2Former:
    """GenEval's own detector: Mask2Former (2112.01527) trained on COCO instances."""

    def __init__(self, model: Any, names: Mapping[int, str]) -> None:
        self.model, self.names = model.eval().requires_grad_(False), names

    def detect(self, image: np.ndarray, names: Sequence[str]) -> list[Detection]:
        height, width = image.shape[:2]
        pixels, (seen_height, seen_width) = mask2former_pixels(image)
        with torch.inference_mode():
            said = self.model(pixel_values=pixels.to(self.model.device))
        scores_QC = said.class_queries_logits[0].float().softmax(-1)[:, :-1]  # the last class is "no object"
        masks = interpolate(said.masks_queries_logits.float(), pixels.shape[-2:], mode="bilinear", align_corners=False)
        masks = masks[..., :seen_height, :seen_width]
        best = scores_QC.flatten().topk(min(MOST, scores_QC.numel()))
        found: list[Detection] = []
        for score, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            query, label = divmod(place, scores_QC.shape[1])
            if score > THRESHOLD and self.names[label] in names:  # the mask's own score only lowers it
                logits = interpolate(masks[:, query, None], (height, width), mode="bilinear", align_corners=False)[0, 0]
                found += _instance(self.names[label], score, logits)
        return found


def _instance(name: str, score: float, logits_HW: Tensor) -> list[Detection]:
    """The object behind a mask; its score is that of its class times the mean probability within the mask."""
    mask = logits_HW > 0
    if not mask.any():
        return []
    sure = (logits_HW.sigmoid() * mask).sum().item() / (mask.sum().item() + 1e-6)
    rows, columns = (mask.any(1).nonzero().flatten().tolist(), mask.any(0).nonzero().flatten().tolist())
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    return [Detection(name, box, score * sure, mask.cpu().numpy())]


def mask2former_pixels(image: np.ndarray) -> tuple[Tensor, tuple[int, int]]:
    """``[1, 3, H, W]`` normalised and padded, and the height and width without the padding."""
    height, width = image.shape[:2]
    scale = min(SHORT / min(height, width), LONG / max(height, width))
    size = round(height * scale), round(width * scale)
    scaled = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    values = torch.from_numpy(np.array(scaled)).permute(2, 0, 1).float() / 255
    values = (values - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    return pad(values, (0, -size[1] % MULTIPLE, 0, -size[0] % MULTIPLE))[None], size


class ZeroShot:
    """OWL-ViT, OWLv2 or Grounding DINO: it looks for what it is told, and gives boxes without masks."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model.eval().requires_grad_(False), processor
        self.one_text = model.config.model_type in ("grounding-dino", "mm-grounding-dino")

    def detect(self, image: np.ndarray, names: Sequence[str]) -> list[Detection]:
        found: list[Detection] = []
        for name in names:  # one at a time: a phrase of several finds its words in one another
            text: Any = f"a {name}." if self.one_text else [[f"a photo of a {name}"]]
            given = self.processor(text=text, images=Image.fromarray(image), return_tensors="pt").to(self.model.device)
            with torch.inference_mode():
                said = self.model(**given)
            options = {"threshold": THRESHOLD, "target_sizes": [image.shape[:2]]}
            options |= {"input_ids": given["input_ids"], "text_threshold": 0.0} if self.one_text else {}
            kept = self.processor.post_process_grounded_object_detection(said, **options)[0]
            for box, score in zip(kept["boxes"].tolist(), kept["scores"].tolist(), strict=True):
                found.append(Detection(name, tuple(box), score))
        return found


def check_detector(checkpoint: str) -> Path:
    """The configuration; InputError where there is none."""
    return find_file(checkpoint, "config.json")


def load_detector(checkpoint: str, device: torch.device) -> Detector:
    """By the family in its configuration; InputError for another one, or weights that do not fit."""
    from transformers import AutoConfig, AutoModelForZeroShotObjectDetection, AutoProcessor
    from transformers.models.mask2former import Mask2FormerForUniversalSegmentation

    folder = check_detector(checkpoint).parent
    family = AutoConfig.from_pretrained(folder).model_type
    source = checkpoint if not Path(checkpoint).expanduser().exists() else str(folder)
    if family == "mask2former":
        model = _read(Mask2FormerForUniversalSegmentation, source).to(device)
        return Mask2Former(model, class_names(model.config.id2label))
    if family in ("owlvit", "owlv2", "grounding-dino", "mm-grounding-dino"):
        processor = AutoProcessor.from_pretrained(source)
        return ZeroShot(_read(AutoModelForZeroShotObjectDetection, source).to(device), processor)
    raise InputError(
        f"rewards: {checkpoint!r} is a {family}; name a Mask2Former (instances of COCO), an OWL-ViT, an OWLv2 or a "
        "Grounding DINO"
    )


def class_names(labels: Mapping[int, str]) -> dict[int, str]:
    """GenEval's names of a detector's classes: by place for the 80 of COCO, which every release spells differently."""
    if len(labels) == len(OBJECTS):
        return dict(enumerate(OBJECTS))
    return {int(i): name.lower() for i, name in labels.items()}


def _read(kind: Any, source: str) -> Any:
    try:
        model, info = kind.from_pretrained(source, output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"rewards: {source!r} cannot be loaded ({str(error).splitlines()[0]})") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise InputError(f"rewards: {source!r} does not fit: {len(missing)} tensors missing (first: {missing[0]!r})")
    return model
