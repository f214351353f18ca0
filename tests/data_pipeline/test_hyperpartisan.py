"""Hyperpartisan news in its original files: the published splits, which leak, and ours, which do not."""

import json
import lzma
from collections import Counter
from pathlib import Path

import pytest

from data_pipeline.errors import DataError
from data_pipeline.sources.corpora import RawExample
from data_pipeline.sources.files import DocumentReader
from data_pipeline.sources.hyperpartisan import Splits, cleaned, hyperpartisan
from data_pipeline.sources.quarantine import Quarantine


def read_all(source: Path, splits: Splits) -> list[RawExample]:
    corpus = hyperpartisan(source, splits)
    return list(corpus.read(DocumentReader(corpus.files), Quarantine(0)))


def texts(examples: list[RawExample], split: str) -> set[str]:
    return {example.texts["text"] for example in examples if example.split == split}


def test_the_published_splits_are_as_published_and_leak(test_data: Path) -> None:
    examples = read_all(test_data / "hyperpartisan", "published")
    counts = Counter(example.split for example in examples)
    # Two ids stand twice in the list for training.
    listed = {
        name: len(ids) for name, ids in json.loads((test_data / "hyperpartisan/hp-splits.json").read_text()).items()
    }
    assert counts == {"train": listed["train"], "validation": listed["dev"], "test": listed["test"]}
    assert len(texts(examples, "test") & texts(examples, "train")) == 51


def test_the_clean_splits_hold_every_article_once_and_share_none(test_data: Path) -> None:
    examples = read_all(test_data / "hyperpartisan", "clean")
    assert len({example.fields["id"] for example in examples}) == len(examples) == 645
    assert Counter(example.fields["label"] for example in examples) == {"true": 238, "false": 407}
    counts = Counter(example.split for example in examples)
    assert 64 <= counts["validation"] <= 67
    assert 65 <= counts["test"] <= 68
    split_of = {example.fields["id"]: example.split for example in examples}
    # The same article twice, with other words around it.
    for first, second in (
        ("0000383", "0000384"),
        ("0000065", "0000121"),
        ("0000580", "0000386"),
        ("0000103", "0000068"),
    ):
        assert split_of[first] == split_of[second]


def test_texts_are_cleaned_as_the_authors_did() -> None:
    text = "See http://a.b/c and/or www.d.e\n now!!! It was sooooo good&#160;... He said 1999/2000?? Add all."
    assert cleaned(text) == "See now! It was so good . He said ? Add all."


def test_what_is_missing_or_damaged_is_one_sentence(test_data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no files articles\*\.xml\*"):
        hyperpartisan(tmp_path, "clean")
    for file in (test_data / "hyperpartisan").glob("*.xml.xz"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(DataError, match=r"holds no files hp-splits\.json"):
        hyperpartisan(tmp_path, "published")
    (tmp_path / "hp-splits.json").write_text('{"train": [9999]}')
    with pytest.raises(DataError, match="does not hold the published splits of these articles"):
        read_all(tmp_path, "published")
    (articles,) = tmp_path.glob("articles*")
    (truth,) = tmp_path.glob("ground-truth*")
    truth.write_bytes(b'<articles><article id="x" hyperpartisan="true"/></articles>')
    articles.write_bytes(b'<articles><article id="x">text</article></articles>')
    with pytest.raises(DataError, match="does not hold the published splits of these articles"):
        read_all(tmp_path, "published")
    articles.write_bytes(lzma.compress(b"<articles><article>"))
    with pytest.raises(DataError, match="is no XML"):
        read_all(tmp_path, "clean")
