from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.errors import DataError
from data_pipeline.tokenizers.byte import Vocabulary

tables = st.binary(min_size=1, max_size=256).map(lambda text: bytes(dict.fromkeys(text)))


@given(tables, st.data())
def test_decoding_inverts_encoding(symbols: bytes, data: st.DataObject) -> None:
    vocabulary = Vocabulary(symbols)
    text = bytes(data.draw(st.lists(st.sampled_from(symbols))))
    ids = vocabulary.encode(text)
    assert ids.dtype == np.uint8
    assert ids.tolist() == [symbols.index(byte) for byte in text]
    assert vocabulary.decode_bytes(ids) == text
    assert vocabulary.decode_bytes(int(token) for token in ids) == text


@given(st.text())
def test_any_text_survives_the_byte_vocabulary(text: str) -> None:
    vocabulary = Vocabulary(bytes(range(256)))
    assert vocabulary.decode(vocabulary.encode(text)) == text


def test_foreign_character_is_named_with_its_position() -> None:
    with pytest.raises(DataError, match=r"byte 69 \(b'E'\) at position 3 is not among the 27 characters"):
        Vocabulary(b" abcdefghijklmnopqrstuvwxyz").encode("no E")


def test_decoding_refuses_ids_outside_the_table() -> None:
    for wrong in ([3], [-1]):
        with pytest.raises(ValueError, match="between 0 and 2"):
            Vocabulary(b"abc").decode(wrong)


def test_decoding_shows_bytes_that_are_no_utf8_as_replacement_characters() -> None:
    assert Vocabulary(bytes(range(256))).decode([72, 255]) == "H\ufffd"


def test_saved_vocabulary_loads_as_the_same(tmp_path: Path) -> None:
    vocabulary = Vocabulary(b"zyx\n")
    vocabulary.save(tmp_path / "vocabulary.json")
    assert Vocabulary.load(tmp_path / "vocabulary.json") == vocabulary


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": "bytes", "symbols": [1, 1]}', '{"format": "other", "symbols": [1]}']
)
def test_damaged_vocabulary_file_is_refused_by_name(content: str, tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"vocabulary\.json is not a vocabulary file"):
        Vocabulary.load(path)


def test_missing_vocabulary_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        Vocabulary.load(tmp_path / "vocabulary.json")
