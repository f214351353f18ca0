"""The tokenizer of a Hugging Face folder: one tokenizer.json, whichever files describe it.

Training, evaluation, prediction and serving all read text by the content that `tokenizer_content` returns. Its ids are
those of transformers, with one rule of our own: what looks like a special token in a document, such as `</s>`, is text,
unless the user names it (`data.special_tokens`).
"""

import json
from base64 import b64decode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, WordPiece

from longformer.errors import LongformerError
from longformer.files import read_json
from longformer.interop.added_tokens import ADDED, MAP, SETTINGS, added_tokens, content_of, read_settings
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
_UNIGRAM = ("XLMRobertaTokenizer", "MBartTokenizer", "MBart50Tokenizer")
_BERT_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
_ROBERTA_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    # It takes the space before it, as in RoBERTa.
    "mask_token": {"content": "<mask>", "lstrip": True},
}
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


def for_words(content: str) -> str:
    """Returns the content of a tokenizer.json whose tokenizer is given words one by one, and reads them as in a text.

    A byte-level one puts a space before each, as transformers asks for (`add_prefix_space=True`) where texts are split
    into words; others need none, or do so by themselves.
    """
    whole = json.loads(content)
    parts = [whole["pre_tokenizer"]]
    while parts:
        part = parts.pop() or {}
        parts += part.get("pretokenizers", [])
        if part.get("type") == "ByteLevel":
            part["add_prefix_space"] = True
    return json.dumps(whole, ensure_ascii=False)


def with_tokens(content: str, tokens: Sequence[str]) -> str:
    """Returns the content of a tokenizer.json with further special tokens, which get the next ids; those that it has
    already keep theirs. In a document they are text."""
    if not tokens:
        return content
    tokenizer = Tokenizer.from_str(content)
    tokenizer.add_tokens([AddedToken(token, special=True) for token in tokens if tokenizer.token_to_id(token) is None])
    return tokenizer.to_str()


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
    tokens: Mapping[str, Any] = {}
    if kind == "WordPiece" and name in _BERT:
        words = whole["model"]["vocab"] if whole else WordPiece.read_file(str(file))
        tokenizer, tokens = _bert(words, settings), _BERT_TOKENS
    elif kind == "BPE" and name in _ROBERTA:
        tokenizer, tokens = _roberta(_pairs(file, whole), settings), _ROBERTA_TOKENS
    elif kind == "Unigram" and name in _UNIGRAM:
        tokenizer, tokens = _unigram(whole, name, settings), _ROBERTA_TOKENS
    elif whole:
        tokenizer = Tokenizer.from_str(json.dumps(whole))
    else:
        raise LongformerError(_other_kind(file.parent, name))
    for part in ("truncation", "padding"):
        if whole.get(part) and tokens:
            limits = json.loads(tokenizer.to_str()) | {part: whole[part]}
            tokenizer = Tokenizer.from_str(json.dumps(limits))
    known = tokenizer.get_vocab()
    settings = {role: token for role, token in tokens.items() if content_of(token) in known} | dict(settings)
    present = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    for token in added_tokens(directory, settings, whole.get("added_tokens", []), present):
        tokenizer.add_tokens([token])
    if name.startswith("MBart"):
        _set_language(tokenizer, name, settings)
    elif name == "XLMRobertaTokenizer":
        _set_ends(tokenizer, settings)
    return tokenizer


def _class_name(file: Path, settings: Mapping[str, Any]) -> str:
    """Returns the class of transformers that would read the tokenizer; without a name the files tell."""
    if settings.get("tokenizer_class"):
        return str(settings["tokenizer_class"]).removesuffix("Fast")
    config = file.with_name("config.json")
    model = read_json(config) if config.is_file() else {}
    if model.get("tokenizer_class"):
        return str(model["tokenizer_class"]).removesuffix("Fast")
    by_file = {VOCABULARY: "RobertaTokenizer", WORDS: "BertTokenizer"}
    return _CLASSES.get(str(model.get("model_type")), by_file.get(file.name, "PreTrainedTokenizer"))


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


def _unigram(whole: Mapping[str, Any], name: str, settings: Mapping[str, Any]) -> Tokenizer:
    """Returns the tokenizer of XLM-R, mBART and mBART-50, of which transformers takes no more than the pieces and, but
    for mBART, SentencePiece's own normalizer from a tokenizer.json."""
    model = {**whole["model"], "unk_id": 3, "byte_fallback": False}
    tokenizer = Tokenizer.from_str(json.dumps({**whole, "model": model, "normalizer": None, "added_tokens": []}))
    first = whole.get("normalizer") or {}
    charsmaps = [part for part in first.get("normalizers", [first]) if part.get("type") == "Precompiled"]
    parts: list[Any] = [normalizers.Precompiled(b64decode(part["precompiled_charsmap"])) for part in charsmaps[:1]]
    scheme = "always"
    words: list[Any] = [pre_tokenizers.WhitespaceSplit()]
    if name == "MBart50Tokenizer":
        parts.append(normalizers.Replace(Regex(" {2,}"), " "))
        words = []
    elif name == "MBartTokenizer":
        parts = []
    elif not settings.get("add_prefix_space", True):
        scheme = "never"
    if parts:
        tokenizer.normalizer = normalizers.Sequence(parts)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*words, pre_tokenizers.Metaspace(prepend_scheme=scheme)])
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
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
    """Ends (mBART) or begins (mBART-50) every text with the source language, as transformers does.

    The target's language is in the template's list of tokens without standing in it: that is how who writes summaries
    learns of it, from the tokenizer alone.
    """
    language, end = str(settings.get("src_lang") or "en_XX"), _named(settings, "eos_token", "</s>")
    if tokenizer.token_to_id(language) is None and not settings.get("src_lang"):
        return  # none of mBART's vocabularies
    before, after = ([language], [end]) if name.startswith("MBart50") else ([], [end, language])
    words = dict.fromkeys((*before, *after, str(settings.get("tgt_lang") or language)))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *after],
        pair=[*before, "$A", "$B", *after],
        special_tokens=[(word, _id(tokenizer, word)) for word in words],
    )


def _named(settings: Mapping[str, Any], role: str, otherwise: str) -> str:
    return content_of(settings.get(role) or otherwise)


def _id(tokenizer: Tokenizer, word: str) -> int:
    found = tokenizer.token_to_id(word)
    if found is None:
        raise KeyError(word)
    return found
