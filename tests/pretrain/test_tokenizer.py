import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import ConfigError
from curate.pretrain.data.tokenizer import ByteTokenizer, WordTokenizer, tokenizer_for
from curate.pretrain.models.architecture import resolve_model
from curate.shards.demo import captions

WORDS = {"context_length": 8, "vocab_size": 4096}


def test_bytes_by_hand():
    tokens = ByteTokenizer(6)(["ab", "é", "", "abcdefgh"])
    assert tokens.tolist() == [
        [256, 97, 98, 257, 0, 0],
        [256, 0xC3, 0xA9, 257, 0, 0],
        [256, 257, 0, 0, 0, 0],
        [256, 97, 98, 99, 100, 257],
    ]


@given(st.lists(st.text(max_size=40), max_size=8), st.integers(3, 20), st.sampled_from(["bytes", "words"]))
def test_end_mark_is_the_largest_id_and_is_never_cut(texts, context_length, name):
    vocab_size = 258 if name == "bytes" else 64
    tokens = tokenizer_for(name, {"context_length": context_length, "vocab_size": vocab_size})(texts)
    assert tokens.shape == (len(texts), context_length)
    assert tokens.dtype == np.int64
    for row in tokens:
        end = row.argmax()
        assert row[0] == vocab_size - 2
        assert row[end] == vocab_size - 1
        assert (row[end + 1 :] == 0).all()
        assert (row[1:end] < vocab_size - 2).all()


@given(st.lists(st.text(max_size=30), min_size=1, max_size=6))
def test_a_row_does_not_depend_on_its_neighbours(texts):
    for tokenizer in (ByteTokenizer(16), WordTokenizer(16, 512)):
        assert np.array_equal(tokenizer(texts), np.concatenate([tokenizer([text]) for text in texts]))


def test_words_are_case_and_punctuation_blind():
    tokenizer = tokenizer_for("words", WORDS)
    a, b, c = tokenizer(["A photo, of the Digit: seven!", "a photo of the digit seven", "a photo of the digit two"])
    assert np.array_equal(a, b)
    assert (a != c).sum() == 1
    assert a.argmax() == 7


def test_words_of_scripts_without_spaces_are_characters():
    lengths = tokenizer_for("words", WORDS)(["数字七 photo", "ένα δύο", "Фото 7"]).argmax(1) - 1
    assert lengths.tolist() == [4, 2, 2]


def test_word_ids_are_the_same_everywhere():
    assert tokenizer_for("words", WORDS)(["seven cats"])[0, :4].tolist() == [4094, 663, 3845, 4095]


def test_a_megabyte_caption_is_cheap():
    text = "word " * 2_000_000
    assert ByteTokenizer(16)([text])[0, -1] == 257
    assert WordTokenizer(16, 512)([text])[0, -1] == 511


def test_surrogates_do_not_stop_a_training():
    assert ByteTokenizer(8)(["a\ud800b"])[0, :5].tolist() == [256, 97, ord("?"), 98, 257]
    WordTokenizer(8, 512)(["a\ud800b"])


def test_open_clip_tokenizers():
    import open_clip

    texts = ["a photo of a cat", "x " * 100]
    expected = open_clip.get_tokenizer("ViT-B-32")(texts).numpy()
    cfg = {"context_length": 77, "vocab_size": 49408}
    for name in ("clip", "open_clip:ViT-B-32"):
        tokenizer = tokenizer_for(name, cfg)
        assert np.array_equal(tokenizer(texts), expected)
        assert tokenizer([]).shape == (0, 77)


@pytest.mark.parametrize(
    ("name", "cfg", "message"),
    [
        ("byte", {}, "unknown tokenizer 'byte'"),
        ("bytes", {"context_length": 48, "vocab_size": 300}, "vocab_size is 300"),
        ("words", {"context_length": 2, "vocab_size": 300}, "context_length is 2"),
        ("words", {"context_length": 9, "vocab_size": 8}, "at least 16"),
    ],
)
def test_wrong_configs_are_explained(name, cfg, message):
    with pytest.raises(ConfigError, match=message):
        tokenizer_for(name, cfg)


def test_words_are_lower_cased_cut_and_marked() -> None:
    tokenize = WordTokenizer(5, 100)
    tokens = tokenize(["A cat", "a CAT!", "one two three four", "", "\ud800 x"])
    assert tokens.shape == (5, 5)
    assert (tokens[0] == tokens[1]).all()
    assert tokens[0, 0] == 98
    assert tokens[0, 3] == 99
    assert tokens[0, 4] == 0
    assert tokens[2, 4] == 99  # the end mark stays when words are cut
    assert tokens[3].tolist() == [98, 99, 0, 0, 0]
    assert ((tokens >= 0) & (tokens < 100)).all()
    assert (tokens[:2, 1:3] < 98).all()


def test_the_demos_words_do_not_collide_in_the_shipped_model() -> None:
    spec = resolve_model("RN-mini-32")
    tokenize = tokenizer_for(spec.tokenizer, spec.config["text_cfg"])
    names = [*captions.WORDS, *map(str, range(10))]
    words = {w for sentence in captions.ENGLISH for w in re.findall(r"\w+", sentence.lower()) if w != "c"} | set(names)
    ids = [int(tokenize([word])[0, 1]) for word in sorted(words)]
    assert len(set(ids)) == len(words)
