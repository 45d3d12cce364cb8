"""The local provider: the model of this package behind the provider port."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from adapters.providers.local.fetch import ensure
from adapters.providers.local.files import DIMENSIONS, MODEL, ModelError, ModelFiles
from domain.ports.lists_models import ListedModel, Listing
from domain.ports.provider import EmbedAnswer, EmbedCall, Provider, ProviderError, ProviderFault

if TYPE_CHECKING:
    from adapters.providers.local.model import LocalModel

T = TypeVar("T")

RETRY_SECONDS = 30.0
"""How long a failed load is remembered: each attempt may run pip and wait for a network that is not there."""


class LocalProvider(Provider):
    """Embeds in this process. One thread of its own runs the model, so calls take turns and the event loop stays free; a run uses
    `threads` cores (default: those this process may use), and two runs at once would only get in each other's way.

    The model is loaded at the first call or by `warm_up`, fetched first where the store lacks it.
    """

    def __init__(
        self, store: Path, *, threads: int | None = None, prepare: Callable[[Path], ModelFiles] = ensure
    ) -> None:
        self._store = store
        self._threads = threads or len(os.sched_getaffinity(0))
        self._prepare = prepare
        self._model: LocalModel | None = None
        self._failed: tuple[float, str] | None = None
        self._closed = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="emberlog-local")

    async def warm_up(self) -> None:
        """Fetch what is missing and load the model now. Raises `ProviderError`."""
        await self._call(self._load)

    async def embed(self, call: EmbedCall) -> EmbedAnswer:
        """Embed once: see `Provider.embed`. `text_tokens` are exact. Given up or timed out, it stops within one run."""
        if call.model != MODEL or call.dimensions not in (None, DIMENSIONS):
            raise ProviderError(
                ProviderFault.REFUSED,
                f"the local provider has {MODEL} at {DIMENSIONS} dimensions, not what was asked for",
            )
        texts = [text for text in call.texts if isinstance(text, str)]
        if not texts or len(texts) != len(call.texts):
            raise ProviderError(ProviderFault.REFUSED, "the local provider takes one or more strings, no token lists")
        given_up = threading.Event()
        try:
            async with asyncio.timeout(call.timeout):
                return await self._call(lambda: self._embed(texts, given_up))
        except TimeoutError:
            pass
        finally:
            given_up.set()
        raise ProviderError(ProviderFault.TIMEOUT, f"no answer within {call.timeout:g} s")

    async def check(self, timeout: float) -> None:
        """The model is loaded, or can be."""
        try:
            async with asyncio.timeout(timeout):
                await self.warm_up()
            return
        except TimeoutError:
            pass
        raise ProviderError(ProviderFault.TIMEOUT, f"the model was not loaded within {timeout:g} s")

    async def list_models(self, timeout: float) -> Listing | None:
        """The one model of this package."""
        return Listing([ListedModel(MODEL, embeds=True, dimensions=DIMENSIONS)])

    async def close(self) -> None:
        """Let the run in progress end, answer what waits with an error, free the model. Idempotent."""
        self._closed.set()
        await asyncio.to_thread(self._thread.shutdown, wait=True)
        self._model = None

    async def _call(self, work: Callable[[], T]) -> T:
        """Run in the model's thread."""
        if self._closed.is_set():
            raise _closed()
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _embed(self, texts: list[str], given_up: threading.Event) -> EmbedAnswer:
        def stopped() -> bool:
            return given_up.is_set() or self._closed.is_set()

        if stopped():
            raise _closed()
        model = self._load()
        from adapters.providers.local.model import TooLongError

        # Raised outside the except blocks: what a library raises may hold a text.
        failed: ProviderError
        try:
            vectors, counts = model.embed(texts, stopped)
        except TooLongError as error:
            failed = ProviderError(ProviderFault.TOO_LONG, str(error), index=error.index)
        except TypeError:
            failed = ProviderError(
                ProviderFault.REFUSED, "a text is not valid Unicode (lone surrogate)", index=_invalid(texts)
            )
        except Exception as error:
            failed = ProviderError(ProviderFault.SERVER, f"inference failed: {type(error).__name__}")
        else:
            if stopped():
                raise _closed()
            return EmbedAnswer(vectors=vectors, tokens=sum(counts), text_tokens=counts)
        raise failed

    def _load(self) -> LocalModel:
        """The model, loaded once. In the model's thread."""
        if self._model is not None:
            return self._model
        if self._failed is not None and time.monotonic() < self._failed[0]:
            raise ProviderError(ProviderFault.SERVER, self._failed[1])
        try:
            # onnxruntime and tokenizers belong to an extra, and take their time to import.
            from adapters.providers.local.model import LocalModel

            self._model = LocalModel(self._prepare(self._store), self._threads)
        except ImportError as error:
            reason = f"the local model needs {error.name}: install emberlog[local] and start again"
        except ModelError as error:
            reason = str(error)
        except Exception as error:
            reason = f"the local model cannot be loaded: {type(error).__name__}: {error}"
        else:
            return self._model
        self._failed = (time.monotonic() + RETRY_SECONDS, reason)
        raise ProviderError(ProviderFault.SERVER, reason)


def _closed() -> ProviderError:
    return ProviderError(ProviderFault.CONNECTION, "the local provider was closed")


def _invalid(texts: list[str]) -> int | None:
    for index, text in enumerate(texts):
        try:
            text.encode()
        except UnicodeEncodeError:
            return index
    return None
