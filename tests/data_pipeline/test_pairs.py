"""Two texts as one sequence: the ids and token types that transformers gives them with the model's own tokenizer."""

from pathlib import Path

import pytest
import transformers

from data_pipeline.sampling.pairs import paired
from data_pipeline.tokenizers.subword import TextTokenizer
from longformer.interop.tokenizer import tokenizer_content
from tests.interop.tokenizer_folders import byte_level, word_pieces

FAMILIES = {"RobertaTokenizer": byte_level, "BertTokenizer": word_pieces}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_pair_is_what_transformers_makes_of_it(name: str, tmp_path: Path) -> None:
    FAMILIES[name](tmp_path)
    question, text = "who sleeps there?", "the cat, at noon"
    theirs = getattr(transformers, name).from_pretrained(tmp_path)(question, text, return_token_type_ids=True)
    ours = TextTokenizer(tokenizer_content(tmp_path))
    pair = paired(*ours.encode_batch([question, text]), ours.format)
    assert pair.ids.tolist() == theirs["input_ids"]
    assert pair.types.tolist() == theirs["token_type_ids"]
    assert max(pair.types) == (name == "BertTokenizer")
