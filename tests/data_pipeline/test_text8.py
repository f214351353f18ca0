import lzma
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.errors import DataError
from data_pipeline.sources.text8 import cleaned_wikipedia

PAGE = b"""<mediawiki><page><title>Left out</title><text xml:space="preserve">#REDIRECT [[Elsewhere]]</text></page>
<page><title>Left out</title><text xml:space="preserve">{{template}} '''Bold''' [[link target|Shown]] [[Plain]],
&lt;ref&gt;a reference&lt;/ref&gt; 1984 [http://address.org visible] [[Image:x.png|thumb|250px|A caption]] &amp;nbsp;
[[Category:Things|key]] [[de:Dinge]] {| table |} caf\xc3\xa9 &lt;b&gt;Tag&lt;/b&gt;</text><id>7</id></page>
</mediawiki>"""


def chunks_of(text: bytes, size: int) -> Iterator[bytes]:
    return (text[start : start + size] for start in range(0, len(text), size))


def test_cleaning_real_wikipedia_gives_the_published_text8(test_data: Path) -> None:
    published = lzma.decompress((test_data / "text8_check" / "first_1000000.txt.xz").read_bytes())
    with lzma.open(test_data / "enwik8" / "enwik8.xz") as file:
        xml = file.read(2_000_000)
    cleaned = b"".join(cleaned_wikipedia(chunks_of(xml, 1 << 20)))
    assert len(cleaned) > len(published) == 1_000_000
    assert cleaned[: len(published)] == published


def test_only_visible_text_is_kept_in_words_and_digits_spelled_out() -> None:
    assert b"".join(cleaned_wikipedia(iter([PAGE]))) == (
        b" bold shown plain one nine eight four visible a caption things caf tag"
    )


@given(st.integers(1, len(PAGE)))
def test_cleaning_does_not_depend_on_where_chunks_end(size: int) -> None:
    whole = b"".join(cleaned_wikipedia(iter([PAGE])))
    assert b"".join(cleaned_wikipedia(chunks_of(PAGE, size))) == whole


@settings(max_examples=200)
@given(st.lists(st.sampled_from([*"<>[]{}|&;/:= \nAz9é", "ref", "text ", "</text>", "[[image:", "&lt;", "[http:"])))
def test_cleaned_text_is_words_of_small_letters_each_after_one_space(markup: list[str]) -> None:
    xml = b'<mediawiki><text xml:space="preserve">' + "".join(markup).encode() + b"</text>"
    cleaned = b"".join(cleaned_wikipedia(iter([xml])))
    assert cleaned == b"".join(b" " + word for word in cleaned.split(b" ") if word)
    assert not cleaned.translate(None, delete=b" abcdefghijklmnopqrstuvwxyz")


def test_endless_input_without_tags_is_refused_in_bounded_memory() -> None:
    produced = 0

    def letters() -> Iterator[bytes]:
        nonlocal produced
        for chunk in islice(iter(lambda: b"x" * (1 << 20), b""), 1_000):
            produced += len(chunk)
            yield chunk

    with pytest.raises(DataError, match="no tag within 16 MiB"):
        list(cleaned_wikipedia(letters()))
    assert produced < 20 << 20
