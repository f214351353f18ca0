"""How queries are read: one rule for training, evaluation, prediction and serving."""

CANDIDATE_TOKENS = ("[question]", "[/question]", "[ent]", "[/ent]")
"""Stand before and behind a query, and before and behind each candidate for its answer, as in the Longformer paper."""
HOP_TOKENS = ("[question]", "[/question]", "<t>", "</t>", "[s]")
"""Stand before and behind a question, before and behind the title of every paragraph, and behind every sentence, as in
the Longformer paper."""
_ATTACHED = ((" .", "."), (" ,", ","), (" !", "!"), (" ?", "?"), ("( ", "("), (" )", ")"), (" 's", "'s"))


def normalized(text: str) -> str:
    """Returns a text without spaces before punctuation and with single ones elsewhere, as for the Longformer paper."""
    for detached, attached in _ATTACHED:
        text = text.replace(detached, attached)
    return " ".join(text.split())


def longest_query(length: int) -> int:
    """Returns how many tokens of a query are read by a model that reads `length` tokens, special ones included.

    With the tokens around it, `<s> query </s> </s>`, a query has at most half of them, and its end is left out; the
    document beside it has all the rest, however much of it the query leaves over.
    """
    return max(1, length // 2 - 3)
