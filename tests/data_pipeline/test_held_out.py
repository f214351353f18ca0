"""Held-out text: documents joined by the end token, with masks that belong to the documents."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.held_out import masked_documents
from data_pipeline.sampling.masking import IGNORED
from data_pipeline.shards.document_dataset import DocumentData


def test_what_is_hidden_is_told_by_the_labels_and_nothing_special_is(documents_once: DocumentData) -> None:
    split = documents_once.split("validation")
    tokens, labels = masked_documents(split, chosen=0.15, seed=0, limit=None)
    original = np.where(labels == IGNORED, tokens, labels)
    end = split.tokenizer.special.end
    expected = [
        np.append(split.read(shard, document, 0, int(length)), end)
        for shard in range(len(split.shards))
        for document, length in enumerate(split.lengths(shard))
    ]
    np.testing.assert_array_equal(original, np.concatenate(expected))
    assert not np.isin(labels, split.tokenizer.special.all).any()
    assert 0.12 < (labels != IGNORED).mean() < 0.18


@given(limit=st.integers(1, 500))
def test_a_limit_takes_the_beginning_and_changes_no_mask(documents_once: DocumentData, limit: int) -> None:
    split = documents_once.split("validation")
    whole = masked_documents(split, chosen=0.15, seed=0, limit=None)
    some = masked_documents(split, chosen=0.15, seed=0, limit=limit)
    for begun, all_of_it in zip(some, whole, strict=True):
        np.testing.assert_array_equal(begun, all_of_it[:limit])
