"""Checkpoints in MLflow: each a model whose files stay where they are, with its place and manifest, and no weights."""

from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_IS_EXTERNAL

from launcher.run_directory import RunDirectory
from longformer.errors import LongformerError
from longformer.training.checkpoints.manifest import MANIFEST_FILE, Manifest

_TYPE = "checkpoint"
_PATH = "longformer.path"
"""Tag: where the checkpoint lies in the run directory."""


def send_checkpoints(client: MlflowClient, experiment_id: str, run_id: str, directory: RunDirectory) -> None:
    """Let the run's checkpoints in MLflow be those on disk: new ones are added, removed ones go."""
    on_disk = {str(path.relative_to(directory.path)): path for path in directory.all_checkpoints()}
    known = set()
    for model in _sent(client, experiment_id, run_id):
        if model.status == LoggedModelStatus.READY and model.tags.get(_PATH) in on_disk:
            known.add(model.tags[_PATH])
        else:
            client.delete_logged_model(model.model_id)
    for name in on_disk.keys() - known:
        try:
            manifest = Manifest.read(on_disk[name])
        except LongformerError:  # removed at this moment
            continue
        facts = {
            "phase": manifest.phase,
            "step": manifest.progress.step,
            "tokens": manifest.progress.tokens,
            "ranks": manifest.ranks,
            "zero_stage": manifest.zero_stage,
            "bytes": sum(file["size"] for file in manifest.files.values()),
        }
        model = client.create_logged_model(
            experiment_id,
            name=f"{manifest.phase}-{on_disk[name].name}".replace(".", "-"),
            source_run_id=run_id,
            tags={_PATH: name, MLFLOW_MODEL_IS_EXTERNAL: "true"},
            params={fact: str(value) for fact, value in facts.items()},
            model_type=_TYPE,
        )
        client.log_model_artifact(model.model_id, str(on_disk[name] / MANIFEST_FILE))
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=manifest.progress.global_step)])
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def _sent(client: MlflowClient, experiment_id: str, run_id: str) -> list[LoggedModel]:
    """Return what this run has in MLflow as checkpoints."""
    wanted = f"source_run_id = '{run_id}' AND model_type = '{_TYPE}'"
    found: list[LoggedModel] = []
    token = None
    while True:
        page = client.search_logged_models([experiment_id], filter_string=wanted, page_token=token)
        found += page
        token = page.token
        if not token:
            return found
