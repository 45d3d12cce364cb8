"""`GET /v1/models` and `GET /v1/models/{id}` in OpenAI's list shape: the models that an endpoint serves and the asker's tenant may use."""

from __future__ import annotations

from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from domain.catalogue import Model
from domain.errors import GatewayError
from domain.tenancy import Principal
from gateway.http.credentials import principal_of
from gateway.wire.service import EmbeddingService


class ModelInfo(msgspec.Struct, frozen=True):
    """A model as OpenAI shows it, with what a caller of embeddings wants to know. `created` is in seconds since the epoch."""

    id: str
    created: int
    owned_by: str
    dimensions: int
    max_tokens: int
    object: Literal["model"] = "model"


class ModelList(msgspec.Struct, frozen=True):
    """All models that are served to the asker."""

    data: list[ModelInfo]
    object: Literal["list"] = "list"


class ModelRoutes:
    """The two routes; any valid credential may ask."""

    def __init__(self, service: EmbeddingService) -> None:
        self._service = service

    async def list(self, request: Request) -> Response:
        """All served models that the asker may use."""
        principal = await principal_of(request, self._service)
        return _json(ModelList([_info(m) for m in _usable(self._service, principal)]))

    async def one(self, request: Request) -> Response:
        """One of them, by id or alias."""
        principal = await principal_of(request, self._service)
        found = self._service.models().resolve(request.path_params["model"])
        if found is None or found not in _usable(self._service, principal):
            raise GatewayError(
                "model_not_found",
                "there is no such model here: GET /v1/models lists those that are served",
                details={"field": "model"},
            )
        return _json(_info(found))


def _usable(service: EmbeddingService, principal: Principal) -> list[Model]:
    """What the asker's tenant may use, the installation whatever is served; by id."""
    if principal.tenant is None:
        return service.models().served()
    entries = service.selector.menu(principal.tenant).orders["any"]
    return sorted((entry.model for entry in entries), key=lambda model: model.id)


def _info(model: Model) -> ModelInfo:
    return ModelInfo(
        id=model.id,
        created=model.created,
        owned_by=model.owned_by or "unknown",
        dimensions=model.dimensions,
        max_tokens=model.max_tokens,
    )


def _json(value: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
