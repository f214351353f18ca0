"""Claims about the clusters that the words of a document give without a network."""

from longformer.evaluation.coreference_baselines import english_mentions, matched_clusters, single_clusters

SENTENCES = [
    "Then Mr. Pip walked to the old house .",
    "Nobody saw Mr. Pip near that small house , and he knocked .",
    "Pip had his best coat , which Estella mended .",
    '" Well , " said Estella , " my coat is a little worn . "',
]
WORDS = " ".join(SENTENCES).split()
LENGTHS = [len(sentence.split()) for sentence in SENTENCES]


def test_names_and_nominals_are_found_by_their_words() -> None:
    assert [text(mention) for mention in english_mentions(WORDS, LENGTHS)] == [
        "Mr. Pip", "the old house", "Mr. Pip", "that small house", "Pip", "his best coat", "Estella", "Estella",
        "my coat", "a little worn",
    ]  # fmt: skip


def test_names_match_by_all_their_words_and_nominals_by_their_heads() -> None:
    mentions = english_mentions(WORDS, LENGTHS)
    pronouns = [(place, place) for place, word in enumerate(WORDS) if word in ("he", "his", "my")]
    clusters = matched_clusters(WORDS, [*mentions, *pronouns])
    assert [[text(mention) for mention in cluster] for cluster in clusters] == [
        ["Mr. Pip", "Mr. Pip"], ["the old house", "that small house"], ["Pip"], ["his best coat", "my coat"],
        ["Estella", "Estella"], ["a little worn"], ["he"], ["his"], ["my"],
    ]  # fmt: skip
    assert single_clusters(mentions[:2]) == [mentions[:1], mentions[1:2]]


def text(mention: tuple[int, int]) -> str:
    return " ".join(WORDS[mention[0] : mention[1] + 1])
