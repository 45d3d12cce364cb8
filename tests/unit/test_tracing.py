"""Spans of requests, by the OpenTelemetry GenAI conventions."""

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from domain.events import EmbeddingFailed, EmbeddingGenerated
from gateway.telemetry.tracing import RequestTracing, open_tracing
from gateway.trace import context_of

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter: InMemorySpanExporter) -> RequestTracing:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return RequestTracing(provider.get_tracer("test"))


def test_a_result_is_a_server_span_of_its_callers_trace_with_the_provider_call_inside(
    tracing: RequestTracing, exporter: InMemorySpanExporter
) -> None:
    data = EmbeddingGenerated(
        request_id="r", agent="a", attempt=1, at=0, model="m", provider="azure", endpoint="e", space="s", inputs=1,
        tokens=7, billed_tokens=7, price="p", latency_ms=30, dimensions=8, queue_ms=5, provider_ms=20,
    )  # fmt: skip
    tracing.ended(data, "acme", 0.030, 1_000_000_000, TRACE)
    call, request = exporter.get_finished_spans()
    assert (request.name, request.kind, call.kind) == ("embeddings m", SpanKind.SERVER, SpanKind.CLIENT)
    assert format(request.context.trace_id, "032x") == format(call.context.trace_id, "032x") == TRACE
    assert call.parent is not None
    assert call.parent.span_id == request.context.span_id
    assert request.attributes is not None
    assert request.attributes["gen_ai.operation.name"] == "embeddings"
    assert request.attributes["gen_ai.provider.name"] == "azure.ai.openai"
    assert request.attributes["gen_ai.usage.input_tokens"] == 7
    assert (request.end_time or 0) - (request.start_time or 0) == 30_000_000
    assert (call.end_time or 0) - (call.start_time or 0) == 20_000_000


def test_a_failure_names_its_code_as_the_error_type(tracing: RequestTracing, exporter: InMemorySpanExporter) -> None:
    data = EmbeddingFailed(
        request_id="r", agent="a", attempt=1, at=0, code="provider_error", retryable=False, message="", model="m",
        space="s", inputs=1, latency_ms=3,
    )  # fmt: skip
    tracing.ended(data, "acme", 0.003, 1_000_000_000, None)
    (span,) = exporter.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "provider_error"
    assert not span.status.is_ok


def test_without_an_exporter_configured_there_is_no_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)
    assert open_tracing("1") is None


@pytest.mark.parametrize(("flags", "spans"), [("01", 1), ("00", 0), ("03", 1)])
def test_the_callers_span_is_the_parent_and_its_choice_not_to_sample_is_respected(
    tracing: RequestTracing, exporter: InMemorySpanExporter, flags: str, spans: int
) -> None:
    data = EmbeddingFailed(
        request_id="r", agent="a", attempt=1, at=0, code="internal", retryable=True, message="", model="m", space="s", inputs=1,
        latency_ms=3,
    )  # fmt: skip
    caller = context_of(f"00-{TRACE}-b7ad6b7169203331-{flags}")
    assert caller is not None
    tracing.ended(data, "acme", 0.003, 1_000_000_000, caller)
    found = exporter.get_finished_spans()
    assert len(found) == spans
    for span in found:
        assert span.parent is not None
        assert format(span.parent.span_id, "016x") == "b7ad6b7169203331"
        assert format(span.context.trace_id, "032x") == TRACE
