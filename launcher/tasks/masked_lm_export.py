"""The model of a masked-LM run in the form in which it leaves the run: ready for tasks that need global tokens."""

from pathlib import Path

from longformer.interop.checkpoint_files import CONFIG_FILE, read_json, read_tensors, write_folder
from longformer.interop.conversion import copy_to_global
from longformer.interop.convert import copy_files
from longformer.models.common.freezing import FREEZE_PRETRAINED, PRETRAINED_ROWS


def export(model: Path, target: Path) -> None:
    """Write the model in Hugging Face's layout, its global projections copied from the trained local ones.

    Pretraining has no global token and teaches those projections nothing (spec 2.1, step 5).

    Raises:
        LongformerError: the model cannot be read.
    """
    tensors = {name: tensor for name, tensor in read_tensors(model).items() if "_global." not in name}
    copy_to_global(tensors)
    settings = read_json(model / CONFIG_FILE)
    for note in (FREEZE_PRETRAINED, PRETRAINED_ROWS):
        settings.pop(note, None)
    copy_files(model, target)
    write_folder(target, settings, tensors)
