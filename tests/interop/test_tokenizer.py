"""Claims: the tokenizer of a folder gives the ids that Hugging Face's gives, whichever files describe it."""

import json
import lzma
from pathlib import Path

import pytest
import tokenizers
import transformers

from longformer.errors import LongformerError
from longformer.interop.tokenizer import open_content, read_tokenizer, tokenizer_content

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "long", "##er", "text", "?", "."]


def test_real_papers_get_the_ids_of_robertas_tokenizer(test_data: Path) -> None:
    ours = read_tokenizer(test_data / "tokenizer_gpt2_roberta")
    theirs = transformers.RobertaTokenizer.from_pretrained(test_data / "tokenizer_gpt2_roberta")
    with lzma.open(test_data / "sumpubmed" / "test.jsonl.xz", "rt", encoding="utf-8") as lines:
        papers = [json.loads(next(lines)) for _ in range(3)]
    for paper in papers:
        assert ours.encode(paper["article"]).ids == theirs(paper["article"])["input_ids"]
        pair = ("What is naïve?", paper["abstract"])
        assert ours.encode(*pair).ids == theirs(*pair)["input_ids"]
        assert ours.decode(ours.encode(paper["abstract"]).ids) == paper["abstract"]
    masked = open_content(tokenizer_content(test_data / "tokenizer_gpt2_roberta", ["<mask>"]))
    assert masked.encode("a <mask>").tokens == ["<s>", "a", " <mask>", "</s>"]


@pytest.mark.parametrize("lowercase", [True, False])
def test_word_pieces_are_those_of_berts_tokenizer(lowercase: bool, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lowercase}))
    ours = open_content(tokenizer_content(tmp_path, ["[MASK]"]))
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path, do_lower_case=lowercase)
    for texts in (("A longer text, a [MASK].",), ("Long?", "a LONGER text.")):
        assert ours.encode(*texts).ids == theirs(*texts)["input_ids"]
    assert ours.decode(ours.encode("a longer text").ids) == "a longer text"


def test_without_merges_every_character_is_a_token(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps({"<s>": 0, "</s>": 1, "<unk>": 2, "<mask>": 3, "A": 4, "B": 5}))
    assert open_content(tokenizer_content(tmp_path, ["<mask>"])).encode("AB<mask>A?").ids == [0, 4, 5, 3, 4, 2, 1]


def test_a_whole_tokenizer_goes_first_and_loses_its_limit(tmp_path: Path) -> None:
    whole = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    whole.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    whole.enable_truncation(3)
    whole.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "vocab.json").write_text("{}")
    assert read_tokenizer(tmp_path).encode("a a a a a").ids == [0] * 5


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(LongformerError, match="holds no tokenizer that can be read"):
        read_tokenizer(tmp_path)
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    with pytest.raises(LongformerError, match=r"vocab\.json lacks the token '</s>'"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(LongformerError, match=r"tokenizer\.json is damaged"):
        read_tokenizer(tmp_path)
