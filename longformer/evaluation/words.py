"""Words and sentences of texts in any language, as ROUGE counts them."""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import regex

Tokenizer = Literal["default", "unicode", "model"]
_ENGLISH = "en"
_DEFAULT_WORD = regex.compile(r"[a-z0-9]+")
# Scripts without spaces between words are counted by characters. Marks belong to the letter before them: vowels of
# Hindi are marks.
_UNICODE_WORD = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*"
    r"|[[\p{L}\p{M}\p{N}]--[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]]+",
    regex.V1,
)
_JOINERS = regex.compile("[\u200c\u200d]")
_UNSPACED_END = regex.compile("[。！？｡।॥」』”]")  # noqa: RUF001
"""Behind these a sentence ends without a space."""
_LETTER = regex.compile(r"\p{L}")
_SURE = 0.5
"""Least probability at which a language is believed; below it is taken for English."""
_LANGUAGE_CHARACTERS = 20_000


@dataclass(frozen=True)
class TextUnits:
    """How texts are taken apart into words and sentences."""

    tokenizer: Tokenizer = "default"
    """`default`: Google's, a-z and 0-9; `unicode`: letters, marks and digits of all scripts, one character each where
    no spaces stand between words; `model`: pieces of the model's tokenizer."""
    language: str = _ENGLISH
    """ISO 639 code; decides which abbreviations end no sentence."""
    encode: Callable[[str], Sequence[int]] | None = None
    """The model's tokenizer; only for `model`."""

    def words(self, text: str) -> list[str]:
        """Returns the words of a text, in order."""
        if self.tokenizer == "default":
            return _DEFAULT_WORD.findall(text.lower())
        if self.tokenizer == "unicode":
            plain = unicodedata.normalize("NFKC", _JOINERS.sub("", text)).casefold()
            return _UNICODE_WORD.findall(plain)
        if self.encode is None:
            raise ValueError("tokenizer `model` needs the model's encode")
        return list(map(str, self.encode(text)))

    def sentences(self, text: str) -> list[str]:
        """Returns a text's sentences, which end at line ends and where the rules of the language say so."""
        from sentencex import segment

        found: list[str] = []
        for line in text.splitlines():
            end = 0
            for part in filter(None, map(str.strip, segment(self.language, line))):
                start = line.index(part, end)
                # The library also cuts behind quotation marks inside a word, such as 5'-end.
                if 0 < start == end and not _UNSPACED_END.search(line, start - 1, start):
                    found[-1] += part
                else:
                    found.append(part)
                end = start + len(part)
        return found


def text_units(
    references: Sequence[str],
    tokenizer: Tokenizer | None = None,
    encode: Callable[[str], Sequence[int]] | None = None,
) -> TextUnits:
    """Returns how texts are taken apart whose references are these.

    Args:
        references: what people wrote.
        tokenizer: None: `default`, by which published figures of English are counted, where the references are English
            or have no letters but a-z; `unicode` otherwise.
        encode: the model's tokenizer, for `model`.

    Raises:
        ValueError: the tokenizer finds no word in one of the references: its score would be 0 whatever is written.
    """
    language = _language(" ".join(references)[:_LANGUAGE_CHARACTERS])
    default = TextUnits("default", language)
    if tokenizer is None:
        letters = _LETTER.findall("".join(references))
        is_plain = all(map(str.isascii, letters)) or language == _ENGLISH
        tokenizer = "default" if is_plain and not _without_words(default, references) else "unicode"
    units = TextUnits(tokenizer, language, encode)
    if missing := _without_words(units, references):
        raise ValueError(
            f"evaluation.tokenizer {tokenizer} finds no word in {missing:,} of {len(references):,} references, whose "
            "scores would be 0 whatever is written; choose unicode, or leave it out"
        )
    return units


def _without_words(units: TextUnits, texts: Sequence[str]) -> int:
    return sum(_LETTER.search(text) is not None and not units.words(text) for text in texts)


def _language(text: str) -> str:
    code, probability = _identifier().classify(text)
    return str(code) if probability >= _SURE else _ENGLISH


@lru_cache(maxsize=1)
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # takes a second

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
