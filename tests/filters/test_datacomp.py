"""DataComp's baselines against naive versions, written here from the rules, row by row."""

import pickle
import zipfile

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curate.errors import ConfigError, DataError
from curate.filters import datacomp_captions
from curate.filters.datacomp import Datacomp
from curate.filters.image_clusters import read_centroids, read_targets
from curate.filters.memory import MemoryContext, MemoryPool, run_filters
from curate.filters.nearest import largest_product
from curate.filters.scorers.cld3 import Cld3
from curate.filters.scorers.language import Language, identify
from curate.shards.uid import stable_uid, to_records

TEXTS = [
    "a photo of two cats on the sofa",
    "a dog\nin the park with its owner",
    "eine Katze sitzt auf dem Tisch im Garten",
    "the dog",
    "cat ca",
    "cat c",
    "a b c",
    "a b cd",
    "\n\n\n\n\n\n",
    "\n\n\n\n",
    "      ",
    "",
    None,
    "two\ncats",
    "sofa\n",
    "dogs, dogs and more Dogs",
    "une belle photo d'un chat noir",
]
SCORES = [0.1, 0.28, 0.29, 0.3, float("nan"), 0.2799, 0.9, 0.35]
SIDES = [0, 199, 200, 201, 600, 601, 1000, None]


def rows(most=25):
    row = st.tuples(*map(st.sampled_from, (TEXTS, SCORES, SCORES, SIDES, SIDES)), st.integers(-2, 4))
    return st.lists(row, min_size=1, max_size=most)


CUTS = st.lists(st.integers(0, 25), max_size=3)
FRACTIONS = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.99, 1.0])


def language(caption):
    """fastText's label of a caption, without the project's rule for white space."""
    import fasttext

    from curate.filters.scorers.language import _model, model_path

    assert fasttext
    found = _model(str(model_path())).f.predict(caption.replace("\n", " ") + "\n", 1, 0.0, "strict")
    return found[0][1].removeprefix("__label__")


def tokens(caption):
    """fastText's tokens of a raw text: words between ASCII white space, and one for every newline."""
    count, word = 0, False
    for sign in caption:
        if sign in " \n\r\t\v\f\0":
            count, word = count + word + (sign == "\n"), False
        else:
            word = True
    return count + word


def is_basic(row):
    caption, width, height = row[0], row[3], row[4]
    if caption is None or width is None or height is None or language(caption) != "en":
        return False
    if not (len(caption.split()) > 2 and len(caption) > 5 and min(width, height) >= 200):
        return False
    return max(width, height) / min(width, height) <= 3.0


def scores_pass(scores, threshold=None, fraction=None):
    """DataComp's CLIP rule; the threshold of a fraction is element ``int(N f)`` of the scores sorted descending."""
    scores = np.array(scores, np.float32)
    if threshold is not None:
        return scores >= np.float32(threshold)
    n = int(len(scores) * fraction)
    if n >= len(scores):
        return ~np.isnan(scores)
    cut = np.concatenate([np.sort(scores[~np.isnan(scores)])[::-1], scores[np.isnan(scores)]])[n]
    return None if np.isnan(cut) else scores >= cut


def caption_passes(caption):
    return caption is not None and language(caption) == "en" and tokens(caption) > 1 and len(caption) > 5


def pool_of(make_pool, found, cuts=(), embeddings=None):
    columns = {
        "uid": [stable_uid(str(i)) for i in range(len(found))],
        "caption": pa.array([r[0] for r in found], pa.string()),
        "clip_l14_similarity_score": np.array([r[1] for r in found], np.float32),
        "clip_b32_similarity_score": np.array([r[2] for r in found], np.float32),
        "original_width": pa.array([r[3] for r in found], pa.int32()),
        "original_height": pa.array([r[4] for r in found], pa.int32()),
    }
    return make_pool(columns, embeddings, cuts=[min(c, len(found)) for c in cuts])


def where(passes):
    return [i for i, kept in enumerate(passes) if kept]


@settings(max_examples=40, deadline=None)
@given(rows(), CUTS)
def test_basic_and_no_filter(make_pool, kept, found, cuts):
    pool = pool_of(make_pool, found, cuts)
    assert kept(pool, Datacomp(baseline="basic_filter")) == where(map(is_basic, found))
    assert kept(pool, Datacomp(baseline="no_filter")) == list(range(len(found)))


@settings(max_examples=60, deadline=None)
@given(rows(), CUTS, st.sampled_from(["l14", "b32"]), st.sampled_from([0.28, 0.29, 0.3]), FRACTIONS)
def test_clip_score(make_pool, kept, found, cuts, arch, threshold, fraction):
    pool = pool_of(make_pool, found, cuts)
    scores = [r[1 if arch == "l14" else 2] for r in found]
    by_threshold = Datacomp(baseline="clip_score", arch=arch, threshold=threshold)
    assert kept(pool, by_threshold) == where(scores_pass(scores, threshold=threshold))
    by_fraction, passes = (
        Datacomp(baseline="clip_score", arch=arch, fraction=fraction),
        scores_pass(scores, None, fraction),
    )
    if passes is None:
        with pytest.raises(DataError, match="would be NaN"):
            kept(pool, by_fraction)
    else:
        assert kept(pool, by_fraction) == where(passes)


@settings(max_examples=25, deadline=None)
@given(rows(), CUTS)
def test_laion2b(make_pool, kept, found, cuts):
    gcld3 = pytest.importorskip("gcld3")
    judge = gcld3.NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=1000)

    def passes(row, english):
        return row[0] is not None and np.float32(row[2]) >= np.float32(0.28) and english(row[0].replace("\n", " "))

    pool = pool_of(make_pool, found, cuts)
    by_cld3 = where(passes(row, lambda text: judge.FindLanguage(text=text).language == "en") for row in found)
    assert kept(pool, Datacomp(baseline="laion2b")) == by_cld3
    by_fasttext = where(passes(row, lambda text: language(text) == "en") for row in found)
    assert kept(pool, Datacomp(baseline="laion2b", language_by="fasttext")) == by_fasttext


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory):
    """A WordNet of four nouns and one verb, whose offset is that of a noun among the entities."""
    folder = tmp_path_factory.mktemp("wordnet")
    nouns = {"cat": 2121808, "dog": 2084071, "park": 9, "sofa": 4256520}
    for kind, lemmas in {"noun": nouns, "verb": {"sit": 4256520}, "adj": {}, "adv": {}}.items():
        letter = kind[0] if kind != "adv" else "r"
        lines = [f"{w} {letter} 1 0 1 0 {offset:08d}  \n" for w, offset in sorted(lemmas.items())]
        (folder / f"index.{kind}").write_text("".join(lines))
        (folder / f"{kind}.exc").write_text("")
        (folder / f"data.{kind}").write_text("")
    (folder / "entities.txt").write_text("n02121808\nn04256520\nn02084071\n")
    return folder


@settings(max_examples=25, deadline=None)
@given(rows(), CUTS)
def test_text_based(make_pool, kept, wordnet, found, cuts):
    entities = {"cat", "cats", "dog", "dogs", "Dogs", "sofa", "sit", "sits"}  # their first synsets' offsets are listed

    def passes(row):
        return row[0] is not None and language(row[0]) == "en" and any(w in entities for w in row[0].split())

    chosen = Datacomp(baseline="text_based", wordnet=str(wordnet), entities=str(wordnet / "entities.txt"))
    assert kept(pool_of(make_pool, found, cuts), chosen) == where(map(passes, found))
    assert str(wordnet / "entities.txt") in chosen.files()


def test_a_verb_matches_by_its_offset(make_pool, kept, wordnet):
    chosen = Datacomp(baseline="text_based", wordnet=str(wordnet), entities=str(wordnet / "entities.txt"))
    found = [
        ("they sit there in the evening", 0.3, 0.3, 1, 1, 0),
        ("they stand there in the evening", 0.3, 0.3, 1, 1, 0),
    ]
    assert kept(pool_of(make_pool, found), chosen) == [0]


@pytest.fixture(scope="module")
def clusters(tmp_path_factory):
    """Small whole numbers, so that float32 is exact; 1 and 3 are one centroid twice, not of unit length."""
    folder = tmp_path_factory.mktemp("clusters")
    centroids = np.array([[1, 0, 0], [0, 2, 1], [0, 0, -1], [0, 2, 1], [-3, 1, 0]], np.float32)
    np.save(folder / "centroids.npy", centroids)
    np.savez(folder / "several.npz", centroids=centroids, other=np.ones(3))
    np.save(folder / "targets.npy", np.array([1, 4, 4]))
    return folder


def embeddings_of(found):
    """By the row's last number: -2 has none (NaN), -1 is the zero vector."""
    vectors = {-2: [np.nan] * 3, -1: [0, 0, 0], 0: [2, 1, 0], 1: [0, 1, 0], 2: [0, 0, -2], 3: [-1, 0, 0], 4: [1, 1, 1]}
    return {"clip.image": np.array([vectors[row[5]] for row in found], np.float32)}


def in_target_cluster(vector):
    centroids = [[1, 0, 0], [0, 2, 1], [0, 0, -1], [0, 2, 1], [-3, 1, 0]]
    if not np.isfinite(vector).all() or not np.any(vector):
        return False  # documented: no embedding, no cluster
    products = [float(np.dot(vector, c)) for c in centroids]
    return products.index(max(products)) in (1, 4)


@settings(max_examples=30, deadline=None)
@given(rows(), CUTS, st.sampled_from([0.28, 0.29, 0.3]), FRACTIONS)
def test_image_based_and_its_intersection(make_pool, kept, clusters, found, cuts, threshold, fraction):
    embeddings = embeddings_of(found)
    pool = pool_of(make_pool, found, cuts, embeddings)
    files = {
        "encoder": "clip",
        "centroids": str(clusters / "centroids.npy"),
        "target_clusters": str(clusters / "targets.npy"),
    }
    image = [
        caption_passes(row[0]) and in_target_cluster(v) for row, v in zip(found, embeddings["clip.image"], strict=True)
    ]
    assert kept(pool, Datacomp(baseline="image_based", **files)) == where(image)
    scores = [row[1] for row in found]
    for rule in ({"threshold": threshold}, {"fraction": fraction}):
        both = Datacomp(baseline="image_based_intersect_clip_score", arch="l14", **rule, **files)
        passes = scores_pass(scores, **rule)  # of the whole pool, before the caption rule
        if passes is None:
            with pytest.raises(DataError, match="would be NaN"):
                kept(pool, both)
        else:
            assert kept(pool, both) == where(np.array(image) & passes)


def test_target_clusters_from_a_target_set(make_pool, kept, clusters):
    found = [("a photo of two cats on the sofa", 0.3, 0.3, 300, 300, n) for n in (-2, -1, 0, 1, 2, 3, 4)]
    pool = pool_of(make_pool, found, [3], embeddings_of(found))
    chosen = Datacomp(
        baseline="image_based", encoder="clip", centroids=str(clusters / "several.npz"), target="imagenet"
    )
    assert chosen.targets() == {"imagenet": ["clip.image"]}
    vectors = np.array([[np.nan] * 3, [0, 5, 0], [0, 9, 1], [0, 0, 0]], np.float32)
    table = pa.table({"uid": [stable_uid(str(i)) for i in range(4)]})
    context = MemoryContext(targets={"imagenet": MemoryPool.of([table], [{"clip.image": vectors}])})
    outcome = run_filters(pool, [chosen], context)
    assert np.flatnonzero(np.concatenate([t["kept"].to_numpy() for t in outcome.fates])).tolist() == [3, 6]
    assert outcome.steps[0].reasons == {"no_embedding": 2, "not_a_target_cluster": 3}
    assert (outcome.steps[0].facts["centroids"], outcome.steps[0].facts["target_clusters"]) == (5, 1)
    empty = MemoryContext(targets={"imagenet": MemoryPool.of([table], [{"clip.image": vectors * np.nan}])})
    with pytest.raises(DataError, match="no cluster is a target"):
        run_filters(pool, [chosen], empty)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 40), st.integers(1, 9), st.booleans())
def test_nearest_is_the_first_largest_product_wherever_a_row_stands(seed, n, k, d, whole):
    rng = np.random.Generator(np.random.Philox(key=seed))
    rows, centroids = (rng.standard_normal((m, d)).astype(np.float32) for m in (n, k))
    if whole:
        rows, centroids = np.round(rows), np.round(centroids)
    exact = rows.astype(np.float64) @ centroids.astype(np.float64).T
    found, product = largest_product(rows, centroids)
    if whole:
        assert np.array_equal(found, exact.argmax(axis=1))
    assert np.allclose(product, exact.max(axis=1), rtol=1e-6, atol=1e-7)
    alone = [largest_product(row[None], centroids) for row in rows]
    assert np.array_equal(found, np.concatenate([a for a, _ in alone]))
    assert np.array_equal(product, np.concatenate([b for _, b in alone]))


def test_files_that_are_no_centroids(tmp_path, clusters):
    with zipfile.ZipFile(tmp_path / "centroids.pt", "w") as file:  # as torch.save writes
        file.writestr("archive/data.pkl", pickle.dumps(np.ones((2, 3)), protocol=4))
    (tmp_path / "old.pt").write_bytes(pickle.dumps(np.ones((2, 3)), protocol=4))
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    for name in ("centroids.pt", "old.pt", "objects.npy"):
        with pytest.raises(ConfigError, match="convert it once"):
            read_centroids(str(tmp_path / name))
    np.save(tmp_path / "flat.npy", np.ones(3))
    with pytest.raises(ConfigError, match="a matrix of floats"):
        read_centroids(str(tmp_path / "flat.npy"))
    np.savez(tmp_path / "two.npz", a=np.ones(3), b=np.ones(3))
    with pytest.raises(ConfigError, match="holds a, b; call the array"):
        read_centroids(str(tmp_path / "two.npz"))
    np.save(tmp_path / "far.npy", np.array([0, 5]))
    with pytest.raises(ConfigError, match="cluster 5 does not exist"):
        read_targets(str(tmp_path / "far.npy"), 5)
    with pytest.raises(ConfigError, match="whole numbers"):
        read_targets(str(clusters / "centroids.npy"), 5)


def test_language_from_a_column_gives_the_same_rows(make_pool, kept, monkeypatch):
    found = [(text, 0.3, 0.3, 300, 300, 0) for text in TEXTS if text is None or text.strip()]
    pool = pool_of(make_pool, found, [4]).score("lang", Language())
    alone = kept(pool, Datacomp(baseline="basic_filter"))
    monkeypatch.setattr(datacomp_captions, "identify", None)  # nobody is asked
    assert kept(pool, Datacomp(baseline="basic_filter", language_column="lang")) == alone != []
    assert Datacomp(baseline="basic_filter", language_column="lang").columns()[-1] == "lang"


def test_only_captions_that_pass_the_cheap_rules_are_asked(make_pool, monkeypatch):
    asked = []
    monkeypatch.setattr(datacomp_captions, "identify", lambda c, m: asked.extend(c.to_pylist()) or identify(c, m))
    found = [("a photo of two cats", 0.3, 0.3, 300, 300, 0), ("a photo of two dogs", 0.3, 0.3, 100, 300, 0)]
    step = run_filters(pool_of(make_pool, found), [Datacomp(baseline="basic_filter")]).steps[0]
    assert asked == ["a photo of two cats"]
    assert step.reasons == {"side": 1}
    assert step.facts["language_model"] == "lid.176.ftz"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"baseline": "clip_score", "arch": "l14"}, "exactly one of `threshold` and `fraction`"),
        ({"baseline": "clip_score", "arch": "l14", "threshold": 0.3, "fraction": 0.3}, "exactly one of"),
        ({"baseline": "clip_score", "threshold": 0.3}, "needs `arch`"),
        ({"baseline": "basic_filter", "fraction": 0.3}, "has no `fraction`"),
        ({"baseline": "laion2b", "arch": "l14"}, "has no `arch`"),
        ({"baseline": "image_based", "encoder": "clip"}, "needs `encoder` and `centroids`"),
        (
            {"baseline": "image_based", "encoder": "c", "centroids": "x"},
            "exactly one of `target_clusters` and `target`",
        ),
        ({"baseline": "no_filter", "language_by": "cld3"}, "has no `language_by`"),
        ({"baseline": "laion2b", "language_model": "lid.176.bin"}, "cld3 has no `language_model`"),
        ({"baseline": "basic_filter", "language_by": "cld3", "language_column": "l"}, "nobody is asked"),
        ({"baseline": "basic_filter", "entities": "x"}, "has no `entities`"),
    ],
)
def test_options_that_a_baseline_does_not_take(options, told):
    with pytest.raises(ValidationError, match=told):
        Datacomp(**options)


def test_laion2b_without_cld3_says_what_to_do(make_pool, kept, monkeypatch):
    from curate.filters.scorers import cld3

    cld3._detector.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "gcld3", None)
    pool = pool_of(make_pool, [("a photo of two cats", 0.3, 0.3, 300, 300, 0)])
    with pytest.raises(ConfigError, match="pip install"):
        kept(pool, Datacomp(baseline="laion2b"))
    assert kept(pool, Datacomp(baseline="laion2b", language_by="fasttext")) == [0]


def test_cld3_as_a_score(make_pool):
    pytest.importorskip("gcld3")
    pool = make_pool({"caption": ["a photo of two cats on the sofa", None, "eine Katze\nauf dem Tisch", ""]}, cuts=[1])
    table = pa.concat_tables([m.table for m in pool.score("lang", Cld3()).members])
    assert table["lang"].to_pylist() == ["en", None, "de", "ja"]
    probability = table["lang_probability"].to_numpy()
    assert probability[0] > 0.99
    assert np.isnan(probability).tolist() == [False, True, False, False]


def test_uids_that_lost_their_zeros_are_padded(make_pool):
    pool = make_pool({"uid": ["ab", "0" * 31 + "1", "f" * 32], "caption": ["x"] * 3})
    subset = run_filters(pool, [Datacomp(baseline="no_filter")]).subset()
    assert subset.tolist() == to_records(["1".zfill(32), "ab".zfill(32), "f" * 32]).tolist()
