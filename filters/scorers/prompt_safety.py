"""`prompt_safety`: is an image closer to "unsafe" than to "safe" prompts? (Q16: Schramowski et al., FAccT 2022.)

Two vectors, one per side, and a softmax over the two cosines at the encoder's logit scale. The vectors are ensembles of
your own prompts, or two tuned prompt vectors from a file. Cosines, not raw dot products: tuned vectors have unequal
lengths, and with dot products the longer one wins some images by its length alone. What counts as unsafe is decided by
the prompts and by the encoder's own bias; the probability is a score to be calibrated on your data, not a verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from ...errors import ConfigError, DataError
from ...shards import storage
from ..base import SCORERS, Context, Part, Scorer
from ..directions import unit_blocks
from ..prompts import ensembles, logit_scale


@dataclass(frozen=True)
class TwoSides:
    """The two prompt vectors.

    Attributes:
        vectors: ``(2, d) float64`` unit rows: safe, unsafe.
        scale: factor on the cosines.
    """

    vectors: np.ndarray
    scale: float


@SCORERS.register
class PromptSafety(Scorer):
    """Probability of the unsafe prompts against the safe ones, and ``<name>_flag``: whether it is above one half."""

    type: Literal["prompt_safety"] = "prompt_safety"
    encoder: str = Field(description="Encoder of images and prompts.")
    safe: list[str] = Field(default_factory=list, description="Prompts for what is fine; an ensemble.")
    unsafe: list[str] = Field(default_factory=list, description="Prompts for what is not; an ensemble.")
    prompts_file: str | None = Field(
        None, description="Instead of prompts: .npy file with two tuned prompt vectors, (2, d), safe and then unsafe."
    )
    logit_scale: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        "auto", description="Factor on the cosines; auto = what the encoder was trained with."
    )

    @model_validator(mode="after")
    def _one_source(self) -> PromptSafety:
        texts = bool(self.safe) and bool(self.unsafe)
        if (self.prompts_file is not None) == bool(self.safe or self.unsafe) or (
            self.prompts_file is None and not texts
        ):
            raise ValueError("give prompts for both `safe` and `unsafe`, or a `prompts_file`")
        if any(not prompt.strip() for prompt in (*self.safe, *self.unsafe)):
            raise ValueError("a prompt is blank")
        return self

    def columns(self) -> list[str]:
        return [f"{self.encoder}.image"]

    def encoders(self) -> list[str]:
        return [self.encoder] if self.prompts_file is None or self.logit_scale == "auto" else []

    def files(self) -> list[str]:
        return [self.prompts_file] if self.prompts_file is not None else []

    def fit(self, context: Context) -> TwoSides:
        if self.prompts_file is not None:
            vectors = context.call(read_vectors, self.prompts_file)
        else:
            vectors = context.call(ensembles, context.encoder(self.encoder), [self.safe, self.unsafe])
        scale = self.logit_scale
        if scale == "auto":
            scale = context.call(logit_scale, context.encoder(self.encoder))
        vectors = vectors.astype(np.float64)
        return TwoSides(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), scale)

    def score(self, part: Part, name: str, state: Any = None) -> dict[str, np.ndarray | pa.Array]:
        assert isinstance(state, TwoSides)
        rows = part.array(self.columns()[0])
        if rows.shape[1] != state.vectors.shape[1]:
            raise DataError(
                f"{self.columns()[0]} has {rows.shape[1]} dimensions, the prompts have {state.vectors.shape[1]}"
            )
        unsafe = np.full(len(rows), np.nan, np.float32)
        for where, block, length in unit_blocks(rows):
            safe_cosine, unsafe_cosine = (np.einsum("ij,j->i", block, v) for v in state.vectors)
            with np.errstate(over="ignore"):
                probability = 1 / (1 + np.exp(state.scale * (safe_cosine - unsafe_cosine)))
            unsafe[where] = np.where(length > 0, probability, np.nan)
        return {name: unsafe, f"{name}_flag": pa.array(unsafe > 0.5, mask=np.isnan(unsafe))}

    def describe(self, state: Any = None) -> dict[str, Any]:
        assert isinstance(state, TwoSides)
        between = float(np.clip(state.vectors[0] @ state.vectors[1], -1, 1))
        prompts = {"safe": len(self.safe), "unsafe": len(self.unsafe)} if self.prompts_file is None else "tuned vectors"
        return {"logit_scale": state.scale, "prompts": prompts, "cosine_between_sides": between}


def read_vectors(path: str) -> np.ndarray:
    """``(2, d) float64`` from a ``.npy`` file.

    Raises:
        ConfigError: missing, unreadable, of another shape, or with a vector that has no direction.
    """
    try:
        vectors = np.load(storage.local(path), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"prompt_safety: {path} cannot be read as .npy: {error}") from error
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or len(vectors) != 2 or vectors.dtype.kind != "f":
        raise ConfigError(f"prompt_safety: {path} must hold two vectors of floats, (2, d): safe, unsafe")
    vectors = vectors.astype(np.float64)
    norms = np.linalg.norm(vectors, axis=1)
    if not (np.isfinite(norms) & (norms > 0)).all():
        raise ConfigError(f"prompt_safety: {path} holds a vector that is zero or not a number")
    return vectors
