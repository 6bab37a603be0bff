"""A checkpoint for the evaluation benchmark: an open_clip model whose predictions depend on the picture.

Initial weights alone say the same class of every picture: the mean of all features drowns what is different in them,
and numbers that never change prove nothing. So the blocks' weights are made larger, and the mean feature of a few
pictures (of a few texts) is taken out of the tower's last projection. Nothing is learned; what a forward costs, and
what a file holds, is as in any checkpoint of that model.
"""

from __future__ import annotations

import io
from pathlib import Path

import eval_sets
import eval_words
import numpy as np

VERSION = 1
GAIN = 2.0
PICTURES = 48


def weights(model: str, folder: Path) -> Path:
    """The file of a model's weights, in the form that open_clip saves; made if it is not there."""
    path = folder / f"eval-weights-{VERSION}-{model}.pt"
    if path.exists():
        return path
    import open_clip
    import torch
    from PIL import Image

    from curate.pretrain.models.architecture import build, resolve_model

    network = build(resolve_model(model), seed=0).eval()
    transform = open_clip.image_transform(224, False)
    rng = np.random.default_rng(VERSION)
    files = [eval_sets.picture("jpeg", (1 << 20, i)) for i in range(PICTURES)]
    pictures = torch.stack([transform(Image.open(io.BytesIO(body))) for body in files])  # type: ignore[operator, misc]
    texts = open_clip.get_tokenizer(model)(eval_words.captions(rng, PICTURES))
    with torch.no_grad():
        for name, values in network.named_parameters():
            if "resblocks" in name and values.ndim > 1:
                values.mul_(GAIN)
            elif "conv1" in name or "token_embedding" in name:
                values.mul_(2 * GAIN)
        for projection, features in (
            (network.visual.proj, network.encode_image(pictures)),  # type: ignore[operator, union-attr]
            (network.text_projection, network.encode_text(texts)),  # type: ignore[operator]
        ):
            mean = torch.nn.functional.normalize(features.mean(0), dim=0)
            projection.sub_(projection @ torch.outer(mean, mean))  # type: ignore[operator, union-attr]
    torch.save(network.state_dict(), path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)
    return path
