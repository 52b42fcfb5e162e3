"""The original networks written down once more, from their published tensors: no transformers, no map of names."""

from torch import Tensor, arange, cat, full, sigmoid
from torch.nn.functional import conv2d, embedding, gelu, layer_norm, linear

State = dict[str, Tensor]


def heads(x_NLC: Tensor, count: int) -> Tensor:
    return x_NLC.unflatten(-1, (count, -1)).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, count: int, mask: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √d + mask) v, the heads joined again."""
    q, k, v = (heads(x, count) for x in (q, k, v))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    return ((scores if mask is None else scores + mask).softmax(-1) @ v).transpose(1, 2).flatten(2)


def normed(state: State, name: str, x: Tensor, eps: float) -> Tensor:
    weight = state[f"{name}.weight"]
    return layer_norm(x, weight.shape, weight, state[f"{name}.bias"], eps)


def line(state: State, name: str, x: Tensor) -> Tensor:
    return linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


# --------------------------------------------------------------------------------------------------------- open_clip


def clip_cosines(state: State, pixels: Tensor, ids: Tensor, quick: bool) -> Tensor:
    """cos of each image with each text [N, M]; ids padded with anything below the closing token, the highest."""
    image, text = _image(state, pixels, quick), _text(state, ids, quick)
    return (image / image.norm(dim=-1, keepdim=True)) @ (text / text.norm(dim=-1, keepdim=True)).T


def _image(state: State, pixels: Tensor, quick: bool) -> Tensor:
    weight = state["visual.conv1.weight"]
    patches = conv2d(pixels, weight, stride=weight.shape[-1]).flatten(2).transpose(1, 2)
    first = state["visual.class_embedding"].expand(len(pixels), 1, -1)
    x = cat([first, patches], 1) + state["visual.positional_embedding"]
    x = _blocks(state, "visual.transformer", normed(state, "visual.ln_pre", x, 1e-5), None, quick)
    return normed(state, "visual.ln_post", x[:, 0], 1e-5) @ state["visual.proj"]


def _text(state: State, ids: Tensor, quick: bool) -> Tensor:
    length = ids.shape[1]
    x = embedding(ids, state["token_embedding.weight"]) + state["positional_embedding"][:length]
    later = full((length, length), float("-inf")).triu(1)
    x = normed(state, "ln_final", _blocks(state, "transformer", x, later, quick), 1e-5)
    return x[arange(len(ids)), ids.argmax(-1)] @ state["text_projection"]


def _blocks(state: State, prefix: str, x: Tensor, mask: Tensor | None, quick: bool) -> Tensor:
    count = len(
        {name.split(".resblocks.")[1].split(".")[0] for name in state if name.startswith(f"{prefix}.resblocks.")}
    )
    for i in range(count):
        name = f"{prefix}.resblocks.{i}"
        inner = normed(state, f"{name}.ln_1", x, 1e-5)
        q, k, v = linear(inner, state[f"{name}.attn.in_proj_weight"], state[f"{name}.attn.in_proj_bias"]).chunk(3, -1)
        x = x + line(state, f"{name}.attn.out_proj", attend(q, k, v, x.shape[-1] // 64, mask))
        inner = line(state, f"{name}.mlp.c_fc", normed(state, f"{name}.ln_2", x, 1e-5))
        x = x + line(state, f"{name}.mlp.c_proj", inner * sigmoid(1.702 * inner) if quick else gelu(inner))
    return x


# ------------------------------------------------------------------------------------------------------- ImageReward


def image_reward(state: State, settings: dict, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """(mlp(first text state) − 0.1672) / 1.0333 of each (image, text) [N]."""
    seen = _vit(state, pixels)
    eps, count = settings["layer_norm_eps"], settings["num_attention_heads"]
    text = "blip.text_encoder"
    x = embedding(ids, state[f"{text}.embeddings.word_embeddings.weight"])
    x = x + state[f"{text}.embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = normed(state, f"{text}.embeddings.LayerNorm", x, eps)
    padding = (1 - mask[:, None, None].float()) * -10000.0
    for i in range(settings["num_hidden_layers"]):
        name = f"{text}.encoder.layer.{i}"
        for kind, keys, hidden in (("attention", x, padding), ("crossattention", seen, None)):
            keys = x if kind == "attention" else keys
            part = f"{name}.{kind}"
            q, k, v = (line(state, f"{part}.self.{n}", y) for n, y in (("query", x), ("key", keys), ("value", keys)))
            x = normed(
                state,
                f"{part}.output.LayerNorm",
                x + line(state, f"{part}.output.dense", attend(q, k, v, count, hidden)),
                eps,
            )
        inner = gelu(line(state, f"{name}.intermediate.dense", x))
        x = normed(state, f"{name}.output.LayerNorm", x + line(state, f"{name}.output.dense", inner), eps)
    return (head(state, "mlp.layers", x[:, 0]) - 0.16717362830052426) / 1.0333394966054072


def _vit(state: State, pixels: Tensor) -> Tensor:
    name = "blip.visual_encoder"
    weight = state[f"{name}.patch_embed.proj.weight"]
    bias = state[f"{name}.patch_embed.proj.bias"]
    patches = conv2d(pixels, weight, bias, stride=weight.shape[-1]).flatten(2).transpose(1, 2)
    x = cat([state[f"{name}.cls_token"].expand(len(pixels), 1, -1), patches], 1) + state[f"{name}.pos_embed"]
    depth = len({key.split(".")[3] for key in state if key.startswith(f"{name}.blocks.")})
    for i in range(depth):
        block = f"{name}.blocks.{i}"
        q, k, v = line(state, f"{block}.attn.qkv", normed(state, f"{block}.norm1", x, 1e-6)).chunk(3, -1)
        x = x + line(state, f"{block}.attn.proj", attend(q, k, v, x.shape[-1] // 64))
        inner = gelu(line(state, f"{block}.mlp.fc1", normed(state, f"{block}.norm2", x, 1e-6)))
        x = x + line(state, f"{block}.mlp.fc2", inner)
    return normed(state, f"{name}.norm", x, 1e-6)


def head(state: State, name: str, x: Tensor) -> Tensor:
    for place in (0, 2, 4, 6, 7):
        x = line(state, f"{name}.{place}", x)
    return x[:, 0]
