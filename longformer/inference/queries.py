"""How much of a query is read: one rule for training, evaluation, prediction and serving."""


def longest_query(length: int) -> int:
    """Returns how many tokens of a query are read by a model that reads `length` tokens, special ones included.

    With the tokens around it, `<s> query </s> </s>`, a query has at most half of them, and its end is left out; the
    document beside it has all the rest, however much of it the query leaves over.
    """
    return max(1, length // 2 - 3)
