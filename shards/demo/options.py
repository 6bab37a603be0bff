"""Options of the demo's web: how large and how unruly it is. They and the seed decide every prepared file."""

from __future__ import annotations

from pydantic import Field

from ...registry import Options


class WebOptions(Options):
    """What the demo's web holds; shares are exact fractions of the rows that they speak of."""

    rows: int = Field(default=4000, ge=50, le=200_000, description="Rows of the pool: links with a caption.")
    trusted_rows: int = Field(
        default=1200,
        ge=10,
        le=100_000,
        description="Trusted pairs: pictures of 300 held-apart scans, rightly captioned.",
    )
    wrong_captions: float = Field(
        default=0.7, ge=0, le=1, description="Share of the English sentences naming another digit."
    )
    foreign: float = Field(
        default=0.08, ge=0, le=0.5, description="Share of rows with a right caption that is not English."
    )
    boilerplate: float = Field(
        default=0.05, ge=0, le=0.3, description="Share of rows whose caption is about no digit at all."
    )
    short: float = Field(
        default=0.03, ge=0, le=0.2, description="Share of rows whose caption is right but one or two words."
    )
    exact_copies: float = Field(
        default=0.06, ge=0, le=0.3, description="Share of rows whose file copies another row's."
    )
    near_copies: float = Field(
        default=0.08, ge=0, le=0.3, description="Share of rows whose picture is another's, re-encoded."
    )
    odd_shapes: float = Field(default=0.02, ge=0, le=0.2, description="Share of pictures that are tiny or long strips.")
    broken_links: float = Field(
        default=0.08, ge=0, le=0.5, description="Share of rows that give no picture, in ten ways."
    )
    redirects: float = Field(
        default=0.03, ge=0, le=0.3, description="Share of rows that reach their picture by a redirect."
    )
