"""What looks like a special token in a document: text, or the token where the user says so."""

import json
import re
from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Tokenizer

from longformer.errors import LongformerError


def as_tokens(tokenizer: Tokenizer, names: Sequence[str], source: str) -> Tokenizer:
    """Returns the tokenizer that reads special tokens of these names in a document as the tokens.

    To the library a token is special or found in documents, not both.

    Raises:
        LongformerError: the tokenizer, which errors call `source`, lacks one of them.
    """
    if not names:
        return tokenizer
    added = {token.content: number for number, token in tokenizer.get_added_tokens_decoder().items()}
    for name in names:
        if tokenizer.token_to_id(name) is None:
            raise LongformerError(
                f"the tokenizer of {source} has no token {name}; its special tokens are {', '.join(sorted(added))}"
            )
        if name not in added:
            tokenizer.add_tokens([AddedToken(name, normalized=False)])
    content = json.loads(tokenizer.to_str())
    for token in content["added_tokens"]:
        token["special"] = token["special"] and token["content"] not in names
    return Tokenizer.from_str(json.dumps(content, ensure_ascii=False))


def as_text(tokenizer: Tokenizer) -> Tokenizer:
    """Returns the tokenizer that reads all other special tokens in a document as text, and all else as before.

    The library leaves them to the model (`encode_special_tokens`). A Unigram model may hold them as pieces, with the
    best of all scores: their text is then cut in two, where no other piece reaches across. All pieces keep their ids
    and scores, on which the score of an unknown character depends.
    """
    tokenizer.encode_special_tokens = True
    pieces = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
    found = [piece for piece in pieces if _is_found(tokenizer, piece)]
    if not found:
        return tokenizer
    others = set(tokenizer.get_vocab()).difference(pieces)
    cuts = [_cut(piece, others) for piece in sorted(found, key=len, reverse=True) if len(piece) > 1]
    content = json.loads(tokenizer.to_str())
    split = {"type": "Split", "pattern": {"Regex": "|".join(cuts)}, "behavior": "Isolated", "invert": False}
    before = content["pre_tokenizer"]
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [before, split]} if before else split
    return Tokenizer.from_str(json.dumps(content, ensure_ascii=False))


def _is_found(tokenizer: Tokenizer, piece: str) -> bool:
    number = tokenizer.token_to_id(piece)
    contexts = (piece, f"a {piece} a", f"a{piece}a")
    return any(number in tokenizer.encode(text, add_special_tokens=False).ids for text in contexts)


def _cut(piece: str, others: Iterable[str]) -> str:
    """Returns a pattern of no width, in the middle of a piece where the fewest other pieces reach across."""
    pairs = [piece[place - 1 : place + 1] for place in range(1, len(piece))]
    reaching = [0] * len(pairs)
    for other in others:
        for index, pair in enumerate(pairs):
            reaching[index] += pair in other
    place = 1 + reaching.index(min(reaching))
    return f"(?<={re.escape(piece[:place])})(?={re.escape(piece[place:])})"
