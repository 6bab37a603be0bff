"""Config errors name file, line, key and the nearest right spelling."""

from pathlib import Path

import pytest

from curate.errors import ConfigError
from curate.pipeline.config import Config, load
from curate.pipeline.config_file import ConfigFile

GOOD = """\
name: t
pool:
  source: {type: demo}
scores:
  language: {type: language}
subsets:
  everything: []
  curated:
    - {type: basic, languages: [en, no]}
    - {type: exact_dedup, on: [image]}
"""


def message(text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        validated(text, overrides)
    return str(caught.value)


def validated(text: str, overrides: tuple[str, ...]) -> Config:
    file = ConfigFile(text, "c.yaml")
    file.override(overrides)
    return file.validate(Config)


def test_on_and_no_are_words_not_booleans():
    config = ConfigFile(GOOD, "c.yaml").validate(Config)
    basic, dedup = config.subsets["curated"]
    assert list(basic.languages) == ["en", "no"]
    assert list(dedup.on) == ["image"]


def test_exponent_without_a_dot_is_a_number():
    assert ConfigFile("a: 1e-3\nb: 2E5\nc: 1e3x", "c").values == {"a": 1e-3, "b": 2e5, "c": "1e3x"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("name: t", "nmae: t"), "c.yaml:1: unknown key 'nmae'; did you mean 'name'?"),
        (
            ("languages:", "langages:"),
            "c.yaml:9: unknown key 'langages'; did you mean 'languages'? (in subsets.curated.0)",
        ),
        (("type: basic", "type: bassic"), "c.yaml:9: subsets.curated.0: unknown type 'bassic'; did you mean 'basic'?"),
        (("type: demo", "typ: demo"), "c.yaml:3: pool.source: `type` is missing"),
        (("name: t", "seed: 1"), "name is required"),
        (("  everything: []", "  curated: []"), "c.yaml:8: key 'curated' is given twice (first on line 7)"),
        (("name: t", "name: [t"), "c.yaml:"),
    ],
)
def test_mistakes_are_explained(change, expected):
    assert expected in message(GOOD.replace(*change))


def test_every_mistake_is_told_at_once():
    lines = message(GOOD.replace("name: t", "nmae: t").replace("languages", "langages")).splitlines()
    assert any("nmae" in line for line in lines)
    assert any("langages" in line for line in lines)


def test_overrides_set_nested_values_and_list_items():
    file = ConfigFile(GOOD, "c.yaml")
    file.override(["seed=7", "cluster.workers=3", "subsets.curated.0.min_words=5", "pool.image.size=64"])
    config = file.validate(Config)
    assert (config.seed, config.cluster.workers, config.subsets["curated"][0].min_words) == (7, 3, 5)
    assert config.pool.image.size == 64


def test_wrong_override_is_blamed_on_the_command_line():
    assert "command line: unknown key 'wrokers'; did you mean 'workers'?" in message(GOOD, "cluster.wrokers=3")
    assert "must look like" in message(GOOD, "cluster.workers")


def test_references_between_sections_are_checked():
    text = GOOD + "release: {subsets: [curate]}\n"
    assert "unknown subset 'curate'; did you mean 'curated'?" in message(text)
    text = GOOD.replace("{type: language}", "{type: clip_similarity, encoder: dfm}")
    assert "unknown encoder 'dfm'" in message(text)


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(ConfigError, match="does not exist; `curate init"):
        load(str(tmp_path / "none.yaml"))
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    with pytest.raises(ConfigError, match="is empty"):
        load(str(tmp_path / "empty.yaml"))


def test_schema_describes_every_section():
    schema = Config.model_json_schema()
    assert {"name", "pool", "encoders", "scores", "subsets", "release", "pretrain", "eval"} <= schema[
        "properties"
    ].keys()


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[2].glob("configs/*.yaml")), ids=lambda p: p.name)
def test_shipped_configs_are_valid(path: Path) -> None:
    config, _ = load(str(path))
    assert config.name
