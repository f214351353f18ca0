"""Storage behind HTTP that fails, stalls and vanishes; a cache that stays within its bound."""

import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.errors import DataError
from data_pipeline.prepare.parallel import in_this_process
from data_pipeline.shards.prepared import PreparedData
from data_pipeline.shards.remote_storage import CachedRemote, Patience, open_storage
from data_pipeline.sources.corpora import TEXT
from data_pipeline.tokenizers.subword import TextTokenizer
from tests.data_pipeline.preparing import prepare_documents
from tests.data_pipeline.test_document_batches import global_batches

QUICK = Patience(attempts=12, first_pause=0.01, longest_pause=0.1, stall=0.5)


class Server(ThreadingHTTPServer):
    """Serves a folder; `fail` decides of every request, by its number, whether it goes well."""

    def __init__(self, folder: str) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=folder))
        self.requests: Counter[str] = Counter()
        self.fail_every = 0
        self.stall_every = 0
        self.cut_every = 0
        self.let_go = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(SimpleHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests[self.path] += 1
        number = self.server.requests.total()
        if self.server.fail_every and number % self.server.fail_every == 0:
            self.send_error(500)
        elif self.server.stall_every and number % self.server.stall_every == 0:
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b"half a")
            self.wfile.flush()
            self.server.let_go.wait()
        elif self.server.cut_every and number % self.server.cut_every == 0:
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content) // 2))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
        else:
            super().do_GET()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(documents_once: PreparedData) -> Iterator[Server]:
    with Server(documents_once.location) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.let_go.set()
        server.shutdown()


def remote(server: Server, cache: Path, *, cache_bytes: int = 1 << 30, patience: Patience = QUICK) -> PreparedData:
    return PreparedData.open(server.url, CachedRemote(server.url, cache, cache_bytes, patience))


@pytest.mark.parametrize("trouble", [{}, {"fail_every": 5}, {"stall_every": 6}, {"cut_every": 5}])
def test_batches_from_a_storage_in_trouble_are_those_of_the_local_directory(
    trouble: dict[str, int], server: Server, documents_once: PreparedData, tmp_path: Path
) -> None:
    expected, _ = global_batches(documents_once, steps=20)
    vars(server).update(trouble)
    # A busy machine may well take half a second to answer, which is no trouble of the storage.
    patience = QUICK if trouble else Patience()
    found, _ = global_batches(remote(server, tmp_path, patience=patience), steps=20)
    for one, other in zip(expected, found, strict=True):
        assert np.array_equal(one, other)
    shards = {
        path: count for path, count in server.requests.items() if path.startswith("/train") and path.endswith("tar")
    }
    assert len(shards) >= 8
    if not trouble:
        assert set(shards.values()) == {1}


def test_loader_workers_and_ranks_share_a_cache_on_a_storage_in_trouble(
    server: Server, documents_once: PreparedData, tmp_path: Path
) -> None:
    expected, _ = global_batches(documents_once, steps=10)
    server.fail_every = 5
    found, _ = global_batches(remote(server, tmp_path), steps=10, world_size=2, workers=2)
    for one, other in zip(expected, found, strict=True):
        assert np.array_equal(one, other)
    server.requests.clear()
    server.fail_every = 0
    global_batches(remote(server, tmp_path), steps=10)
    assert set(server.requests) == {"/manifest.json"}


def test_the_cache_stays_within_its_bound(server: Server, documents_once: PreparedData, tmp_path: Path) -> None:
    sizes = sorted(shard.size + shard.index_size for shard in documents_once.manifest.splits["train"])
    most = sum(sizes[-6:]) + 50_000
    data = remote(server, tmp_path, cache_bytes=most)
    seen = []

    def watch() -> None:
        while not done.is_set():
            seen.append(sum(path.stat().st_size for path in tmp_path.rglob("*.tar") if path.exists()))
            time.sleep(0.005)

    done = threading.Event()
    watcher = threading.Thread(target=watch)
    watcher.start()
    found, _ = global_batches(data, steps=30)
    done.set()
    watcher.join()
    expected, _ = global_batches(documents_once, steps=30)
    assert all(np.array_equal(one, other) for one, other in zip(expected, found, strict=True))
    assert sum(sizes) > most
    # A file lies there for a moment before room is made for it, one per thread that fetches.
    assert max(seen) <= most + 5 * sizes[-1]


def test_a_cache_that_is_too_small_is_refused_with_the_size_that_would_do(server: Server, tmp_path: Path) -> None:
    data = remote(server, tmp_path, cache_bytes=120_000)
    with pytest.raises(
        DataError, match=r"may hold 120,000 bytes, .* need [\d,]+: give it so much, or keep fewer shards"
    ):
        data.split("train", open_shards=16)
    assert data.split("train", open_shards=1)


def test_a_storage_that_is_gone_is_one_sentence_after_the_tries(server: Server, tmp_path: Path) -> None:
    data = remote(server, tmp_path)
    server.fail_every = 1
    with pytest.raises(DataError, match=r"train-\d{6}\.index\.npy could not be fetched in 12 tries: 500"):
        data.split("train").lengths(0, TEXT)


def test_a_missing_file_is_not_tried_again(server: Server, documents_once: PreparedData, tmp_path: Path) -> None:
    storage = CachedRemote(server.url, tmp_path, 1 << 30, QUICK)
    with pytest.raises(DataError, match=r"/nothing\.tar does not exist"):
        storage.open("nothing.tar")
    assert server.requests["/nothing.tar"] <= 2
    with pytest.raises(DataError, match="holds no prepared data"):
        PreparedData.open(f"{server.url}/nowhere", CachedRemote(f"{server.url}/nowhere", tmp_path, 1 << 30, QUICK))


def test_an_unknown_kind_of_storage_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing://place cannot be opened"):
        open_storage("nothing://place", cache=tmp_path)


def test_memory_storage_stands_for_any_object_store(documents_once: PreparedData, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for path in Path(documents_once.location).iterdir():
        memory.pipe_file(f"/{tmp_path.name}/{path.name}", path.read_bytes())
    url = f"memory://{tmp_path.name}"
    data = PreparedData.open(url, open_storage(url, cache=tmp_path))
    assert data.find_damage() == []
    assert data.fingerprint == documents_once.fingerprint


def test_other_data_at_the_same_address_is_not_taken_from_the_cache(
    documents_copy: PreparedData, small_corpus: Path, small_tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    with Server(documents_copy.location) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        before = remote(server, tmp_path / "cache")
        global_batches(before, steps=20)
        shutil.rmtree(documents_copy.location)
        prepare_documents(
            source=small_corpus / "two.jsonl",
            tokenizer=small_tokenizer,
            output=Path(documents_copy.location),
            task_map=in_this_process,
            shard_characters=16_000,
        )
        after = remote(server, tmp_path / "cache")
        assert after.fingerprint != before.fingerprint
        assert after.find_damage() == []
        server.shutdown()
