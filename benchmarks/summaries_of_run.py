"""Put on record what a summarization run has learned: its losses, and ROUGE beside the untrained model and extracts.

    python benchmarks/summaries_of_run.py runs/led-sumpubmed-small --output benchmarks/results/led_sumpubmed_small.json

The untrained model is the run's start: the BART made long, before the first step. It writes about the same documents of
the test split with the same settings.
"""

import argparse
import json
from pathlib import Path

from launcher.runs.paths import MetricsFollower
from launcher.runs.run import Run
from launcher.tasks.summarization.config import SummarizationRun
from launcher.tasks.summarization.data import SummarizationData
from longformer.benchmarks.machine import machine
from longformer.evaluation.summaries import evaluate_summaries, summary_of
from longformer.evaluation.words import text_units
from longformer.files import write_json
from longformer.models import LEDForConditionalGeneration


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    run = Run.open(arguments.run)
    config = run.config
    assert isinstance(config, SummarizationRun), "another task has no summaries"
    data = SummarizationData(config, Path(run.paths.identity().data_directory))
    documents = data.held_out(
        "test",
        source_length=config.phases[-1].sequence_length,
        limit=config.evaluation.limit_documents,
    )
    references = [reference for document in documents for reference in document.references]
    units = text_units(references, config.evaluation.tokenizer, data.encoder())
    untrained = evaluate_summaries(
        LEDForConditionalGeneration.from_pretrained(run.paths.start_directory),
        documents,
        data.decoder(),
        settings=config.evaluation.generation,
        batch_size=config.evaluation.batch_size,
        units=units,
    )
    records = MetricsFollower(run.paths.metrics_file).new_records()
    phases = {
        phase.name: {
            "losses": [round(record["loss"], 4) for record in records if record["phase"] == phase.name],
            **json.loads((run.result_directory(index) / "evaluation.json").read_text()),
        }
        for index, phase in enumerate(config.phases)
    }
    write_json(
        arguments.output,
        {"machine": machine("cpu"), "phases": phases, "untrained": {"test": summary_of(untrained, units)}},
    )


if __name__ == "__main__":
    main()
