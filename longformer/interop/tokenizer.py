"""The tokenizer of a Hugging Face folder: text to token ids and back, whichever files describe it."""

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, WordPiece

from longformer.errors import LongformerError
from longformer.interop.checkpoint_files import read_json

WHOLE, VOCABULARY, MERGES, WORDS = "tokenizer.json", "vocab.json", "merges.txt", "vocab.txt"
SETTINGS = "tokenizer_config.json"
FILES = (
    WHOLE,
    VOCABULARY,
    MERGES,
    WORDS,
    SETTINGS,
    "special_tokens_map.json",
    "added_tokens.json",
    "sentencepiece.bpe.model",
)
"""All that a tokenizer may consist of."""


def tokenizer_file(directory: Path) -> Path | None:
    """Returns the file that the tokenizer is read from, or None where there is none."""
    return next((directory / name for name in (WHOLE, VOCABULARY, WORDS) if (directory / name).is_file()), None)


def read_tokenizer(directory: Path) -> Tokenizer:
    """Returns the tokenizer of a model, which adds the tokens that begin, part and end texts.

    Read are tokenizer.json, RoBERTa's vocab.json with merges.txt (without it every character is a token) and BERT's
    vocab.txt, in this order.

    Raises:
        LongformerError: there is none of them, or it is damaged.
    """
    path = tokenizer_file(directory)
    if path is None:
        raise LongformerError(
            f"{directory} holds no tokenizer that can be read ({WHOLE}, {VOCABULARY} or {WORDS}); copy it from where "
            "the model comes from"
        )
    readers = {WHOLE: whole_tokenizer, VOCABULARY: roberta_tokenizer, WORDS: bert_tokenizer}
    try:
        return readers[path.name](path)
    except KeyError as error:
        raise LongformerError(f"{path} lacks the token {error}, which begins or ends a text") from error


def whole_tokenizer(path: Path) -> Tokenizer:
    """Returns the tokenizer that tokenizer.json describes, without its limits: texts are cut elsewhere."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
    # The library raises bare Exceptions.
    except Exception as error:
        raise LongformerError(f"{path} is damaged ({error}); copy it again") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def roberta_tokenizer(path: Path) -> Tokenizer:
    """Returns the byte-level tokenizer of RoBERTa, BART, Longformer and LED."""
    vocabulary: dict[str, Any] = read_json(path)
    merges, merges_file = [], path.with_name(MERGES)
    if merges_file.is_file():
        lines = merges_file.read_text(encoding="utf-8").split("\n")
        pairs = (line.partition(" ") for line in lines if line and not line.startswith("#version"))
        merges = [(first, second) for first, _, second in pairs]
    tokenizer = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", vocabulary["</s>"]), ("<s>", vocabulary["<s>"]), add_prefix_space=False
    )
    # A mask takes the space before it, as in RoBERTa.
    words = [word for word in ("<s>", "</s>", "<pad>", "<unk>", "<mask>") if word in vocabulary]
    tokenizer.add_special_tokens([AddedToken(word, lstrip=word == "<mask>", special=True) for word in words])
    return tokenizer


def bert_tokenizer(path: Path) -> Tokenizer:
    """Returns the word-piece tokenizer of BERT and ELECTRA."""
    settings_file = path.with_name(SETTINGS)
    settings = read_json(settings_file) if settings_file.is_file() else {}
    words = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=settings.get("do_lower_case", True))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    tokenizer.add_special_tokens([word for word in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if word in words])
    return tokenizer
