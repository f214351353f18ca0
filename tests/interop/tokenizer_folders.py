"""Small tokenizers of every kind, as files in a folder; their vocabularies hold the letters of many scripts."""

import json
import struct
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

LETTERS = "abcdefghijklmnopqrstuvwxyzäüé0123456789<>/[]_.,-"
SCRIPTS = {
    "accents": "naïve café Ünïcode ÄÖÜ ß",
    "compatibility": "ﬁ \uff21\uff11 ½ ™",
    "combining": "e\u0301a\u0308\u0323",
    "cyrillic": "Привет, мир Ёж",
    "greek": "Ελληνικά ΑΒΓ",
    "arabic": "مرحبا بالعالم",
    "hebrew": "שָׁלוֹם עולם",
    "devanagari": "नमस्ते दुनिया",
    "thai": "สวัสดีชาวโลก",
    "chinese": "你好世界中文",
    "japanese": "こんにちは カタカナ 日本",
    "korean": "안녕하세요 한국어",
    "emoji": "😀👨\u200d👩\u200d👧🇩🇪",
    "control": "\x00\x07\x1f\x7f\u200b\ufeff\ufffd",
    "spaces": "\t\t  \n\r\n \u00a0\u2003\u3000",
}
_ALPHABET = dict.fromkeys(
    LETTERS + LETTERS.upper() + "".join(sorted(set("".join(SCRIPTS.values())) - set("\0\t\n\r ")))
)


def byte_level(folder: Path, **config: object) -> None:
    """Writes vocab.json and merges.txt of a small RoBERTa, and tokenizer_config.json."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<s>", "<pad>", "</s>", "<unk>", *alphabet, "Ġt", "he", "Ġthe", "<mask>"]
    write_json(folder / "vocab.json", {word: number for number, word in enumerate(words)})
    (folder / "merges.txt").write_text("#version: 0.2\nĠ t\nh e\nĠt he\n", encoding="utf-8")
    write_json(folder / "tokenizer_config.json", config)


def word_pieces(folder: Path, **config: object) -> None:
    """Writes vocab.txt of a small BERT, and tokenizer_config.json."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_ALPHABET, *(f"##{each}" for each in _ALPHABET), "uber"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    write_json(folder / "tokenizer_config.json", config)


def unigram(cls: type, folder: Path, **settings: object) -> Any:
    """Returns a small tokenizer of XLM-R or mBART, saved in a folder, whose special tokens are its best pieces."""
    tokenizer = cls(vocab=_pieces(cls), **settings)
    tokenizer.save_pretrained(folder)
    return tokenizer


def older_unigram(cls: type, folder: Path, *, normalizer: str | None, by_words: bool, **config: object) -> None:
    """Writes tokenizer.json of a small XLM-R or mBART as releases before 5 did, and tokenizer_config.json.

    Args:
        normalizer: SentencePiece's own (`charsmap`), that and the one of double spaces (`charsmap and spaces`), or
            NFKC, which it never has.
        by_words: whether texts are split at spaces first.
    """
    tokenizer = Tokenizer(models.Unigram(_pieces(cls), unk_id=3))
    charsmap = normalizers.Precompiled(
        _charsmap({"ﬁ": "fi", "\uff21": "A", "\uff11": "1", "\u00a0": " ", "e\u0301": "é"})
    )
    spaces = normalizers.Replace("  ", " ")
    if normalizer is not None:
        tokenizer.normalizer = {
            "charsmap": charsmap,
            "charsmap and spaces": normalizers.Sequence([charsmap, spaces]),
            "NFKC": normalizers.NFKC(),
        }[normalizer]
    words = [pre_tokenizers.WhitespaceSplit()] if by_words else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*words, pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", *_languages(cls), "<mask>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", config)


def write_json(path: Path, content: object) -> None:
    """Writes a file of JSON, all letters as they are."""
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _pieces(cls: type) -> list[tuple[str, float]]:
    best = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [(piece, 0.0) for piece in best] + [("▁", -2.0), ("▁the", -3.0), ("▁▁", -3.5), ("/s", -4.0), ("fi", -4.0)]
    pieces += [
        (letter, -5.0 - index / 100) for index, letter in enumerate(_ALPHABET) if letter not in "ﬁ\uff21\uff11\u0301"
    ]
    return [*pieces, *((language, 0.0) for language in _languages(cls)), ("<mask>", 0.0)]


def _languages(cls: type) -> list[str]:
    if cls is transformers.XLMRobertaTokenizer:
        return []
    codes: list[str] = __import__(cls.__module__, fromlist=["_"]).FAIRSEQ_LANGUAGE_CODES
    return codes


def _charsmap(replaced: dict[str, str]) -> bytes:
    """Returns SentencePiece's `precompiled_charsmap`: a double array (256 places for the next bytes of every beginning
    of a key) and the texts, each ended by a NUL."""
    beginnings = {key.encode()[:length] for key in replaced for length in range(len(key.encode()) + 1)}
    block = {beginning: 256 * number for number, beginning in enumerate(sorted(beginnings), 1)}
    units, texts = {}, b""
    for beginning, own in block.items():
        place = block[beginning[:-1]] ^ beginning[-1] if beginning else 0
        units[place] = (place ^ own) << 10 | (beginning[-1] if beginning else 0)
        if beginning.decode(errors="replace") in replaced:
            units[place] |= 1 << 8
            units[own] = 1 << 31 | len(texts)
            texts += replaced[beginning.decode()].encode() + b"\0"
    array = b"".join(struct.pack("<I", units.get(place, 0)) for place in range(256 * (len(block) + 1)))
    return struct.pack("<I", len(array)) + array + texts
