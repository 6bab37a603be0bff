"""Checkpoints of timm's models, read as timm reads them, its conversions of original checkpoints included."""

from __future__ import annotations

import sys
from typing import Any

from ...errors import ConfigError
from ...shards import storage


def fill_but_classifier(model: Any, weights: str, name: str) -> None:
    """Load all weights but the classifier's into a model of timm's without one; `name` is for messages.

    Raises:
        ConfigError: the file does not hold the model's weights.
    """
    from timm.models import load_state_dict

    heads = model.pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{name}." for name in ([heads] if isinstance(heads, str) else heads)) or ("\0",)
    wanted = {key: value.shape for key, value in model.state_dict().items()}
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    try:
        state = load_state_dict(storage.local(weights))
        body = {key: value for key, value in state.items() if not key.startswith(heads)}
        if convert is not None and {key: value.shape for key, value in body.items()} != wanted:
            body = {key: value for key, value in convert(state, model).items() if not key.startswith(heads)}
        model.load_state_dict(body)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"{weights} does not hold the weights of {name}: {reason}") from error
