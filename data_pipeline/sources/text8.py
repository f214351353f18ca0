"""text8: 100,000,000 characters of Wikipedia as 26 small letters and the space (semantics.md 3.1).

Takes the text as published, or Wikipedia XML (enwik8, enwik9, a dump), which is cleaned by the rules published with
text8: Matt Mahoney's filter of June 2006, in the public domain. The space stays a space; Transformer-XL's scripts
write it as an underscore, which changes no token.
"""

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from data_pipeline.errors import DataError
from data_pipeline.sources import Source
from data_pipeline.sources.files import Document, DocumentReader, existing_file
from data_pipeline.sources.quarantine import Quarantine

_ALPHABET = b" abcdefghijklmnopqrstuvwxyz"
_EXPECTS = "text8 (plain or as .xz, .gz or .zip) or a Wikipedia XML dump"
_LONGEST_RECORD = 16 << 20

# In this order. What a rule matches may depend on what the rules before it took away.
_RULES = [
    (re.compile(pattern, flags), replacement)
    for pattern, flags, replacement in [
        (rb"<.*>", 0, b""),  # the XML tag that ends the record
        (rb"&amp;", 0, b"&"),
        (rb"&lt;", 0, b"<"),
        (rb"&gt;", 0, b">"),
        (rb"<ref[^<]*</ref>", 0, b""),  # references
        (rb"<[^>]*>", 0, b""),  # XHTML tags
        (rb"\[http:[^] ]*", 0, b"["),  # addresses, not their visible text
        (rb"\|thumb", re.IGNORECASE, b""),  # image layout, not captions
        (rb"\|left", re.IGNORECASE, b""),
        (rb"\|right", re.IGNORECASE, b""),
        (rb"\|\d+px", re.IGNORECASE, b""),
        (rb"\[\[image:[^\[\]]*\|", re.IGNORECASE, b""),
        (rb"\[\[category:([^|\]]*)[^]]*\]\]", re.IGNORECASE, rb"[[\1]]"),  # categories keep their name
        (rb"\[\[[a-z\-]*:[^\]]*\]\]", 0, b""),  # links to other languages
        (rb"\[\[[^|\]]*\|", 0, b"[["),  # targets of links, not their visible text
        (rb"\{\{[^}]*\}\}", 0, b""),  # templates
        (rb"\{[^}]*\}", 0, b""),  # tables
        (rb"\[", 0, b""),
        (rb"\]", 0, b""),
        (rb"&[^;]*;", 0, b" "),  # character entities
    ]
]
_DIGITS = [
    (str(digit).encode(), f" {word} ".encode())
    for digit, word in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
]
_LETTERS_OR_SPACE = bytes(byte if byte in _ALPHABET else ord(" ") for byte in bytes(range(256)).lower())
_REDIRECT = re.compile(rb"#redirect", re.IGNORECASE)


def cleaned_wikipedia(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yields the visible text of Wikipedia XML as words of small letters, each after one space, digits spelled out.

    Raises:
        DataError: the input is no XML (16 MiB without a tag).
    """
    inside_text = False
    for record in _records(chunks):
        if b"<text " in record:
            inside_text = True
        if _REDIRECT.search(record):
            inside_text = False
        if not inside_text:
            continue
        if b"</text>" in record:
            inside_text = False
        words = _words(record)
        if words:
            yield b" " + b" ".join(words)


def _words(record: bytes) -> list[bytes]:
    for pattern, replacement in _RULES:
        record = pattern.sub(replacement, record)
    for digit, word in _DIGITS:
        record = record.replace(digit, word)
    return record.translate(_LETTERS_OR_SPACE).split()


def _records(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Cuts the stream after every `>`, the unit in which the published filter reads."""
    rest = b""
    for chunk in chunks:
        *records, rest = (rest + chunk).split(b">")
        for record in records:
            yield record + b">"
        if len(rest) > _LONGEST_RECORD:
            raise DataError("the source is not Wikipedia XML: no tag within 16 MiB; fetch it again")
    yield rest


def _find_files(source: Path | None) -> list[Path]:
    return [existing_file(source, recipe="text8", expects=_EXPECTS)]


def _read(files: list[Path], reader: DocumentReader, quarantine: Quarantine) -> Iterator[Document]:
    for document in reader.only_document(files[0]):
        first = next(document, b"")
        chunks = chain([first], document)
        yield cleaned_wikipedia(chunks) if first.startswith(b"<mediawiki") else _checked(files[0], chunks)


def _checked(path: Path, chunks: Iterator[bytes]) -> Iterator[bytes]:
    position = 0
    for chunk in chunks:
        foreign = chunk.translate(None, delete=_ALPHABET)
        if foreign:
            place = position + chunk.index(foreign[:1])
            raise DataError(
                f"{path} is not text8: character {foreign[:1]!r} at position {place} is neither a small letter nor a "
                f"space; recipe text8 expects {_EXPECTS}, other text goes with the recipe text"
            )
        yield chunk
        position += len(chunk)


SOURCE = Source(
    name="text8", version=1, find_files=_find_files, read=_read, symbols=_ALPHABET, published_bytes=100_000_000
)
