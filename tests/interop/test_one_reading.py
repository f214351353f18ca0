"""Claims: training and use read a text alike, with the ids of transformers; special tokens in it are text unless named.

transformers itself is asked with `split_special_tokens=True` where it has the same rule.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from data_pipeline.sampling.summaries import SummaryFormat, source_tokens
from data_pipeline.tokenizers.subword import TextTokenizer
from longformer.errors import LongformerError
from longformer.interop.convert import convert
from longformer.interop.tokenizer import open_content, read_tokenizer, tokenizer_content
from tests.interop.tokenizer_folders import LETTERS, byte_level, unigram, word_pieces

PRICE = "the old price was <s>100</s> now <pad>80<mask> <unk>"


def trained_ids(content: str, text: str) -> list[int]:
    """Returns what training reads."""
    (ids,) = TextTokenizer(content).encode_batch([text])
    return ids.tolist()


@pytest.mark.parametrize("cls", [transformers.XLMRobertaTokenizer, transformers.MBartTokenizer])
def test_special_pieces_of_a_unigram_model_are_text_in_a_document(cls: type, tmp_path: Path) -> None:
    theirs = unigram(cls, tmp_path)
    ours = read_tokenizer(tmp_path)
    encoding = ours.encode(PRICE, add_special_tokens=False)
    assert not set(encoding.ids) & {0, 1, 2, theirs.mask_token_id}
    assert "".join(encoding.tokens).replace("▁", " ").strip() == PRICE
    assert trained_ids(tokenizer_content(tmp_path), PRICE) == encoding.ids
    assert ours.encode("en_XX", add_special_tokens=False).ids != [theirs.convert_tokens_to_ids("en_XX")]


@given(st.text(alphabet=LETTERS + " \n\tñ中", max_size=40))
@settings(max_examples=200)
def test_all_else_keeps_its_ids_and_pieces_their_scores(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "xlmr"
    if not folder.exists():
        unigram(transformers.XLMRobertaTokenizer, folder)
    without = json.loads((folder / "tokenizer.json").read_bytes())
    text = text.replace(">", "")
    plain = Tokenizer.from_str(json.dumps(without))
    assert read_tokenizer(folder).encode(text).ids == plain.encode(text).ids


def test_a_text_with_special_tokens_is_read_alike_in_training_and_in_use(tmp_path: Path) -> None:
    byte_level(tmp_path)
    theirs = transformers.RobertaTokenizer.from_pretrained(tmp_path, split_special_tokens=True)
    assert read_tokenizer(tmp_path).encode(PRICE).ids == theirs(PRICE)["input_ids"]
    assert trained_ids(tokenizer_content(tmp_path), PRICE) == theirs(PRICE)["input_ids"][1:-1]


def test_a_named_special_token_is_the_token_everywhere(tmp_path: Path) -> None:
    byte_level(tmp_path, additional_special_tokens=["<doc-sep>"])
    text = "A court decided.<doc-sep>Patients </s>"
    separator = read_tokenizer(tmp_path).token_to_id("<doc-sep>")
    assert separator not in read_tokenizer(tmp_path).encode(text).ids
    content = tokenizer_content(tmp_path, ["<doc-sep>"])
    assert trained_ids(content, text).count(separator) == 1
    assert 2 not in trained_ids(content, text)
    assert open_content(content).encode(text, add_special_tokens=False).ids == trained_ids(content, text)
    with pytest.raises(LongformerError, match=r"has no token \[DEID\]; its special tokens are .*<doc-sep>"):
        tokenizer_content(tmp_path, ["[DEID]"])


def test_a_token_that_is_added_and_special_only_in_the_older_file_is_a_token_as_in_transformers(tmp_path: Path) -> None:
    byte_level(tmp_path)
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<doc-sep>": 264}))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"additional_special_tokens": ["<doc-sep>"]}))
    text = "A court decided.<doc-sep>Patients </s>"  # the layout of PRIMERA
    theirs = transformers.LEDTokenizer.from_pretrained(tmp_path, split_special_tokens=True)(text)["input_ids"]
    assert theirs.count(264) == 1
    for special_tokens in (None, [], ["<doc-sep>"]):
        assert open_content(tokenizer_content(tmp_path, special_tokens)).encode(text).ids == theirs


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"strip_accents": False},
        {"do_lower_case": False},
        {"do_lower_case": False, "strip_accents": True},
        {"tokenize_chinese_chars": False},
    ],
)
def test_the_settings_beside_a_word_list_count(config: dict[str, object], tmp_path: Path) -> None:
    word_pieces(tmp_path, **config)
    (tmp_path / "added_tokens.json").write_text(json.dumps({"[DEID]": 500, "Über-Wort": 501}))
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path)
    for text in ("für über ÄÜ", "a中文b", "a [DEID] b.", "an Über-Wort, über-wort"):
        assert read_tokenizer(tmp_path).encode(text).ids == theirs(text)["input_ids"]
    TextTokenizer(tokenizer_content(tmp_path))


@pytest.mark.parametrize("file", ["sentencepiece.bpe.model", "spiece.model", "bpe.codes"])
def test_what_cannot_be_read_is_refused_with_the_remedy(file: str, tmp_path: Path) -> None:
    (tmp_path / file).write_bytes(b"")
    (tmp_path / "vocab.txt").write_text("a 1\n") if file == "bpe.codes" else None
    with pytest.raises(LongformerError, match=f"({file}).*AutoTokenizer"):
        tokenizer_content(tmp_path)


def test_word_lists_of_other_tokenizers_are_not_taken_for_berts(tmp_path: Path) -> None:
    word_pieces(tmp_path, tokenizer_class="BertJapaneseTokenizer")
    with pytest.raises(LongformerError, match=r"a tokenizer of BertJapaneseTokenizer.*AutoTokenizer"):
        tokenizer_content(tmp_path)


def test_a_refused_tokenizer_refuses_the_conversion(tmp_path: Path) -> None:
    config = transformers.RobertaConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        max_position_embeddings=34,
    )  # fmt: skip
    transformers.RobertaForMaskedLM(config).save_pretrained(tmp_path / "source")
    (tmp_path / "source" / "sentencepiece.bpe.model").write_bytes(b"")
    with pytest.raises(LongformerError, match=r"SentencePiece only.*AutoTokenizer"):
        convert(tmp_path / "source", tmp_path / "long", max_length=64, window=8)
    assert not (tmp_path / "long").exists()


def test_a_converted_folder_names_its_special_tokens(tmp_path: Path) -> None:
    config = transformers.RobertaConfig(
        vocab_size=280, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        max_position_embeddings=34,
    )  # fmt: skip
    transformers.RobertaForMaskedLM(config).save_pretrained(tmp_path / "source")
    byte_level(tmp_path / "source", add_prefix_space=True, additional_special_tokens=["<doc-sep>", "<other>"])
    named = tokenizer_content(tmp_path / "source", ["<doc-sep>"])
    options = {"max_length": 64, "window": 8, "special_tokens": ["<doc-sep>"]}
    convert(tmp_path / "source", tmp_path / "long", **options)
    convert(tmp_path / "long", tmp_path / "longer", max_length=80, window=8)
    for folder in (tmp_path / "long", tmp_path / "longer"):
        text = "A court.<doc-sep>The </s> <other> x"
        assert read_tokenizer(folder).encode(text).ids == open_content(named).encode(text).ids
        plain = "für the court"
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        assert theirs(plain)["input_ids"] == read_tokenizer(folder).encode(plain).ids


@pytest.mark.parametrize("languages", [{"src_lang": "de_DE"}, {"tgt_lang": "de_DE"}])
def test_an_mbart_reads_its_language_behind_a_document_and_starts_with_the_summarys(
    languages: dict[str, str], tmp_path: Path
) -> None:
    unigram(transformers.MBartTokenizer, tmp_path, **languages)
    theirs = transformers.MBartTokenizer.from_pretrained(tmp_path)
    tokenizer = TextTokenizer(tokenizer_content(tmp_path))
    form, text = SummaryFormat.of(tokenizer), "the court says"
    (ids,) = tokenizer.encode_batch([text])
    read, global_tokens = source_tokens(
        ids.astype(np.int64), np.empty(0, dtype=np.int64), form.source, length=64, query_length=29
    )
    assert read.tolist() == theirs(text)["input_ids"] == read_tokenizer(tmp_path).encode(text).ids
    assert global_tokens == 1
    language = theirs.convert_tokens_to_ids("de_DE")
    # transformers moves the last label, the language, to the front: the decoder reads `language summary`.
    labels = torch.tensor([theirs(text_target=text)["input_ids"]])
    moved = transformers.models.mbart.modeling_mbart.shift_tokens_right(labels, theirs.pad_token_id)[0].tolist()
    assert moved == [form.start, *form.begin, *ids.tolist(), form.end]
    assert (form.start, form.forced_begin) == (language, None)


@pytest.mark.parametrize("languages", [{}, {"tgt_lang": "de_DE"}])
def test_an_mbart_50_is_made_to_write_the_language_of_its_summaries_first(
    languages: dict[str, str], tmp_path: Path
) -> None:
    unigram(transformers.MBart50Tokenizer, tmp_path, **languages)
    theirs = transformers.MBart50Tokenizer.from_pretrained(tmp_path)
    tokenizer = TextTokenizer(tokenizer_content(tmp_path))
    form, text = SummaryFormat.of(tokenizer), "the court says"
    (ids,) = tokenizer.encode_batch([text])
    assert [*form.source.before, *ids.tolist(), *form.source.after] == theirs(text)["input_ids"]
    written = theirs(text_target=text)["input_ids"]
    assert [*form.begin, *ids.tolist(), form.end] == written
    assert (form.start, form.forced_begin) == (2, written[0])
