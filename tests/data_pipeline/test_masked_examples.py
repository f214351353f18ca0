"""Text for evaluation: documents joined by the end token, with masks that belong to the documents."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.sampling.masking import IGNORED, masked_examples
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.sources.corpora import TEXT


def test_what_is_hidden_is_told_by_the_labels_and_nothing_special_is(documents_once: PreparedData) -> None:
    split = documents_once.split("validation")
    tokens, labels = masked_examples(split, chosen=0.15, seed=0, limit=None)
    original = np.where(labels == IGNORED, tokens, labels)
    end = split.tokenizer.special_tokens.end
    expected = [np.append(example.tokens[TEXT], end) for example in split.examples()]
    np.testing.assert_array_equal(original, np.concatenate(expected))
    assert not np.isin(labels, split.tokenizer.special_tokens.all).any()
    assert 0.12 < (labels != IGNORED).mean() < 0.18


@given(limit=st.integers(1, 500))
def test_a_limit_takes_the_beginning_and_changes_no_mask(documents_once: PreparedData, limit: int) -> None:
    split = documents_once.split("validation")
    whole = masked_examples(split, chosen=0.15, seed=0, limit=None)
    some = masked_examples(split, chosen=0.15, seed=0, limit=limit)
    for begun, all_of_it in zip(some, whole, strict=True):
        np.testing.assert_array_equal(begun, all_of_it[:limit])
