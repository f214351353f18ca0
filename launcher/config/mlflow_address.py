"""Where MLflow keeps runs and models, and how that is written down: never with a password in it.

An address is a server's (http, https) or that of an SQLite file; databases of other kinds stand behind a server.
Whoever works with MLflow imports this module first, because it settles how MLflow behaves.
"""

import os
import re
from pathlib import Path

# Read by MLflow when it is imported: it must not call home, must give up on an absent server in seconds, and must not
# draw over our own output.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

ADDRESS_VARIABLE = "MLFLOW_TRACKING_URI"
_CREDENTIALS = re.compile(r"(?<=://)[^/\s]*@")
SQLITE = "sqlite:///"
_SCHEMES = ("http://", "https://", SQLITE)


def check_address(address: str) -> None:
    """Raises ValueError when an address is of an unsupported kind, or holds credentials, which would be stored."""
    if _CREDENTIALS.search(address):
        raise ValueError(
            "must not hold a name or password, which would be stored with the run: set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD in the environment"
        )
    if not address.startswith(_SCHEMES):
        raise ValueError(
            f"should be an MLflow server (http://host:5000) or an SQLite file (sqlite:///runs/mlflow.db), not {address}"
        )


def address_of_file(database: Path) -> str:
    """Returns the address of an SQLite file, in which %, ? and # of its path are written as in any URL."""
    from sqlalchemy.engine import URL  # which takes a while to import

    return URL.create("sqlite", database=str(database.resolve())).render_as_string()


def file_of(address: str) -> Path | None:
    """Returns the SQLite file at an address, None for that of a server."""
    if not address.startswith(SQLITE):
        return None
    from sqlalchemy.engine import make_url

    return Path(make_url(address).database or "")


def store_of(runs_folder: Path) -> str:
    """Returns the address of the embedded store of a folder of runs."""
    return address_of_file(runs_folder / "mlflow.db")


def address_of_run(written: str | None, run_directory: Path) -> str:
    """Returns where a run is tracked: as its run file or else the environment says, else beside the run directories."""
    return written or os.environ.get(ADDRESS_VARIABLE) or store_of(run_directory.resolve().parent)


def address_here() -> str:
    """Returns where models are looked for: as the environment says, else in the store of the folder runs."""
    return os.environ.get(ADDRESS_VARIABLE) or store_of(Path("runs"))


def without_credentials(text: str) -> str:
    """Returns a text in which every address has lost its name and password."""
    return _CREDENTIALS.sub("", text)
