"""What a model's configuration must be: the schema of each model type and of each provider, every failing field told."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from domain.catalogue import EMBEDDING
from domain.events import ModelSpec, OfferingSpec
from domain.problems import Problems
from domain.tenant_config import TIERS

TYPES = (
    EMBEDDING,
    "text-generation",
    "text-to-image",
    "image-to-text",
    "audio-to-text",
    "text-to-audio",
    "classification",
    "other",
)
"""What a model may be for. All but embedding models are kept in the catalogue only: requests for them are refused."""
MODEL_TYPES = ("text", "multimodal", "code")
"""What an embedding model embeds."""
TOKENIZERS = ("cl100k_base", "o200k_base", "all-MiniLM-L6-v2")
"""The tokenisers that a model may name; without one its tokens are estimated."""

MAX_DIMENSIONS = 65_536
MAX_TOKENS = 10_000_000
MAX_INPUTS = 100_000
MAX_CALL_TOKENS = 100_000_000
MAX_RANK = 1_000_000
MAX_CREATED = 253_402_300_799
"""The last second of the year 9999."""
MAX_LISTED = 32
"""Aliases, capabilities, sizes, offerings and settings that a model may have of each."""

RESERVED = frozenset({"discover", "download", "register", "search", "state", "statistics"})
"""What no model may be called: its routes lie beside these."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,127}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,31}")
_NAME = re.compile(r"[^\s@\x00-\x1f\x7f-\x9f]{1,200}")
_CAPABILITY = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_PROVIDER = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_SETTING = re.compile(r"[a-z][a-z0-9_]{0,63}")


class ProviderSchema(msgspec.Struct, frozen=True):
    """What an offering at a provider may say: the settings of its own, by name with what each may be, and the most texts of a call.

    A setting with no options listed may be any text of up to 256 characters. `inputs` None: not known.
    """

    config: Mapping[str, tuple[str, ...]] = {}
    inputs: int | None = None
    takes_tokens: bool = False


_YES_NO = ("true", "false")

PROVIDERS: dict[str, ProviderSchema] = {
    # Servers that speak OpenAI's API have caps of their own, so that its 2,048 texts bind no offering here.
    "openai": ProviderSchema(takes_tokens=True),
    "azure": ProviderSchema(inputs=2048, takes_tokens=True),
    "bedrock": ProviderSchema(
        {"family": ("titan", "cohere"), "truncate": ("NONE", "START", "END", "LEFT", "RIGHT"), "normalize": _YES_NO},
        inputs=96,
    ),
    "vertex": ProviderSchema({"auto_truncate": _YES_NO, "billing": ("token", "character")}, inputs=250),
    "gemini": ProviderSchema(inputs=100),
    "cohere": ProviderSchema({"truncate": ("NONE", "START", "END")}, inputs=96),
    "voyage": ProviderSchema({"truncation": _YES_NO}, inputs=1000),
    # Not `late_chunking`: it makes a text's vector depend on the other texts of the call, which are other people's.
    "jina": ProviderSchema({"truncate": _YES_NO, "normalized": _YES_NO}),
    "mistral": ProviderSchema(inputs=256),
    "local": ProviderSchema(),
}
"""The providers that this release knows. One that an installed package adds may have settings of any name."""


def check_model(problems: Problems, model: str, spec: ModelSpec, offerings: Sequence[OfferingSpec]) -> None:
    """Add what is wrong with a model as it would stand in the catalogue."""
    if model in RESERVED:
        problems.add("model_id", f"{model!r} is a word of the API's own: take another")
    elif not _ID.fullmatch(model):
        problems.add(
            "model_id",
            f"{model[:40]!r}: expected 1 to 128 of A-Z, a-z, 0-9 and . _ : + -, a letter or digit first; a name with '/' can be an alias",
        )
    _check_facts(problems, spec)
    if spec.type == EMBEDDING:
        _check_sizes(problems, spec)
    elif spec.type in TYPES:
        _check_no_sizes(problems, spec)
    _check_names(problems, model, spec)
    if len(offerings) > MAX_LISTED:
        problems.add("offerings", f"{len(offerings)} are listed; expected at most {MAX_LISTED}")
    seen: set[str] = set()
    for index, offering in enumerate(offerings[:MAX_LISTED]):
        if offering.provider in seen:
            problems.add(
                f"offerings[{index}].provider", f"{offering.provider!r} has an offering already: expected one each"
            )
        seen.add(offering.provider)
        _check_offering(problems, f"offerings[{index}]", spec, offering)


def _within(problems: Problems, field: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        problems.add(field, f"{_short(value)} is out of range: expected {low} to {high}")


def _short(value: int) -> str:
    """A number that somebody sent: one of a million digits is not repeated."""
    return str(value) if abs(value) < 10**20 else "a number of over 20 digits"


def _one_of(problems: Problems, field: str, value: str, options: Sequence[str]) -> None:
    if value not in options:
        problems.add(field, f"{value[:40]!r} is none of {', '.join(options)}")


def _check_facts(problems: Problems, spec: ModelSpec) -> None:
    if not _VERSION.fullmatch(spec.version):
        problems.add("version", f"{spec.version[:40]!r}: expected 1 to 32 of A-Z, a-z, 0-9 and . _ + -")
    _one_of(problems, "type", spec.type, TYPES)
    _one_of(problems, "model_type", spec.model_type, MODEL_TYPES)
    _one_of(problems, "minimum_tier", spec.minimum_tier, TIERS)
    if spec.tokenizer is not None:
        _one_of(problems, "tokenizer", spec.tokenizer, TOKENIZERS)
    _within(problems, "max_tokens", spec.max_tokens, 1, MAX_TOKENS)
    _within(problems, "rank", spec.rank, 1, MAX_RANK)
    _within(problems, "created", spec.created, 0, MAX_CREATED)
    for field, text in (("name", spec.name), ("owned_by", spec.owned_by)):
        if text is not None and len(text) > 200:
            problems.add(field, f"has {len(text)} characters; expected at most 200")
    _check_list(problems, "capabilities", spec.capabilities)
    for index, capability in enumerate(spec.capabilities[:MAX_LISTED]):
        if not _CAPABILITY.fullmatch(capability):
            problems.add(f"capabilities[{index}]", f"{capability[:40]!r}: expected 1 to 64 of a-z, 0-9, _ and -")


def _check_list(problems: Problems, field: str, items: Sequence[str] | Sequence[int]) -> None:
    if len(items) > MAX_LISTED:
        problems.add(field, f"{len(items)} are listed; expected at most {MAX_LISTED}")
    elif len(set(items)) < len(items):
        problems.add(field, "one of them is listed twice")


def _check_sizes(problems: Problems, spec: ModelSpec) -> None:
    _within(problems, "dimensions", spec.dimensions, 1, MAX_DIMENSIONS)
    _check_list(problems, "dimensions_allowed", spec.dimensions_allowed)
    for index, size in enumerate(spec.dimensions_allowed[:MAX_LISTED]):
        _within(problems, f"dimensions_allowed[{index}]", size, 1, MAX_DIMENSIONS)
    if spec.dimensions_range is None:
        return
    if spec.dimensions_allowed:
        problems.add("dimensions_range", "sizes are listed in dimensions_allowed too: expected one of the two")
    low, high = spec.dimensions_range
    if not 1 <= low <= spec.dimensions <= high <= MAX_DIMENSIONS:
        problems.add(
            "dimensions_range",
            f"[{_short(low)}, {_short(high)}]: expected [min, max] from 1 to {MAX_DIMENSIONS} around the default of {_short(spec.dimensions)}",
        )


def _check_no_sizes(problems: Problems, spec: ModelSpec) -> None:
    for field in ("dimensions", "dimensions_allowed", "dimensions_range", "supports_binary"):
        if getattr(spec, field):
            problems.add(field, f"a model of the type {spec.type[:40]!r} has no vectors: leave it out, or 0")


def _check_names(problems: Problems, model: str, spec: ModelSpec) -> None:
    _check_list(problems, "aliases", spec.aliases)
    for index, alias in enumerate(spec.aliases[:MAX_LISTED]):
        if not _NAME.fullmatch(alias):
            problems.add(f"aliases[{index}]", f"{alias[:40]!r}: expected 1 to 200 characters without spaces and '@'")
        elif alias == model:
            problems.add(f"aliases[{index}]", "is the model's own id")


def _check_offering(problems: Problems, where: str, spec: ModelSpec, offering: OfferingSpec) -> None:
    if not _PROVIDER.fullmatch(offering.provider):
        problems.add(f"{where}.provider", f"{offering.provider[:40]!r}: expected a name such as openai")
    if not 1 <= len(offering.provider_model) <= 256 or not offering.provider_model.isprintable():
        problems.add(
            f"{where}.provider_model", "expected the provider's id of the model, 1 to 256 printable characters"
        )
    schema = PROVIDERS.get(offering.provider)
    most = MAX_INPUTS if schema is None or schema.inputs is None else schema.inputs
    _within(problems, f"{where}.max_inputs", offering.max_inputs, 1, most)
    low = max(1, min(spec.max_tokens, MAX_TOKENS))
    if not low <= offering.max_tokens_per_call <= MAX_CALL_TOKENS:
        problems.add(
            f"{where}.max_tokens_per_call",
            f"{_short(offering.max_tokens_per_call)} is out of range: expected at least one text of {low} tokens and at most {MAX_CALL_TOKENS}",
        )
    if offering.takes_tokens and spec.tokenizer is None:
        problems.add(f"{where}.takes_tokens", "token arrays need a model whose tokenizer is named")
    if offering.takes_tokens and schema is not None and not schema.takes_tokens:
        problems.add(f"{where}.takes_tokens", f"provider {offering.provider!r} takes texts only")
    _check_settings(problems, f"{where}.config", offering, schema)


def _check_settings(problems: Problems, where: str, offering: OfferingSpec, schema: ProviderSchema | None) -> None:
    if len(offering.config) > MAX_LISTED:
        problems.add(where, f"has {len(offering.config)} settings; expected at most {MAX_LISTED}")
        return
    for name, value in offering.config.items():
        if schema is not None and name not in schema.config:
            known = ", ".join(schema.config) or "none"
            problems.add(f"{where}.{name[:40]}", f"provider {offering.provider!r} has no such setting; it has {known}")
        elif schema is None and not _SETTING.fullmatch(name):
            problems.add(f"{where}.{name[:40]}", "expected a name of 1 to 64 of a-z, 0-9 and _")
        elif len(value) > 256:
            problems.add(f"{where}.{name}", f"has {len(value)} characters; expected at most 256")
        elif schema is not None and (options := schema.config[name]):
            _one_of(problems, f"{where}.{name}", value, options)
