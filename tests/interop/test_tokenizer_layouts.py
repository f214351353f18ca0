"""Claims: whichever files describe a tokenizer, texts of all scripts have the ids that transformers gives.

Special tokens in a text are text to us: transformers is asked with `split_special_tokens=True`, which does the same but
for Unigram, where they are pieces of the vocabulary too (see `read_as_text`).
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from longformer.interop.convert import write_tokenizer
from longformer.interop.tokenizer import read_tokenizer
from tests.interop.tokenizer_folders import LETTERS, SCRIPTS, byte_level, older_unigram, word_pieces, write_json

ADDED = ("[DEID]", "Über", "<doc-sep>", "über-wort")
UNIGRAMS = {
    "xlm-roberta": transformers.XLMRobertaTokenizer,
    "mbart": transformers.MBartTokenizer,
    "mbart50": transformers.MBart50Tokenizer,
}
CONTROLS = ("<s>", "</s>", "<pad>", "<mask>")
CLASSES = {
    "bert": ("BertTokenizer", "BertTokenizerFast"),
    "roberta": ("RobertaTokenizer", "RobertaTokenizerFast"),
    "bart": ("BartTokenizer", "BartTokenizerFast"),
    "led": ("LEDTokenizer", "LEDTokenizerFast"),
    "xlm-roberta": ("XLMRobertaTokenizer", "XLMRobertaTokenizerFast", "PreTrainedTokenizerFast"),
    "mbart": ("MBartTokenizer", "MBartTokenizerFast"),
    "mbart50": ("MBart50Tokenizer", "MBart50TokenizerFast"),
}
SNIPPETS = ("the ", " the", "  a  b", "[deid]", "<x>", "<y>", "Ü ü", *CONTROLS, *ADDED, *SCRIPTS.values())
TEXTS = st.lists(
    st.one_of(
        st.sampled_from(SNIPPETS),
        st.text(alphabet=LETTERS, max_size=8),
        st.sampled_from([*SCRIPTS.values()]).flatmap(lambda script: st.text(alphabet=script, max_size=8)),
        st.text(max_size=4),
    ),
    min_size=1,
    max_size=8,
).map("".join)
TOKENS = st.lists(st.sampled_from([*ADDED, "<x>", "<y>"]), max_size=3, unique=True)


def some(names: tuple[str, ...], values: st.SearchStrategy[Any] | None = None) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, st.booleans() if values is None else values))


@st.composite
def layouts(draw: st.DrawFn, family: str) -> dict[str, Any]:
    """Draws what the files of a folder say."""
    config = draw(some(("add_prefix_space", "do_lower_case", "strip_accents", "tokenize_chinese_chars")))
    config |= draw(some(("additional_special_tokens", "extra_special_tokens"), TOKENS))
    config |= draw(some(("tokenizer_class",), st.sampled_from(CLASSES[family])))
    if family == "mbart50":  # which no config.json names
        config["tokenizer_class"] = draw(st.sampled_from(CLASSES[family]))
    if family.startswith("mbart"):
        config |= draw(some(("src_lang", "tgt_lang"), st.sampled_from(["de_DE", "ru_RU"])))
    return {
        "config": config,
        "added": draw(st.lists(st.sampled_from(ADDED), max_size=4, unique=True)),
        "flags": draw(
            st.none() | st.lists(some(("special", "lstrip", "rstrip", "normalized")), min_size=4, max_size=4)
        ),
        "map": draw(st.none() | some(("additional_special_tokens", "extra_special_tokens"), TOKENS)),
        "normalizer": draw(st.sampled_from([None, "charsmap", "charsmap and spaces", "NFKC"])),
        "by_words": draw(st.booleans()),
        "saved": draw(st.sampled_from(["no", "alone", "beside"])),
    }


def write(folder: Path, family: str, layout: dict[str, Any]) -> None:
    """Writes the folder of a layout."""
    if family == "bert":
        word_pieces(folder)
    elif family in UNIGRAMS:
        older_unigram(UNIGRAMS[family], folder, normalizer=layout["normalizer"], by_words=layout["by_words"])
    else:
        byte_level(folder)
    write_json(folder / "config.json", {"model_type": "mbart" if family == "mbart50" else family})
    size = len(transformers.AutoTokenizer.from_pretrained(folder))
    added = {token: size + number for number, token in enumerate(layout["added"])}
    config = dict(layout["config"])
    if layout["flags"] is None:
        write_json(folder / "added_tokens.json", added)
    else:
        listed = zip(added, layout["flags"], strict=False)
        config["added_tokens_decoder"] = {
            str(added[token]): {"content": token, "special": False, **flags} for token, flags in listed
        }
    write_json(folder / "tokenizer_config.json", config)
    if layout["map"] is not None:
        write_json(folder / "special_tokens_map.json", layout["map"])
    if layout["saved"] != "no":
        saved = folder / "saved"
        transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(saved)
        names = ["tokenizer.json"] if layout["saved"] == "beside" else [path.name for path in saved.iterdir()]
        if layout["saved"] == "alone":
            for path in folder.glob("*.*"):
                if path.name != "config.json":
                    path.unlink()
        for name in names:
            shutil.move(saved / name, folder / name)


def read_as_text(tokenizer: Any) -> Tokenizer:
    """Returns a Unigram tokenizer of transformers to which SentencePiece's control pieces are too improbable."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = [[piece, -1e6 if piece in CONTROLS else score] for piece, score in vocabulary]
    reading = Tokenizer.from_str(json.dumps(content))
    reading.encode_special_tokens = True
    return reading


@pytest.mark.parametrize("family", CLASSES)
@given(data=st.data(), texts=st.lists(TEXTS, min_size=10, max_size=10))
@settings(max_examples=15)
def test_any_layout_gives_the_ids_of_transformers(
    tmp_path_factory: pytest.TempPathFactory, family: str, data: st.DataObject, texts: list[str]
) -> None:
    folder, converted = tmp_path_factory.mktemp("layout"), tmp_path_factory.mktemp("converted")
    write(folder, family, data.draw(layouts(family)))
    theirs = transformers.AutoTokenizer.from_pretrained(folder, split_special_tokens=True)
    write_tokenizer(folder, converted, CLASSES[family][0], 4096, None)
    ours, again = read_tokenizer(folder), read_tokenizer(converted)
    plain = read_as_text(theirs) if family in UNIGRAMS else None
    for text in texts:
        expected = theirs(text)["input_ids"]
        if plain is not None and any(control in text for control in CONTROLS):
            expected = plain.encode(text).ids
        assert ours.encode(text).ids == expected == again.encode(text).ids, text
