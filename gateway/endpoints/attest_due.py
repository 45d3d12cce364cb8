"""Attesting again what was attested a while ago, and trying again what drifted. One process of the installation does it at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from hashlib import blake2b

import structlog

from domain.attestations import outdated
from domain.catalogue import Candidate, Catalogue
from domain.endpoints import Endpoints
from domain.errors import GatewayError
from domain.events import EndpointAttested
from domain.space import size_and_type
from gateway.endpoints.attestations import Attestations

AGAIN_SECONDS = 3600
"""An endpoint whose vectors were not those of the space is asked again this long after."""
EARLY = 0.25
"""Attestations are brought forward by up to this share of their period, each by its own, so that they do not all come at once."""
AT_ONCE = 4
"""Endpoints of the installation that are asked at once. Of each tenant it is one: those that hang hold up nobody else's."""
_log = structlog.get_logger("emberlog.attestation")


class DueAttestations:
    """`catalogue` gives the catalogue as of now. `run` is a task of the installation's maintenance."""

    def __init__(
        self,
        endpoints: Endpoints,
        attestations: Attestations,
        catalogue: Callable[[], Catalogue],
        every_hours: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._endpoints = endpoints
        self._attestations = attestations
        self._catalogue = catalogue
        self._period = every_hours * 3600
        self._clock = clock

    async def run(self) -> dict[str, int]:
        """Attest what is due; how many passed, drifted, and did not answer. Those are asked again in the next run.

        An endpoint that was configured anew, or whose references were renewed, is left to the first request that comes for it.
        """
        counted = {"passed": 0, "drifted": 0, "unanswered": 0}
        rooms: dict[str | None, asyncio.Semaphore] = {}

        async def one(candidate: Candidate, told: EndpointAttested) -> None:
            owner = candidate.endpoint.tenant
            async with rooms.setdefault(owner, asyncio.Semaphore(AT_ONCE if owner is None else 1)):
                try:
                    found = await self._attestations.attest(candidate, *size_and_type(told.space))
                except GatewayError as error:
                    counted["unanswered"] += 1
                    _log.warning("attestation_unanswered", endpoint=told.endpoint, space=told.space, reason=error.code)
                except Exception as error:  # whatever is wrong with one, the others are to be asked
                    counted["unanswered"] += 1
                    _log.error("attestation_broken", endpoint=told.endpoint, space=told.space, exc_info=error)
                else:
                    counted["passed" if found.passed else "drifted"] += 1

        async with asyncio.TaskGroup() as group:
            for candidate, told in self.due():
                group.create_task(one(candidate, told))
        return counted

    def due(self) -> Iterator[tuple[Candidate, EndpointAttested]]:
        """What is to be attested by now."""
        catalogue, now = self._catalogue(), self._clock()
        for (endpoint, space), told in sorted(self._endpoints.attested.items()):
            if outdated(self._endpoints, told) or now < told.at / 1e6 + self._wait(told):
                continue
            for candidate in catalogue.all_candidates(told.model):
                known = candidate.endpoint
                if (
                    known.name == endpoint
                    and known.configuration == told.configuration
                    and candidate.model.space(*size_and_type(space)) == space
                ):
                    yield candidate, told

    def _wait(self, told: EndpointAttested) -> float:
        if not told.passed:
            return AGAIN_SECONDS
        digest = blake2b(f"{told.endpoint}\0{told.space}".encode(), digest_size=4).digest()
        return self._period * (1 - EARLY * int.from_bytes(digest) / 2**32)
