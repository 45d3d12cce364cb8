"""What Google calls the input types of the contract."""

from __future__ import annotations

_TASKS = {
    "query": "RETRIEVAL_QUERY",
    "document": "RETRIEVAL_DOCUMENT",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
}


def task_of(input_type: str | None) -> str:
    """The task type, that of documents where none is said: left out, Vertex would take a query and the Gemini API something of its own."""
    return _TASKS.get(input_type or "document", "RETRIEVAL_DOCUMENT")
