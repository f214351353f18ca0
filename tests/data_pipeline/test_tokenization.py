from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.errors import DataError
from data_pipeline.tokenizers.subword import TextTokenizer, train_tokenizer
from longformer.interop.tokenizer import tokenizer_content
from tests.data_pipeline.random_texts import random_texts


def test_the_files_of_roberta_give_its_published_ids(test_data: Path) -> None:
    tokenizer = TextTokenizer(tokenizer_content(test_data / "tokenizer_gpt2_roberta"))
    assert [ids.tolist() for ids in tokenizer.encode_batch(["Hello world", ""])] == [[31414, 232], []]
    assert (tokenizer.vocabulary_size, tokenizer.token_type) == (50_265, np.uint16)
    special = tokenizer.special
    assert (special.begin, special.padding, special.end, special.others, special.mask) == (0, 1, 2, (3,), 50_264)


def test_special_tokens_written_in_a_document_are_text(small_tokenizer: TextTokenizer) -> None:
    for name in ("<s>", "<mask>", "</s>"):
        (ids,) = small_tokenizer.encode_batch([f"a {name} b"])
        assert not set(ids.tolist()) & set(small_tokenizer.special.all)
        assert small_tokenizer.decode(ids) == f"a {name} b"


@given(st.lists(st.text(max_size=50), max_size=5))
def test_any_text_is_decoded_as_it_was(small_tokenizer: TextTokenizer, texts: list[str]) -> None:
    assert [small_tokenizer.decode(ids) for ids in small_tokenizer.encode_batch(texts)] == texts


@given(st.text(max_size=50))
def test_the_pieces_of_a_text_are_the_text(small_tokenizer: TextTokenizer, text: str) -> None:
    (ids,) = small_tokenizer.encode_batch([text])
    pieces = small_tokenizer.pieces(ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == text.rstrip("\ufffd")


def test_the_pieces_of_a_text_of_word_pieces_can_be_read(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "background", "sali", "##va", "##ry", "ant", "."]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer = TextTokenizer(tokenizer_content(tmp_path))
    (ids,) = tokenizer.encode_batch(["Background salivary ant."])
    pieces = tokenizer.pieces([2, *ids, 4, 3])
    assert pieces == ["[CLS]", " background", " sali", "va", "ry", " ant", ".", " [MASK]", " [SEP]"]
    assert "".join(pieces) == tokenizer.decode([2, *ids, 4, 3])


def test_the_same_texts_train_the_same_tokenizer_of_the_size_asked_for(small_tokenizer: TextTokenizer) -> None:
    again = train_tokenizer(iter(random_texts(50, seed=1)), vocabulary_size=300)
    assert again.content == small_tokenizer.content
    assert again.vocabulary_size == 300
    other = train_tokenizer(random_texts(50, seed=2), vocabulary_size=280)
    assert (other.vocabulary_size, other.sha256 != again.sha256) == (280, True)


def test_a_vocabulary_that_the_text_cannot_fill_is_refused_with_the_size_it_can() -> None:
    with pytest.raises(DataError, match="at least 261 tokens, 260 are too few"):
        train_tokenizer(["text"], vocabulary_size=260)
    with pytest.raises(DataError, match=r"gives a vocabulary of (\d+) tokens only: give more text, or ask for \1"):
        train_tokenizer(["aa aa aa"], vocabulary_size=5_000)


def test_saved_tokenizer_is_the_same_and_other_files_are_refused(
    small_tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    small_tokenizer.save(tmp_path / "tokenizer.json")
    assert TextTokenizer.open(tmp_path / "tokenizer.json").sha256 == small_tokenizer.sha256
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="is no tokenizer"):
        TextTokenizer.open(tmp_path / "tokenizer.json")
    with pytest.raises(DataError, match="cannot be read"):
        TextTokenizer.open(tmp_path / "nowhere")


def test_a_tokenizer_without_mask_is_refused(small_tokenizer: TextTokenizer) -> None:
    with pytest.raises(DataError, match="has no mask token"):
        TextTokenizer(small_tokenizer.content.replace("<mask>", "<musk>"))
