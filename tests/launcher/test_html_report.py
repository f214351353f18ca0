"""The HTML report: one file that needs nothing else; every text is only text, every picture shows something."""

import io
import math
import re
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from launcher.reporting.figures import attention_picture, attention_section, curve, length_histogram, scores_by_length
from launcher.reporting.html import Example, Figure, Page, Section, Table, WeightedText, rendered
from launcher.reporting.run_report import (
    MAX_POINTS,
    evaluation_section,
    learning_section,
    report_run,
    write_html_report,
)
from launcher.runs.run import Run
from launcher.tasks.registry import task_of_run
from tests.faults.tiny_run import TinyRun, prepare_text, tiny_config


class Reader(HTMLParser):
    """Reads a page as a browser does: its texts, its elements and their addresses."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data

    def pictures(self) -> list[np.ndarray]:
        prefix = "data:image/png;base64,"
        return [matplotlib.image.imread(io.BytesIO(b64decode(each.removeprefix(prefix)))) for each in self.addresses]


def page_of(*parts: Any, title: str = "a run") -> str:
    return rendered(Page(title, (("task", title),), (Section(title, title, parts),)))


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=60))
def test_every_text_comes_out_as_it_went_in(text: str) -> None:
    evil = f"<script>alert('{text}')</script>&amp;\"{text}"
    page = page_of(Table((evil,), ((evil,),)), Example(((evil, evil),)), WeightedText(evil, ((evil, 0.5),)), title=evil)
    reader = Reader(page)
    assert "script" not in reader.elements
    assert reader.text.count(evil) == 11
    assert reader.addresses == []


def has_ink(picture: np.ndarray) -> bool:
    return 0.005 < float((picture[..., :3].min(axis=-1) < 0.9).mean()) < 0.9


def test_pictures_lie_inside_and_show_something() -> None:
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 5000, 200).tolist()
    scores = generator.random(200).tolist()
    pictures = (
        curve("Loss", "bits", list(range(50)), [1 / (1 + step) for step in range(50)]),
        length_histogram({"documents": lengths, "summaries": [], "short ones": [5, 5]}),
        scores_by_length(lengths, {"ROUGE-2": scores}),
        scores_by_length([7], {"ROUGE-2": [0.5]}),
        attention_picture({f"layer {index}": generator.random((20, 20)) for index in range(4)}),
    )
    reader = Reader(page_of(*(Figure(each, "a caption") for each in pictures)))
    assert all(each.startswith("data:image/png;base64,") for each in reader.addresses)
    assert len(reader.pictures()) == 5
    assert all(map(has_ink, reader.pictures()))


def test_the_page_forbids_itself_the_network() -> None:
    assert re.search(r"Content-Security-Policy\" content=\"default-src 'none'; img-src data:", page_of())
    assert "http" not in page_of().replace("http-equiv", "")


def test_attention_shows_the_lowest_a_middle_and_the_highest_layer() -> None:
    maps = [torch.softmax(torch.randn(2, 10, 10), -1) for _ in range(12)]
    section = attention_section(maps, list("0123456789"), about="a text")
    texts = [part for part in section.parts if isinstance(part, WeightedText)]
    assert [text.caption.split(":")[0] for text in texts] == ["Layer 1", "Layer 7", "Layer 12"]
    for text, layer in zip(texts, (0, 6, 11), strict=True):
        weights = maps[layer][:, -1].mean(0)
        assert [weight for _, weight in text.pieces] == pytest.approx((weights / weights.max()).tolist())


def test_a_long_run_is_drawn_through_some_of_its_steps() -> None:
    records = [{"tokens": step, "loss": math.log(2), "learning_rate": 1.0} for step in range(10 * MAX_POINTS)]
    assert all(isinstance(part, Figure) for part in learning_section(records, "bits").parts)


def test_scores_of_any_task_become_a_table() -> None:
    evaluations = [
        {"seconds": 1.0, "validation": {"rouge2": 0.1, "documents": 7, "example": "text"}},
        {"seconds": 1.0, "validation": {"rouge2": 0.25, "documents": 7}, "test": {"rouge2": 0.2}},
    ]
    (table,) = evaluation_section(["short", "long"], evaluations).parts
    assert isinstance(table, Table)
    assert table.rows == (
        ("validation: rouge2", "0.1000", "0.2500"),
        ("validation: documents", "7", "7"),
        ("test: rouge2", "", "0.2000"),
    )


def test_the_report_of_a_run_directory_has_its_numbers(finished_run: Run) -> None:
    more = Section("Of the task", "", (Example((("prediction", "<b>bold</b>"),)),))
    path = write_html_report(finished_run, [more], parameters=1234567)
    assert path == finished_run.paths.report_directory / "report.html"
    reader = Reader(path.read_text())
    for expected in ("1,234,567", "Of the task", "<b>bold</b>", "validation: bits per character", "2.2000", "286"):
        assert expected in reader.text
    assert len(reader.pictures()) == 4
    assert write_html_report(finished_run, [more], parameters=1234567).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_a_real_run_ends_with_a_continued_text_and_attention(tmp_path: Path) -> None:
    data = prepare_text(tmp_path)
    run = TinyRun(tmp_path / "run", tiny_config(tmp_path, data), data, ranks=1)
    run.go()
    report_run(run.run, task_of_run(run.run))
    reader = Reader((run.run.paths.report_directory / "report.html").read_text())
    for expected in ("the model writes", "Layer 2: what the last position attends to", "dilations 1"):
        assert expected in reader.text
    # Loss, learning rate, bits per character by phase, cost, attention, throughput, MFU.
    assert len(reader.pictures()) == 7
    assert all(map(has_ink, reader.pictures()))
