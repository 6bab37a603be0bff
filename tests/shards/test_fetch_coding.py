"""Content codings, bodies in files, and opt-out headers: without a server."""

import gzip
import zlib
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import CurateError
from curate.shards.web.body import Body, Room
from curate.shards.web.coding import CodingError, codings, decode
from curate.shards.web.optout import OPT_OUT, refusal, reserved

# --- codings


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(6, wbits=-15)
    return stream.compress(data) + stream.flush()


ENCODERS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": lambda data: pa.compress(data, codec="brotli", asbytes=True),
    "zstd": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}


@given(st.binary(max_size=2000), st.lists(st.sampled_from(sorted(ENCODERS)), max_size=3), st.integers(1, 300))
def test_what_is_encoded_is_decoded(data: bytes, names: list[str], times: int) -> None:
    data *= times
    coded = data
    for name in names:
        coded = ENCODERS[name](coded)
    assert decode(coded, codings(", ".join(names).upper()), 1_000_000) == data


def test_sizes_around_the_steps() -> None:
    for size in (0, 1, 262_143, 262_144, 262_145, 700_000):
        data = bytes(i % 251 for i in range(1000)) * (size // 1000 + 1)
        data = data[:size]
        for name, encode in ENCODERS.items():
            assert decode(encode(data), [name], size) == data
            if size:
                with pytest.raises(CodingError, match="too_large"):
                    decode(encode(data), [name], size - 1)


def test_odd_but_read() -> None:
    two = gzip.compress(b"one") + gzip.compress(b"two")
    assert decode(two, ["gzip"], 100) == b"onetwo"
    assert decode(two[: len(two) // 2] + b"trailing", ["gzip"], 100) == b"one"
    assert decode(raw_deflate(b"raw"), ["deflate"], 100) == b"raw"
    assert codings("identity, X-GZIP ,, none") == ["gzip"]
    assert codings("") == []


@pytest.mark.parametrize("header", ["compress", "utf-8", "aws-chunked", "gzip, exi", "image/jpeg"])
def test_codings_that_nobody_knows_are_named(header: str) -> None:
    with pytest.raises(CodingError) as caught:
        codings(header)
    assert caught.value.code == "unknown_coding"


@pytest.mark.parametrize("name", sorted(ENCODERS))
@given(data=st.binary(max_size=200))
def test_any_bytes_are_decoded_or_a_bad_response(name: str, data: bytes) -> None:
    code = ""
    try:
        decode(data, [name], 10_000)
    except CodingError as error:
        code = error.code
    assert code in ("", "bad_response", "too_large")


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_half_a_body_is_a_bad_response(name: str) -> None:
    coded = ENCODERS[name](bytes(range(256)) * 50)
    with pytest.raises(CodingError, match="bad_response"):
        decode(coded[: len(coded) // 2], [name], 1_000_000)


def test_thousands_of_members_are_a_bad_response() -> None:
    with pytest.raises(CodingError, match="bad_response"):
        decode(gzip.compress(b"") * 1000, ["gzip"], 1000)


def test_a_zstd_window_beyond_the_webs_is_refused() -> None:
    frame = b"\x28\xb5\x2f\xfd" + bytes([0, 17 << 3]) + b"\x01\x00\x00"  # 128 MB, then an empty last block
    with pytest.raises(CodingError, match="window"):
        decode(frame, ["zstd"], 1000)


# --- bodies


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=60)), max_size=60), st.integers(0, 400))
def test_bodies_are_whole_and_memory_is_bounded(pieces: list[tuple[int, bytes]], limit: int) -> None:
    room = Room(limit)
    bodies, expected = [Body(room) for _ in range(4)], [b""] * 4
    for which, data in pieces:
        bodies[which].add(data)
        expected[which] += data
        assert room.used <= limit
        assert bodies[which].size == len(expected[which])
    bodies[3].drop()
    assert [body.take() for body in bodies[:3]] == expected[:3]
    assert room.used == 0


def test_no_folder_for_temporary_files_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(CurateError, match="TMPDIR"):
        Body(Room(3)).add(b"four")


# --- opt-outs

HARMLESS = st.sampled_from(
    [
        "all",
        "nofollow",
        "noarchive",
        "max-snippet: -1",
        "max-image-preview: none",
        "unavailable_after: Tue, 25 Jun 2999 15:00:00 GMT",
        "unavailable_after: Tuesday, 25-Jun-68 15:00:00 UTC",
        "unavailable_after: 2999-06-25T15:00:00+02:00",
        "",
    ]
)
OUT = st.sampled_from(sorted(OPT_OUT))


@st.composite
def spelled(draw: st.DrawFn, directive: str) -> str:
    letters = [c.upper() if draw(st.booleans()) else c for c in directive]
    return draw(st.sampled_from(["", " ", "\t"])) + "".join(letters) + draw(st.sampled_from(["", " "]))


@given(st.data(), st.lists(HARMLESS, max_size=5), OUT, st.sampled_from(["", "curate: ", "*:", "CURATE :"]))
def test_a_directive_for_us_is_found_wherever_it_is(data: st.DataObject, before: list[str], out: str, who: str) -> None:
    pieces = [*before, who + data.draw(spelled(out))]
    assert refusal([",".join(pieces)], "curate") == out
    assert refusal([*before, pieces[-1]], "curate") == out
    assert refusal(["otherbot: noindex, nofollow", pieces[-1]], "curate") == out


@given(st.lists(HARMLESS, max_size=4), st.lists(OUT, min_size=1, max_size=3))
def test_a_directive_for_another_robot_is_not_for_us(before: list[str], outs: list[str]) -> None:
    assert refusal([", ".join([*before, "otherbot: " + ", ".join(outs)])], "curate") is None


@pytest.mark.parametrize(
    ("value", "out"),
    [("noai noimageai", "noai"), ("nofollow; NoML", "noml"), ("noindex:", "noindex"), ("not noaim", None)],
)
def test_lists_with_other_separators(value: str, out: str | None) -> None:
    assert refusal([value], "curate") == out


def test_reading_dates_is_bounded() -> None:
    many = ", ".join(["unavailable_after: Fri, 25 Jun 2999 15:00:00 GMT"] * 5000)
    assert refusal([many + ", noai"], "curate") == "noai"


@pytest.mark.parametrize(
    ("values", "out"),
    [
        (["1"], True),
        ([" 1 "], True),
        (["\t1"], True),
        (["0", "1"], True),
        (["0, 1"], True),
        (["0"], False),
        (["10"], False),
        (["true"], False),
        ([""], False),
        ([], False),
    ],
)
def test_tdm_reservation(values: list[str], out: bool) -> None:
    assert reserved(values) is out
