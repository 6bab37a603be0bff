"""Which rows of a pool name the same image."""

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.shards.url_index import COPY, copies_of, find_copies, index_urls, write_index


def indexes(folder: Path, shards: dict[int, list[str | None]]) -> dict[int, str]:
    paths = {}
    for number, urls in shards.items():
        paths[number] = str(folder / f"{number}.npy")
        write_index(paths[number], index_urls(urls))
    return paths


def expected(shards: dict[int, list[str | None]], wanted: set[int]) -> list[tuple[int, int, int, int]]:
    """By a dictionary: the first place of every URL, in order of shard number."""
    first: dict[str, tuple[int, int]] = {}
    found = []
    for number in sorted(shards):
        for row, url in enumerate(shards[number]):
            if url is None:
                continue
            owner = first.setdefault(url, (number, row))
            if owner[0] != number and number in wanted:
                found.append((number, row, *owner))
    return sorted(found)


URLS = st.lists(st.none() | st.integers(0, 12).map(lambda n: f"http://a.example/{n}.jpg"), max_size=10)


@settings(max_examples=60, deadline=None)
@given(st.lists(URLS, min_size=1, max_size=5), st.integers(1, 4), st.sets(st.integers(0, 8)))
def test_copies_are_those_that_a_dictionary_finds(tmp_path_factory, lists, groups, wanted) -> None:
    folder = tmp_path_factory.mktemp("urls")
    shards = {2 * i: urls for i, urls in enumerate(lists)}
    paths = indexes(folder, shards)
    pieces = [find_copies(paths, wanted, group, groups) for group in range(groups)]
    files = []
    for i, piece in enumerate(pieces):
        files.append(str(folder / f"copies{i}.npy"))
        write_index(files[-1], piece)
    found = sorted(tuple(int(v) for v in copy) for piece in pieces for copy in piece)
    assert found == expected(shards, wanted)
    for number in shards:
        mine = copies_of(files, number)
        assert mine.dtype == COPY
        assert [tuple(int(v) for v in copy) for copy in mine] == [c for c in expected(shards, wanted) if c[0] == number]


def test_urls_are_compared_in_canonical_form(tmp_path: Path) -> None:
    paths = indexes(
        tmp_path, {0: ["http://A.example:80/x#top", "not a url", None], 1: ["http://a.example/x", "not a url"]}
    )
    copies = find_copies(paths, {0, 1}, 0, 1)
    assert [tuple(int(v) for v in copy) for copy in copies] == [(1, 0, 0, 0)]


def test_images_with_other_boxes_are_other_images() -> None:
    url = "http://a.example/x"
    index = index_urls([url, url, url, url], [[[0, 0, 1, 1]], [[0, 0, 1, 1]], [], None])
    hashes = {(int(f0), int(f1)) for f0, f1, _ in index}
    assert len(hashes) == 2
    assert np.array_equal(np.sort(index["row"]), np.arange(4))


def test_a_lower_shard_owns_the_image_whatever_is_added_later(tmp_path: Path) -> None:
    a, b = "http://a.example/1", "http://a.example/2"
    before = find_copies(indexes(tmp_path, {0: [a], 1: [b, a]}), {1}, 0, 1)
    after = find_copies(indexes(tmp_path, {0: [a], 1: [b, a], 2: [b]}), {1}, 0, 1)
    assert np.array_equal(before, after)
