"""Example predictions of a finished run: how its model goes on with unseen text, beside what really follows."""

from pathlib import Path

import torch

from data_pipeline.shards.stream_dataset import PreparedData
from launcher.runs.run import Run
from launcher.tasks.characters.trained_model import TrainedModel, newest_result
from longformer.evaluation.bits import evaluate_bits_per_character
from longformer.files import write_json
from longformer.models.char_lm.generate import generate

EXAMPLES = 5
CONTEXT, CONTINUATION = 200, 80
"""Characters that the model reads, and that it writes."""


def write_examples(run: Run) -> None:
    """Write report/tables/examples.json, a table as MLflow shows it, from places spread over the test text.

    Raises:
        LongformerError, DataError: the model or the prepared data is missing or damaged.
    """
    trained = TrainedModel.load(newest_result(run) / "model")
    stream = PreparedData.open(Path(run.paths.identity().data_directory)).split("test")
    length = CONTEXT + CONTINUATION
    rows = []
    for number in range(min(EXAMPLES, len(stream) // length)):
        start = number * (len(stream) - length) // EXAMPLES
        tokens = torch.from_numpy(stream.read(start, start + length)).long()
        context, follows = tokens[:CONTEXT], tokens[CONTEXT:]
        written = generate(trained.model, context, new_tokens=CONTINUATION, temperature=0, seed=0)
        score = evaluate_bits_per_character(trained.model, tokens, sequence_length=length, stride=length, batch_size=1)
        decode = trained.vocabulary.decode
        rows.append([decode(context.numpy()), decode(follows.numpy()), decode(written), score.bits])
    tables = run.paths.report_directory / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    columns = ["text", "goes on with", "the model writes", "bits per character of the text"]
    write_json(tables / "examples.json", {"columns": columns, "data": rows})
