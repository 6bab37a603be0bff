"""Columns -> classes -> numbers; classes -> trees."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import ConfigError, DataError
from curate.pretrain.data.class_hierarchy import build_hierarchy, find_hierarchy, read_parents
from curate.pretrain.data.label_space import LabelSpace, find_classes, first_of_each, label_list, read_classes
from curate.pretrain.data.wordnet_nouns import hypernyms, noun_ids

WORDNET = "/usr/share/wordnet"


def test_classes_by_hand():
    column = pa.chunked_array([["bee", "ant", None], ["bee", " ", "cow "]])
    space = find_classes([column], "column 'label'")
    assert space.names == ("ant", "bee", "cow")
    assert space.counts == (1, 2, 1)
    encoded = space.encode(column, "column 'label'")
    assert encoded.row.tolist() == [0, 1, 3, 5]
    assert encoded.id.tolist() == [1, 0, 1, 2]
    cleaned = find_classes([column], "here", min_samples=2)
    assert cleaned.names == ("bee",)
    assert cleaned.dropped == {"ant": 1, "cow": 1}
    assert cleaned.encode(column, "here").unknown == 2
    given_by_hand = find_classes([column], "here", classes=["cow", "eel", "ant"])
    assert (given_by_hand.names, given_by_hand.counts) == (("cow", "eel", "ant"), (1, 0, 1))
    assert given_by_hand.dropped == {"bee": 2}


def test_integers_are_ordered_by_value():
    assert find_classes([pa.array([10, 9, -3, 100])], "here").names == ("-3", "9", "10", "100")
    assert find_classes([pa.array(["10", "9", "x", "007"])], "here").names == ("007", "9", "10", "x")
    assert find_classes([pa.array([True, False])], "here").names == ("false", "true")


texts = st.sampled_from(["a", "b", "c", "d", "10", "9", "2"])
rows = st.lists(st.one_of(st.none(), st.lists(st.one_of(st.none(), texts), max_size=4)), min_size=1, max_size=12)


@given(shards=st.lists(rows, min_size=1, max_size=3), least=st.integers(1, 3), coded=st.booleans())
def test_lists_of_labels_equal_counting(shards, least, coded):
    columns = [pa.array(shard, pa.list_(pa.string())) for shard in shards]
    sets = [{label for label in row or () if label is not None} for shard in shards for row in shard]
    counts = {name: sum(name in found for found in sets) for name in {n for found in sets for n in found}}
    kept = {name for name, count in counts.items() if count >= least}
    if not kept:
        with pytest.raises(DataError, match="none of them with"):
            find_classes(columns, "here", least)
        return
    space = find_classes(columns, "here", least)
    assert space.names == tuple(sorted(kept, key=lambda n: (0, int(n), n) if n.isdigit() else (1, 0, n)))
    assert space.counts == tuple(counts[name] for name in space.names)
    assert space.dropped == {name: count for name, count in counts.items() if name not in kept}
    assert find_classes(columns[::-1], "here", least) == space
    assert LabelSpace.from_json(space.to_json()) == space
    encoded = space.encode(pa.chunked_array(columns), "here")
    found = list(zip(encoded.row.tolist(), encoded.id.tolist(), strict=True))
    assert found == sorted((i, space.names.index(n)) for i, names in enumerate(sets) for n in names & kept)


@given(shard=rows, per_class=st.integers(1, 3))
def test_first_of_each_class(shard, per_class):
    column = pa.array(shard, pa.list_(pa.string()))
    if not any(label is not None for row in shard for label in row or ()):
        return
    space = find_classes([column], "here")
    taken = first_of_each(space.encode(column, "here"), len(shard), per_class)
    expected = set()
    for name in space.names:
        expected |= set([i for i, row in enumerate(shard) if name in (row or ())][:per_class])
    assert set(np.flatnonzero(taken).tolist()) == expected


def test_dictionary_columns_and_slices_are_read():
    column = pa.chunked_array([pa.array(["x", "y", "x", None]).dictionary_encode()])
    assert find_classes([column], "here").counts == (2, 1)
    lists = pa.array([["a"], ["b", "c"], ["a"]]).slice(1)
    found = label_list(lists, "here")
    assert (found.row.tolist(), found.text.to_pylist()) == ([0, 0, 1], ["b", "c", "a"])


def test_wrong_columns_and_files_are_explained(tmp_path):
    with pytest.raises(ConfigError, match="label holds double"):
        find_classes([pa.array([1.5])], "label")
    with pytest.raises(ConfigError, match="does not exist"):
        read_classes(str(tmp_path / "none.txt"))
    (tmp_path / "classes.txt").write_text("bee\n\n ant \n")
    assert read_classes(str(tmp_path / "classes.txt")) == ["bee", "ant"]
    with pytest.raises(ConfigError, match="'bee' is named twice"):
        LabelSpace(("bee", "bee"))
    with pytest.raises(DataError, match="not a list of classes"):
        LabelSpace.from_json({"classes": []})


@given(parents=st.lists(st.integers(-1, 14), min_size=15, max_size=15), known=st.sets(st.integers(0, 14), min_size=1))
def test_hierarchy_equals_walking_up(parents, known):
    relation = {f"w{i}": f"w{min(p, i - 1)}" for i, p in enumerate(parents) if p >= 0 and i > 0}  # no circles
    names = [f"w{i}" for i in sorted(known, key=lambda i: (i * 7) % 15)]
    tree = build_hierarchy(names, relation)
    for i, name in enumerate(names):
        chain, at = [name], relation.get(name)
        while at is not None:
            if at in names:
                chain.append(at)
            at = relation.get(at)
        chain = chain[::-1]
        assert tree.depth[i] == len(chain) - 1
        assert tree.parent[i] == (names.index(chain[-2]) if len(chain) > 1 else -1)
        assert tree.ancestors[i].tolist() == [names.index(c) for c in chain] + [-1] * (tree.levels - len(chain))
    assert (np.bincount(tree.depth, minlength=tree.levels) > 0).all()


@pytest.mark.parametrize("relation", [{"a": "b", "b": "a"}, {"a": "x", "x": "y", "y": "x"}, {"a": "a"}])
def test_circles_are_errors(relation):
    with pytest.raises(DataError, match="circle through"):
        build_hierarchy(["a", "b"], relation)


def test_files_of_parents(tmp_path):
    path = tmp_path / "tree.txt"
    path.write_text("# is a\npoodle dog\nhot dog\tfast food\ndog animal\ndog pet\n")
    assert read_parents(str(path)) == {"poodle": "dog", "hot dog": "fast food", "dog": "animal"}
    tree = find_hierarchy(["animal", "poodle"], str(path), WORDNET)
    assert tree.parent.tolist() == [-1, 0]  # "dog" is no class and is passed through
    with pytest.raises(DataError, match="names none of the 1 classes"):
        find_hierarchy(["chair"], str(path), WORDNET)
    path.write_text("hot dog food\n")
    with pytest.raises(DataError, match="line 1"):
        read_parents(str(path))


SMALL = {
    "data.noun": "  1 licence\n"
    "00001740 03 n 01 entity 0 000 | all\n"
    "00015388 05 n 02 animal 0 beast 0 001 @ 00001740 n 0000 | alive\n"
    "02084071 05 n 01 dog 0 003 #m 00001740 n 0000 @ 00015388 n 0000 @ 00001740 n 0000 | a pet\n"
    "02099999 05 n 01 Rex 0 001 @i 02084071 n 0000 | one of them\n",
    "index.noun": "  1 licence\n"
    "animal n 1 2 @ ~ 1 1 00015388  \n"
    "dog n 2 3 @ ~ #m 2 1 02084071 00001740  \n"
    "rex n 1 1 @i 1 0 02099999  \n",
}


def test_wordnet_by_hand(tmp_path: Path):
    for name, text in SMALL.items():
        (tmp_path / name).write_text(text)
    assert hypernyms(str(tmp_path)) == {
        "n00001740": None,
        "n00015388": "n00001740",
        "n02084071": "n00015388",
        "n02099999": "n02084071",
    }
    assert noun_ids(["Dog", "n00015388", "REX "], str(tmp_path)) == ["n02084071", "n00015388", "n02099999"]
    tree = find_hierarchy(["rex", "animal"], "wordnet", str(tmp_path))
    assert (tree.names, tree.parent.tolist()) == (("rex", "animal"), [1, -1])
    with pytest.raises(ConfigError, match="such as 'unicorn'"):
        noun_ids(["dog", "unicorn"], str(tmp_path))
    with pytest.raises(ConfigError, match="'dog' and 'n02084071' are the same"):
        noun_ids(["dog", "n02084071"], str(tmp_path))
    with pytest.raises(ConfigError, match="no synsets of the WordNet"):
        find_hierarchy(["n12345678"], "wordnet", str(tmp_path))
    with pytest.raises(ConfigError, match="wordnet-base"):
        hypernyms(str(tmp_path / "none"))


@pytest.mark.skipif(not Path(WORDNET, "data.noun").exists(), reason="needs Debian's wordnet-base")
def test_imagenet_21k_p_on_the_real_wordnet():
    import timm

    path = Path(timm.__file__).parent / "data/_info/imagenet21k_miil_synsets.txt"
    names = path.read_text().split()
    tree = find_hierarchy(names, "wordnet", WORDNET)
    assert len(names) == 11_221
    assert np.bincount(tree.depth).tolist() == [293, 1320, 2056, 2549, 2163, 1349, 716, 342, 212, 155, 60, 6]
    assert names[tree.parent[names.index("n02113799")]] == "n02113335"  # standard poodle: poodle
