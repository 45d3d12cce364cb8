"""Spans by the OpenTelemetry GenAI conventions, made after the fact from what a request knows anyway.

Only where an exporter is configured (`OTEL_EXPORTER_OTLP_ENDPOINT` or its `_TRACES_` variant, and the extra `otlp`): otherwise there is
no tracer and requests pay one comparison with None.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from secrets import randbits

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags, Tracer

from domain.events import EmbeddingFailed, EmbeddingGenerated

_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROVIDER_NAMES = {
    "openai": "openai",
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "vertex": "gcp.vertex_ai",
    "gemini": "gcp.gemini",
}
_NANO = 1_000_000_000


class TracingUnavailable(Exception):
    """An exporter is configured but its library is not installed; the message says what to install."""


class RequestTracing:
    """Makes one server span a request and one client span for the provider's part of it. Flushed by `close`."""

    def __init__(self, tracer: Tracer, shutdown: Callable[[], None] | None = None) -> None:
        self._tracer = tracer
        self._shutdown = shutdown

    def ended(
        self, data: EmbeddingGenerated | EmbeddingFailed, tenant: str, seconds: float, now_ns: int, caller: str | None
    ) -> None:
        """A request reached its outcome `seconds` after it came; `now_ns` is the wall clock, `caller` what `context_of` says."""
        start = now_ns - int(seconds * _NANO)
        attributes: dict[str, str | int] = {
            "gen_ai.operation.name": "embeddings",
            "gen_ai.request.model": data.model,
            "gen_ai.usage.input_tokens": data.tokens,
            "emberlog.tenant": tenant,
            "emberlog.space": data.space,
            "emberlog.inputs": data.inputs,
            "emberlog.billed_tokens": data.billed_tokens,
        }
        if data.provider is not None:
            attributes["gen_ai.provider.name"] = _PROVIDER_NAMES.get(data.provider, data.provider)
        if data.endpoint is not None:
            attributes["emberlog.endpoint"] = data.endpoint
        parent = trace.set_span_in_context(NonRecordingSpan(_remote(caller))) if caller else None
        span = self._tracer.start_span(
            f"embeddings {data.model}", context=parent, kind=SpanKind.SERVER, attributes=attributes, start_time=start
        )
        if isinstance(data, EmbeddingFailed):
            span.set_attribute("error.type", data.code)
            span.set_status(Status(StatusCode.ERROR))
        elif data.provider_ms:
            queued = start + data.queue_ms * 1_000_000
            call = self._tracer.start_span(
                f"embeddings {data.model}",
                context=trace.set_span_in_context(span),
                kind=SpanKind.CLIENT,
                attributes={
                    "gen_ai.operation.name": "embeddings",
                    "gen_ai.request.model": data.model,
                    "gen_ai.provider.name": attributes["gen_ai.provider.name"],
                    "emberlog.endpoint": data.endpoint,
                },
                start_time=queued,
            )
            call.end(queued + data.provider_ms * 1_000_000)
        span.end(now_ns)

    def close(self) -> None:
        """Send what is left."""
        if self._shutdown is not None:
            self._shutdown()


def _remote(caller: str) -> SpanContext:
    """The caller's span as its `traceparent` named it (`<trace id>-<span id>-<flags>`); of a trace id alone, a span that nobody sent."""
    trace_id, _, rest = caller.partition("-")
    span_id, _, flags = rest.partition("-")
    return SpanContext(
        int(trace_id, 16),
        int(span_id, 16) if span_id else randbits(64) | 1,
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16) & TraceFlags.SAMPLED if flags else TraceFlags.SAMPLED),
    )


def open_tracing(version: str) -> RequestTracing | None:
    """Tracing if an exporter is configured, else None. Raises `TracingUnavailable`."""
    if not any(os.environ.get(name) for name in _VARIABLES):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise TracingUnavailable(
            f"{' or '.join(_VARIABLES)} is set but the exporter is not installed: pip install 'emberlog[otlp]', or unset it"
        ) from None
    provider = TracerProvider(resource=Resource.create({"service.name": "emberlog", "service.version": version}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return RequestTracing(provider.get_tracer("emberlog", version), provider.shutdown)
