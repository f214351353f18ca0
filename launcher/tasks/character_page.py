"""What the HTML report of a character run says beyond what all runs say: a continued text, and attention."""

from pathlib import Path

import torch

from data_pipeline.prepared import PreparedData
from launcher.html_report.attention import attention_section
from launcher.html_report.page import Example, Section
from launcher.html_report.run_page import write_html_report
from launcher.run_directory import RunDirectory
from launcher.trained_model import TrainedModel, newest_result
from longformer.attention_maps import character_attention
from longformer.cost import parameter_count
from longformer.models.generation import generate as continuation

_SHOWN = 256
"""Characters of the text that attention is shown on."""
_PROMPT, _WRITTEN = 200, 200


def write_character_page(run: RunDirectory) -> Path:
    """Write report/report.html of a finished character run and return its path.

    Raises:
        LongformerError, DataError: the run directory, its model or the prepared data is missing or damaged.
    """
    trained = TrainedModel.load(newest_result(run) / "model")
    stream = PreparedData.open(Path(run.identity().data_directory)).split("test")
    text = torch.from_numpy(stream.read(0, min(len(stream), max(_SHOWN, _PROMPT + _WRITTEN)))).long()
    sections = (_continued(trained, text), _attention(trained, text[:_SHOWN]))
    return write_html_report(run, sections, parameters=parameter_count(trained.model.config))


def _continued(trained: TrainedModel, text: torch.Tensor) -> Section:
    prompt = text[:_PROMPT]
    written = list(continuation(trained.model, prompt, new_tokens=_WRITTEN, temperature=0.8, top_k=None, seed=0))
    example = Example(
        (
            ("beginning of the test text", _decoded(trained, prompt.tolist())),
            ("the model goes on", _decoded(trained, written)),
            ("the text goes on", _decoded(trained, text[_PROMPT : _PROMPT + _WRITTEN].tolist())),
        )
    )
    return Section("Example", "Drawn with temperature 0.8 and seed 0.", (example,))


def _attention(trained: TrainedModel, text: torch.Tensor) -> Section:
    config = trained.model.config
    dilations = sorted(set(config.dilations))
    about = (
        f"The first {len(text)} characters of the test text. Every position sees itself and at most "
        f"{min(config.windows)} (narrowest layer) to {max(config.windows)} (widest) earlier ones; dilations "
        f"{', '.join(map(str, dilations))}."
    )
    pieces = [_decoded(trained, [token]) for token in text.tolist()]
    return attention_section(character_attention(trained.model, text), pieces, about=about)


def _decoded(trained: TrainedModel, tokens: list[int]) -> str:
    return trained.vocabulary.decode_bytes(tokens).decode(errors="replace")
