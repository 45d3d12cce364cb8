"""`GET /v1/models` and `GET /v1/models/{id}` in OpenAI's list shape: the models that some configured endpoint serves."""

from __future__ import annotations

from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from domain.catalogue import Model
from domain.errors import GatewayError
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
    """All models that are served."""

    data: list[ModelInfo]
    object: Literal["list"] = "list"


class ModelRoutes:
    """The two routes; any valid credential may ask."""

    def __init__(self, service: EmbeddingService) -> None:
        self._service = service

    async def list(self, request: Request) -> Response:
        """All served models."""
        await principal_of(request, self._service)
        return _json(ModelList([_info(m) for m in self._service.models().served()]))

    async def one(self, request: Request) -> Response:
        """One served model, by id or alias."""
        await principal_of(request, self._service)
        catalogue = self._service.models()
        name = request.path_params["model"]
        model = catalogue.resolve(name)
        if model is None or not catalogue.candidates(model.id):
            raise GatewayError(
                "model_not_found",
                "there is no such model here: GET /v1/models lists those that are served",
                details={"field": "model"},
            )
        return _json(_info(model))


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
