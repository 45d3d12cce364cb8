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
    found = re.findall(r"\b((?:emberlog|embedding|health_check|circuit_breaker)_\w+|up)\b(?:\{([^}]*)\})?", expression)
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


def test_the_page_of_operations_lists_every_metric_with_its_labels() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    rows = re.findall(
        r"^\| (`(?:emberlog|embedding|health_check_status|circuit)_?[^|]*) \|([^|]*)\|", page, re.MULTILINE
    )
    told = {
        name: set(re.findall(r"`(\w+)`", labels)) for names, labels in rows for name in re.findall(r"`(\w+)`", names)
    }
    histogram = r"(?<=duration_seconds)_(bucket|count|sum)$"
    assert told == {re.sub(histogram, "", name): labels - {"le"} for name, labels in LABELS.items()}


def test_the_monitoring_services_load_the_rules_read_the_metrics_and_tell_one_alertmanager() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    added = yaml.safe_load((ROOT / "deploy" / "monitoring.yaml").read_text())
    services = added["services"]
    mounted = {}
    for service in ("prometheus", "alertmanager"):
        for mount in services[service]["volumes"]:
            source, target = mount.split(":")[:2]
            if source.startswith("./"):
                mounted[target] = yaml.safe_load((ROOT / source).read_text())
            else:
                assert source in added["volumes"]
    prometheus = mounted["/etc/prometheus/prometheus.yml"]
    assert [mounted[f"/etc/prometheus/{name}"] for name in prometheus["rule_files"]] == [RULES]
    [job] = prometheus["scrape_configs"]
    assert f'job="{job["job_name"]}"' in next(r["expr"] for r in rules() if r["alert"] == "EmberlogDown")
    assert compose["services"].keys() & services.keys() == {"gateway"}
    assert compose["services"]["gateway"]["ports"] == ["127.0.0.1:8080:8080"]
    assert job["static_configs"] == [{"targets": ["gateway:8080"]}]
    secret = job["authorization"]["credentials_file"].removeprefix("/run/secrets/")
    assert [secret] == services["prometheus"]["secrets"] == list(added["secrets"])
    [manager] = prometheus["alerting"]["alertmanagers"]
    assert manager["static_configs"] == [{"targets": ["alertmanager:9093"]}]
    assert services["gateway"]["environment"] == {"EMBERLOG_ALERTMANAGER_URL": "http://alertmanager:9093"}
    routed = mounted["/etc/alertmanager/alertmanager.yml"]
    assert routed["route"]["receiver"] in [receiver["name"] for receiver in routed["receivers"]]
