"""The tokenizer of a Hugging Face folder: one tokenizer.json, whichever files describe it.

Training, evaluation, prediction and serving all read text by the content that `tokenizer_content` returns. Its ids are
those of transformers, with one rule of our own: what looks like a special token in a document, such as `</s>`, is text,
unless the user names it (`data.special_tokens`).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, WordPiece

from longformer.errors import LongformerError
from longformer.files import read_json
from longformer.interop.added_tokens import ADDED, MAP, SETTINGS, added_tokens, read_settings
from longformer.interop.special_text import as_text, as_tokens

WHOLE, VOCABULARY, MERGES, WORDS = "tokenizer.json", "vocab.json", "merges.txt", "vocab.txt"
FILES = (WHOLE, VOCABULARY, MERGES, WORDS, SETTINGS, MAP, ADDED, "sentencepiece.bpe.model")
"""All that a tokenizer may consist of."""
NAMED = "special_tokens_in_documents"
"""Key of tokenizer_config.json: the special tokens that stand for themselves in documents."""

# Classes of transformers that build a tokenizer of their own out of a vocabulary and settings, even where there is a
# tokenizer.json (transformers 5, TokenizersBackend.convert_to_native_format).
_BERT = ("BertTokenizer", "ElectraTokenizer", "DistilBertTokenizer")
_ROBERTA = ("RobertaTokenizer", "BartTokenizer", "LEDTokenizer", "LongformerTokenizer")
_CLASSES = {
    "bert": "BertTokenizer",
    "electra": "ElectraTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "bart": "BartTokenizer",
    "led": "LEDTokenizer",
    "longformer": "LongformerTokenizer",
    "mbart": "MBartTokenizer",
}
_UNREADABLE = {
    "sentencepiece.bpe.model": "SentencePiece",
    "spiece.model": "SentencePiece",
    "spm.model": "SentencePiece",
    "tokenizer.model": "SentencePiece",
    "bpe.codes": "fastBPE (PhoBERT)",
}


def tokenizer_file(directory: Path) -> Path | None:
    """Returns the file that the tokenizer is read from, or None where there is none."""
    names = (WHOLE, VOCABULARY) if (directory / "bpe.codes").is_file() else (WHOLE, VOCABULARY, WORDS)
    return next((directory / name for name in names if (directory / name).is_file()), None)


def has_tokenizer(directory: Path) -> bool:
    """Returns whether a folder holds a tokenizer, one that can be read or one that cannot."""
    return any((directory / name).is_file() for name in (*FILES, *_UNREADABLE) if name not in (SETTINGS, MAP))


def tokenizer_content(path: Path, special_tokens: Sequence[str] | None = None) -> str:
    """Returns the tokenizer of a folder, or of a tokenizer.json, as the content of one tokenizer.json.

    Read are tokenizer.json, RoBERTa's vocab.json with merges.txt (without it every character is a token) and BERT's
    vocab.txt, in this order, with the settings and added tokens beside them.

    Args:
        path: a folder or a tokenizer.json.
        special_tokens: special tokens that stand for themselves in documents; None: those that the folder names.

    Raises:
        LongformerError: there is no tokenizer, it is damaged or of a kind that cannot be read, or it lacks one of
            `special_tokens`.
    """
    directory = path if path.is_dir() else None
    file = tokenizer_file(path) if path.is_dir() else path
    if file is None or not file.is_file():
        raise LongformerError(_missing(path))
    settings = {} if directory is None else read_settings(directory)
    named = settings.get(NAMED, []) if special_tokens is None else special_tokens
    try:
        tokenizer = _tokenizer(file, directory, settings)
        return as_text(as_tokens(tokenizer, named, str(path))).to_str()
    except LongformerError:
        raise
    except KeyError as error:
        raise LongformerError(f"{file} lacks the token {error}, which begins or ends a text") from error
    # The library raises bare Exceptions.
    except Exception as error:
        raise LongformerError(f"{file} is damaged ({error}); copy it again") from error


def read_tokenizer(directory: Path) -> Tokenizer:
    """Returns the tokenizer of a model, which adds the tokens that begin, part and end texts, and cuts none.

    Raises:
        LongformerError: as `tokenizer_content`.
    """
    return open_content(tokenizer_content(directory))


def open_content(content: str) -> Tokenizer:
    """Returns the tokenizer of the content of a tokenizer.json; special tokens in a text are text."""
    tokenizer = Tokenizer.from_str(content)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def _missing(path: Path) -> str:
    for name, kind in _UNREADABLE.items():
        if (path / name).is_file():
            return _other_kind(path, f"{kind} only ({name})")
    return (
        f"{path} holds no tokenizer that can be read ({WHOLE}, {VOCABULARY} or {WORDS}); copy it from where "
        "the model comes from"
    )


def _other_kind(folder: Path, kind: str) -> str:
    return (
        f"{folder} holds a tokenizer of {kind}, which cannot be read: where transformers and what it needs for that "
        f"are installed, write {WHOLE} with `AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)`; if that "
        "writes none, as for PhoBERT, take another model"
    )


def _tokenizer(file: Path, directory: Path | None, settings: Mapping[str, Any]) -> Tokenizer:
    whole = json.loads(file.read_bytes()) if file.name not in (VOCABULARY, WORDS) else {}
    name = _class_name(file, settings)
    kind = whole.get("model", {}).get("type") if whole else {VOCABULARY: "BPE", WORDS: "WordPiece"}[file.name]
    standard: tuple[str, ...] = ()
    if kind == "WordPiece" and name in _BERT:
        words = whole["model"]["vocab"] if whole else WordPiece.read_file(str(file))
        tokenizer, standard = _bert(words, settings), ("[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]")
    elif kind == "BPE" and name in _ROBERTA:
        tokenizer, standard = _roberta(_pairs(file, whole), settings), ("<s>", "</s>", "<unk>", "<pad>", "<mask>")
    elif whole:
        tokenizer = Tokenizer.from_str(json.dumps(whole))
    else:
        raise LongformerError(_other_kind(file.parent, name))
    for part in ("truncation", "padding"):
        if whole.get(part) and standard:
            limits = json.loads(tokenizer.to_str()) | {part: whole[part]}
            tokenizer = Tokenizer.from_str(json.dumps(limits))
    known = tokenizer.get_vocab()
    for token in added_tokens(directory, settings, whole.get("added_tokens", [])):
        if standard or token.content not in known:
            tokenizer.add_tokens([token])
    for word in standard:
        # A mask takes the space before it, as in RoBERTa.
        token = AddedToken(word, lstrip=word == "<mask>", special=True)
        if word in known and word not in _added(tokenizer):
            tokenizer.add_special_tokens([token])
    if name.startswith("MBart"):
        _set_language(tokenizer, name, settings)
    elif name == "XLMRobertaTokenizer":
        _set_ends(tokenizer, settings)
    return tokenizer


def _added(tokenizer: Tokenizer) -> set[str]:
    return {token.content for token in tokenizer.get_added_tokens_decoder().values()}


def _class_name(file: Path, settings: Mapping[str, Any]) -> str:
    """Returns the class of transformers that would read the tokenizer; without a name the files tell."""
    if settings.get("tokenizer_class"):
        return str(settings["tokenizer_class"]).removesuffix("Fast")
    config = file.with_name("config.json")
    family = read_json(config).get("model_type") if config.is_file() else None
    by_file = {VOCABULARY: "RobertaTokenizer", WORDS: "BertTokenizer"}
    return _CLASSES.get(str(family), by_file.get(file.name, "PreTrainedTokenizer"))


def _pairs(file: Path, whole: Mapping[str, Any]) -> BPE:
    options: dict[str, Any] = {"continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": False}
    if whole:
        pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in whole["model"]["merges"])
        merges = [(first, second) for first, second in pairs]
        return BPE(whole["model"]["vocab"], merges, unk_token=whole["model"].get("unk_token"), **options)
    if file.with_name(MERGES).is_file():
        return BPE(*BPE.read_file(str(file), str(file.with_name(MERGES))), **options)
    return BPE(read_json(file), [], unk_token="<unk>", **options)


def _roberta(model: BPE, settings: Mapping[str, Any]) -> Tokenizer:
    """Returns the byte-level tokenizer of RoBERTa, BART, Longformer and LED."""
    tokenizer = Tokenizer(model)
    prefix = bool(settings.get("add_prefix_space", False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    begin, end = _named(settings, "cls_token", "<s>"), _named(settings, "sep_token", "</s>")
    tokenizer.post_processor = processors.RobertaProcessing(
        (end, _id(tokenizer, end)),
        (begin, _id(tokenizer, begin)),
        trim_offsets=bool(settings.get("trim_offsets", True)),
        add_prefix_space=prefix,
    )
    return tokenizer


def _bert(vocabulary: dict[str, int], settings: Mapping[str, Any]) -> Tokenizer:
    """Returns the word-piece tokenizer of BERT and ELECTRA."""
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token=_named(settings, "unk_token", "[UNK]")))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    begin, end = _named(settings, "cls_token", "[CLS]"), _named(settings, "sep_token", "[SEP]")
    tokenizer.post_processor = processors.BertProcessing((end, _id(tokenizer, end)), (begin, _id(tokenizer, begin)))
    return tokenizer


def _set_ends(tokenizer: Tokenizer, settings: Mapping[str, Any]) -> None:
    """Puts around texts what XLM-R reads, as transformers does whatever tokenizer.json says."""
    begin, end = _named(settings, "bos_token", "<s>"), _named(settings, "eos_token", "</s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[begin, "$A", end],
        pair=[begin, "$A", end, end, "$B", end],
        special_tokens=[(word, _id(tokenizer, word)) for word in (begin, end)],
    )


def _set_language(tokenizer: Tokenizer, name: str, settings: Mapping[str, Any]) -> None:
    """Ends (mBART) or begins (mBART-50) every text with the source language, as transformers does."""
    language, end = str(settings.get("src_lang") or "en_XX"), _named(settings, "eos_token", "</s>")
    if tokenizer.token_to_id(language) is None and not settings.get("src_lang"):
        return  # none of mBART's vocabularies
    before, after = ([language], [end]) if name.startswith("MBart50") else ([], [end, language])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *after],
        pair=[*before, "$A", "$B", *after],
        special_tokens=[(word, _id(tokenizer, word)) for word in (*before, *after)],
    )


def _named(settings: Mapping[str, Any], role: str, otherwise: str) -> str:
    token = settings.get(role) or otherwise
    return str(token["content"] if isinstance(token, dict) else token)


def _id(tokenizer: Tokenizer, word: str) -> int:
    found = tokenizer.token_to_id(word)
    if found is None:
        raise KeyError(word)
    return found
