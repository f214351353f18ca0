"""Files as people have them: text, JSON lines, JSON arrays, CSV, TSV and Parquet, known by their content.

A file's form is told by its first MiB, whatever it is called and however it is packed; its name decides only where the
content does not (a damaged .jsonl stays JSON lines). Memory does not grow with the file, only with its longest record.
Text is decoded by its byte order mark, or as strict UTF-8; bytes that are neither belong to no record.
"""

import codecs
import csv
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path, PurePath
from tempfile import TemporaryFile
from typing import Any, Literal

from data_pipeline.errors import DataError
from data_pipeline.sources.files import Document, DocumentReader
from data_pipeline.sources.quarantine import Quarantine

Form = Literal["text", "json lines", "json", "csv", "parquet"]
_LONGEST_RECORD = 1 << 28
"""Characters; a longer one is a damaged file, and would fill the memory."""
_PACKING = {".xz", ".gz", ".zip", ".zst", ".bz2"}
_FORMS: dict[str, Form] = {
    ".jsonl": "json lines",
    ".ndjson": "json lines",
    ".json": "json lines",
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".parquet": "parquet",
}
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    # Before UTF-16: its mark begins with that of UTF-16.
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_DELIMITERS = ",\t;|"
_LOOKED_AT = 20
"""Rows that tell whether a file is a table."""
_COLUMN_NAME = re.compile(r"[^\W\d][\w .:/()-]{0,40}")
_JSON_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},"]', re.DOTALL)
_UNDECODED = re.compile("[\udc80-\udcff]")
_LOOKED_AROUND = 1 << 15
"""Characters on either side of one that cannot be decoded, which tell the encoding."""
_HOLDS_NUL = "it holds NUL bytes, which no text does"


@dataclass(frozen=True)
class Reading:
    """How the files of a source are to be read."""

    fields: Collection[str] = ()
    """Fields that are asked for; tables must have them as columns. Empty: all there are."""
    encoding: str | None = None
    """Of files that have no byte order mark and are not UTF-8."""
    read_as: Literal["text"] | None = None
    """Insists that files are text, whatever they look like."""

    @property
    def settings(self) -> dict[str, str]:
        """What of it decides about the examples and was asked for, as a manifest keeps it."""
        chosen = {"encoding": self.encoding, "read_as": self.read_as}
        return {name: value for name, value in chosen.items() if value is not None}


@dataclass(frozen=True)
class Record:
    """One record and where it stands."""

    name: str
    """`folder/file.jsonl:17`: a line, or the number of a record."""
    load: Callable[[], dict[str, Any]]
    """Returns its fields; ValueError where it is damaged."""


@dataclass(frozen=True)
class Content:
    """What a file, or a file inside a .zip, holds. Can be read once, and before the next is asked for."""

    name: str
    form: Form
    encoding: str
    """As what it is decoded; bytes that are something else are lone surrogates in the text (PEP 383)."""
    text: Iterator[str]
    """Decoded, in chunks; of Parquet empty."""
    records: Iterator[Record]
    """Of text empty."""
    text_again: Callable[[], Iterator[str]]
    """Decodes it once more from its beginning; of Parquet empty."""


def contents(file: Path, reader: DocumentReader, reading: Reading, quarantine: Quarantine) -> Iterator[Content]:
    """Yields what a file holds: itself, or every file inside a .zip.

    Args:
        file: what is read, with `reader`.
        reading: how.
        quarantine: files that are no text are left out and named there; those in UTF-16 without a mark are damaged.

    Raises:
        DataError: it cannot be read, the encoding is not known, or a table has not the fields of `reading` (while
            records are read).
    """
    for name, chunks in reader.named_documents(file):
        head = next(chunks, b"")
        if head[:4] == b"PAR1" and reading.read_as is None:
            # Inside another file it is unpacked first: Parquet is not read from its beginning.
            source = chain([head], chunks) if _is_packed(file) else file
            yield Content(name, "parquet", "", iter(()), _parquet_rows(name, source, reading.fields), lambda: iter(()))
            continue
        encoding = _encoding_of(head, reading)
        text = _decoded(chain([head], chunks), encoding, name)
        first = next(text, "")
        if "\0" in first:
            if likely := _wide_encoding(head):
                quarantine.add(name, f"it looks like {likely}: {_remedy(likely)}")
            elif _form_named(name) is not None:
                quarantine.add(name, _HOLDS_NUL)
            else:
                quarantine.leave_out(name, "no text: it holds NUL bytes")
            continue
        form = _form_of(name, first, reading)
        text = chain([first], text)
        records = iter(()) if form == "text" else _READERS[form](name, text, encoding, reading.fields)
        yield Content(name, form, encoding, text, records, partial(_decoded_again, file, name, encoding))


def form_of(file: Path, reading: Reading) -> Form:
    """Returns the form of a file, or of the first file inside a .zip; errors as in `contents`."""
    found = contents(file, DocumentReader([file]), reading, Quarantine(1))
    return next((content.form for content in found), "text")


def first_records(file: Path, count: int, reading: Reading) -> list[dict[str, Any]]:
    """Returns what the first `count` records of a file hold; those that are damaged or no objects are skipped.

    Raises:
        DataError: the file cannot be read, holds text, or none of these records is an object.
    """
    found = []
    for content in islice(contents(file, DocumentReader([file]), reading, Quarantine(1)), 1):
        for record in islice(content.records, count):
            with suppress(ValueError):
                found.append(record.load())
    if not found:
        raise DataError(
            f"{file} holds no JSON objects in its first {count} lines, and is neither a JSON array, CSV nor Parquet"
        )
    return found


def text_damage(text: str, encoding: str) -> str | None:
    """Returns a sentence on what a decoded text holds that no text does: NUL, or bytes that are not of the encoding,
    with the key that reads them; None where there is nothing such."""
    if "\0" in text:
        return _HOLDS_NUL
    undecoded = _UNDECODED.search(text)
    if undecoded is None:
        return None
    from charset_normalizer import from_bytes  # takes a third of a second

    known = encoding.removesuffix("-sig").upper()
    around = slice(max(0, undecoded.start() - _LOOKED_AROUND), undecoded.start() + _LOOKED_AROUND)
    best = from_bytes(text[around].encode(errors="surrogateescape")).best()
    if best is None:
        return f"it is not {known}, and looks like no encoding that is known"
    return f"it is not {known} but looks like {best.encoding}: {_remedy(best.encoding)}"


def lines_of(name: str, text: Iterator[str]) -> Iterator[str]:
    """Yields the lines of a text, without their line feeds.

    Raises:
        DataError: one is too long, as lines of damaged files are; the sentence names the file.
    """
    rest = ""
    for chunk in text:
        *lines, rest = (rest + chunk).split("\n")
        if len(rest) > _LONGEST_RECORD:
            raise DataError(f"{name} is damaged: one of its lines does not end; mend it")
        yield from lines
    if rest:
        yield rest


def field_of(record: Mapping[str, Any], name: str) -> Any:
    """Returns a field of a record.

    Raises:
        ValueError: it has none of that name; the sentence says which it has.
    """
    if name not in record:
        raise ValueError(f"it has no field {name}, only {', '.join(record) or 'none at all'}")
    return record[name]


def joined_text(value: object) -> str:
    """Returns a string, or a list of strings joined by line ends.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        value = "\n".join(value)
    if not isinstance(value, str):
        raise TypeError(f"found {type(value).__name__}")
    # JSON can write half a character ("\\ud800"), which no UTF-8 holds; it becomes U+FFFD.
    return value.encode(errors="surrogatepass").decode(errors="replace")


def _encoding_of(head: bytes, reading: Reading) -> str:
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if head.startswith(mark):
            return encoding
    if reading.encoding is None:
        return "utf-8"
    try:
        codecs.lookup(reading.encoding)
    except LookupError:
        raise DataError(f"encoding {reading.encoding} is not known: name one of Python's, such as cp1252") from None
    # One folder holds both: letters beyond ASCII that are valid UTF-8 are hardly anything else.
    return "utf-8" if not head.isascii() and _is_utf8(head) else reading.encoding


def _is_utf8(head: bytes) -> bool:
    """Returns whether bytes are UTF-8; the last letter may be cut."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def _remedy(encoding: str) -> str:
    return f"`encoding: {encoding}` in the run file, or --encoding {encoding}, reads it"


def _wide_encoding(head: bytes) -> str | None:
    """Returns which UTF-16 bytes without a mark look like: of most scripts every other byte is hardly ever NUL."""
    head = head[:4096]
    even, odd = head[::2].count(0), head[1::2].count(0)
    if _is_utf8(head) and 4 * (even + odd) < len(head):
        return None  # a text with some NUL in it
    if odd > 16 * even:
        return "utf-16-le"
    return "utf-16-be" if even > 16 * odd else None


def _is_packed(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(4) != b"PAR1"


def _decoded(chunks: Document, encoding: str, name: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding)(errors="surrogateescape")
    try:
        for chunk in chunks:
            if text := decoder.decode(chunk):
                yield text
        yield decoder.decode(b"", final=True)
    except UnicodeError as error:
        raise DataError(f"{name} is damaged: it begins as {encoding} but does not go on so ({error})") from None


def _decoded_again(file: Path, name: str, encoding: str) -> Iterator[str]:
    for each, chunks in DocumentReader([file]).named_documents(file):
        if each == name:
            yield from _decoded(chunks, encoding, name)


def _form_named(name: str) -> Form | None:
    suffixes = [suffix.lower() for suffix in PurePath(name).suffixes]
    while suffixes and suffixes[-1] in _PACKING:
        suffixes.pop()
    return _FORMS.get(suffixes[-1]) if suffixes else None


def _form_of(name: str, head: str, reading: Reading) -> Form:
    if reading.read_as is not None:
        return reading.read_as
    named = _form_named(name)
    if named == "parquet":
        raise DataError(f"{name} is damaged: it does not begin as Parquet does; fetch it again")
    begin = head.lstrip()
    if re.match(r'\{\s*["}]', begin):
        lines = [line for line in begin.split("\n") if line.strip()]
        whole = sum(line.strip()[:1] + line.strip()[-1:] == "{}" for line in lines)
        return "json lines" if _is_json(lines[0]) or 2 * whole > len(lines) else "json"
    if re.match(r'\[\s*\{\s*["}]', begin):
        return "json"
    if _table_delimiter(head, reading.fields) is not None:
        return "csv"
    return named or "text"


def _is_json(text: str) -> bool:
    try:
        _parsed(text)
    except ValueError:
        return False
    return True


def _parsed(text: str) -> Any:
    """Returns the value that JSON holds.

    Raises:
        ValueError: it is no JSON, or nested deeper than Python reads.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON: {error}") from None
    except ValueError:
        raise ValueError("its JSON has a number of more than 4,300 digits") from None


def _json_record(name: str, text: str, encoding: str) -> Record:
    def load() -> dict[str, Any]:
        if damage := text_damage(text, encoding):
            raise ValueError(damage)
        fields = _parsed(text)
        if not isinstance(fields, dict):
            raise ValueError(f"it is no object but {type(fields).__name__}")
        return fields

    return Record(name, load)


def _json_lines(name: str, text: Iterator[str], encoding: str, fields: Collection[str]) -> Iterator[Record]:
    # At line feeds only: text may hold every other character at which Python would begin a new line.
    for number, line in enumerate(lines_of(name, text), start=1):
        if line.strip():
            yield _json_record(f"{name}:{number}", line, encoding)


def _json_values(name: str, text: Iterator[str], encoding: str, fields: Collection[str]) -> Iterator[Record]:
    """Yields the elements of JSON arrays, or values that follow each other, one by one.

    Only brackets, commas and strings are looked at, so that a damaged element spoils no other.
    """
    buffer, start, scanned, depth, number = "", 0, 0, 0, 0
    inside = None  # the depth at which elements stand: 1 in an array
    for chunk in text:
        buffer, scanned, start = buffer[start:] + chunk, scanned - start, 0
        if len(buffer) > _LONGEST_RECORD:
            raise DataError(f"{name} is damaged: its record {number + 1} does not end; mend it")
        if inside is None and buffer.strip():
            inside = 1 if buffer.lstrip()[0] == "[" else 0
        for token in _JSON_TOKEN.finditer(buffer, scanned):
            at, mark = token.start(), buffer[token.start()]
            end = None
            if mark == '"':
                if token.end() == at + 1:
                    break  # the string goes on in the next chunk
            elif mark in "[{":
                depth += 1
                if depth == inside:
                    start = token.end()
            elif mark == ",":
                end = at if depth == inside else None
            else:
                depth -= 1
                end = token.end() if depth == inside == 0 else at if depth == 0 else None
            scanned = token.end()
            if end is not None:
                if buffer[start:end].strip():
                    number += 1
                    yield _json_record(f"{name}:{number}", buffer[start:end], encoding)
                start = token.end()
    if buffer[start:].strip() or depth > 0:
        yield _json_record(f"{name}:{number + 1}", buffer[start:], encoding)


def _csv_rows(name: str, text: Iterator[str], encoding: str, fields: Collection[str]) -> Iterator[Record]:
    """Yields the rows below the first, which names the columns."""
    head = next(text, "")
    delimiter = _delimiter(head, fields, "\t" if ".t" in PurePath(name).suffixes[-1:] else ",")
    # Old spreadsheets end lines by \\r alone.
    text = (each.replace("\r", "\n") for each in chain([head], text)) if "\n" not in head else chain([head], text)
    csv.field_size_limit(_LONGEST_RECORD)  # a document is longer than the default of 131,072
    # Strict: a quote where none may stand would otherwise swallow the rows up to the next one in silence.
    rows = csv.reader((line + "\n" for line in lines_of(name, text)), delimiter=delimiter, strict=True)
    columns: list[str] | None = None
    while True:
        row: list[str] | csv.Error
        begin = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            row = error  # the next row begins on the next line
        if columns is None:
            columns = [] if isinstance(row, csv.Error) else row
            _check_columns(name, columns, fields)
        elif row:
            yield Record(f"{name}:{begin}", partial(_csv_record, columns, row, encoding))


def _csv_record(columns: list[str], row: list[str] | csv.Error, encoding: str) -> dict[str, str]:
    if isinstance(row, csv.Error):
        raise ValueError(f"the quotes of the row that begins here do not match ({row})")
    if len(row) != len(columns):
        raise ValueError(f"the row has {len(row)} cells, the first row {len(columns)}")
    if damage := text_damage("\n".join(row), encoding):
        raise ValueError(damage)
    return dict(zip(columns, row, strict=True))


def _check_columns(name: str, columns: Sequence[str], fields: Collection[str]) -> None:
    for field in fields:
        if field not in columns:
            raise DataError(f"{name} has no column {field}: name one of {', '.join(columns)}, or insist with --as text")
        if columns.count(field) > 1:
            raise DataError(f"{name} has {columns.count(field)} columns {field}: rename all but one")


def _rows_of(head: str, delimiter: str) -> list[list[str]]:
    lines = head.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if len(head) >= 1 << 16:
        lines.pop()  # cut somewhere
    try:
        return list(islice(filter(None, csv.reader([line + "\n" for line in lines], delimiter=delimiter)), _LOOKED_AT))
    except csv.Error:
        return []


def _delimiter(head: str, fields: Collection[str], usual: str) -> str:
    headers = {each: next(iter(_rows_of(head, each)), []) for each in _DELIMITERS}
    for delimiter, header in headers.items():
        if fields and set(fields) <= set(header):
            return delimiter
    return max(headers, key=lambda each: (len(headers[each]), each == usual))


def _table_delimiter(head: str, fields: Collection[str]) -> str | None:
    """Returns the delimiter of what is a table though its name does not say so."""
    for delimiter in _DELIMITERS:
        rows = _rows_of(head, delimiter)
        header = rows[0] if rows else []
        if len(rows) < 2 or len(header) < 2 or any(len(row) != len(header) for row in rows):
            continue
        # Prose has a space behind each comma.
        names = len(set(header)) == len(header) and all(map(_COLUMN_NAME.fullmatch, header))
        if set(fields) & set(header) or (names and len(rows) >= 5 and (delimiter == "\t" or len(header) >= 3)):
            return delimiter
    return None


def _parquet_rows(name: str, source: Path | Document, fields: Collection[str]) -> Iterator[Record]:
    with _parquet_file(name, source) as table:
        if fields:
            _check_columns(name, table.schema_arrow.names, fields)
        number = 0
        for batch in table.iter_batches(batch_size=256, columns=list(fields) or None):
            for row in batch.to_pylist():
                number += 1
                yield Record(f"{name}:{number}", lambda row=row: row)  # type: ignore[misc]


@contextmanager
def _parquet_file(name: str, source: Path | Document) -> Iterator[Any]:
    """Opens Parquet with pyarrow, unpacked into a temporary file where it was packed: it is not read from its start."""
    import pyarrow  # takes a third of a second
    import pyarrow.parquet

    with TemporaryFile() as unpacked:
        if not isinstance(source, Path):
            for chunk in source:
                unpacked.write(chunk)
        try:
            yield pyarrow.parquet.ParquetFile(source if isinstance(source, Path) else unpacked)
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{name} is damaged ({error}); fetch it again") from None


_READERS: dict[Form, Callable[[str, Iterator[str], str, Collection[str]], Iterator[Record]]] = {
    "json lines": _json_lines,
    "json": _json_values,
    "csv": _csv_rows,
}
