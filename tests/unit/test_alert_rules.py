"""The alert rules for Prometheus speak of metrics and labels that gateways really show."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from domain.alerts import SEVERITIES
from tests.acceptance.test_contract_metrics import LABELS

ROOT = Path(__file__).parents[2]
RULES = yaml.safe_load((ROOT / "deploy" / "prometheus" / "emberlog.rules.yaml").read_text())
SHOWN = LABELS | {"up": set()}
"""`up` is Prometheus' own, as are the labels `instance` and `job`."""
THEIRS = {"instance", "job"}


def rules() -> list[dict[str, Any]]:
    return [rule for group in RULES["groups"] for rule in group["rules"]]


def named(expression: str) -> dict[str, set[str]]:
    """Metric -> labels that it is selected by."""
    found = re.findall(r"\b((?:emberlog|embedding|health_check)_\w+|up)\b(?:\{([^}]*)\})?", expression)
    return {name: set(re.findall(r"(\w+)\s*[=!]~?", labels)) for name, labels in found}


def wrong(rule: dict[str, Any]) -> list[str]:
    """What the rule speaks of that there is not."""
    metrics = named(rule["expr"])
    problems = [name for name in metrics if name not in SHOWN]
    known = set().union(*(SHOWN.get(name, set()) for name in metrics)) | THEIRS
    for name, labels in metrics.items():
        problems += sorted(labels - SHOWN.get(name, set()) - THEIRS)
    grouped = {g.strip() for by in re.findall(r"by \(([^)]*)\)", rule["expr"]) for g in by.split(",")}
    told = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    return problems + sorted(grouped - known) + sorted(told - known)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_a_rule_names_metrics_and_labels_that_there_are(rule: dict[str, Any]) -> None:
    assert named(rule["expr"])
    assert wrong(rule) == []
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    assert rule.get("for", "0m").endswith("m")
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}


def test_a_metric_or_label_that_there_is_not_would_be_found() -> None:
    rule = {
        "expr": 'sum by (agent) (emberlog_no_such{kind="x"}) > emberlog_alerts_open{tenant="x"}',
        "annotations": {"summary": "{{ $labels.thread }}"},
    }
    assert wrong(rule) == ["emberlog_no_such", "kind", "tenant", "agent", "thread"]


def test_rule_names_are_unique_and_the_page_of_alerts_has_every_kind() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    page = (ROOT / "docs" / "alerts.md").read_text()
    for kind, severity in SEVERITIES.items():
        assert re.search(rf"^\| `{kind}` \| {severity} \|", page, re.MULTILINE), kind
