"""How far the shapes world's verifier can be trusted, per kind of prompt: ``python benchmarks/verifier.py``."""

import numpy as np
from scipy.ndimage import uniform_filter

from beholder.worlds.shapes import prompts as P
from beholder.worlds.shapes.scenes import render
from beholder.worlds.shapes.verifier import verify

SCENES, NOISE = 1000, 0.06


def main() -> None:
    rng = np.random.default_rng(11)
    trained = {prompt.text for prompt in P.split("train")}
    for kind in P.KINDS:
        pool = [prompt for prompt in P.all_prompts() if prompt.kind == kind]
        asked = [pool[i] for i in rng.integers(len(pool), size=SCENES)]
        images = np.stack([render(P.scene_for(prompt, rng), rng) for prompt in asked])
        blurred = uniform_filter(images, (0, 0, 3, 3), mode="nearest")
        noisy = np.clip(images + NOISE * rng.standard_normal(images.shape, np.float32), 0, 1)
        known = [i for i, prompt in enumerate(asked) if prompt.text in trained]
        wrong = verify(images[known], [P.misdescribe(asked[i], rng) for i in known]).strict
        shares = (verify(changed, asked).strict.mean() for changed in (images, blurred, noisy))
        right = "  ".join(f"{name} {share:.1%}" for name, share in zip(("as is", "blur", "noise"), shares, strict=True))
        print(f"{kind:12s} {right}  accepted under a wrong caption {int(wrong.sum())} of {len(known)}", flush=True)


if __name__ == "__main__":
    main()
