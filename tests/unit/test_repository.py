"""What the repository says of itself: documents, packaging and the container files agree with the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import typer.main
import yaml
from click import Command, Group

from gateway.settings import Settings, load_settings
from gateway.workers import INTERNAL_VARIABLES

ROOT = Path(__file__).parents[2]
DOCS = sorted(
    [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "client" / "README.md", *(ROOT / "docs").rglob("*.md")]
)
SHOWN = [*DOCS, ROOT / "compose.yaml", ROOT / "Dockerfile", ROOT / "Makefile"]
VARIABLES = {f"EMBERLOG_{name.upper()}" for name in Settings.model_fields} | {"EMBERLOG_CONFIG", *INTERNAL_VARIABLES}
COMPOSE_ONLY = {"EMBERLOG_DATABASE_PASSWORD", "EMBERLOG_DATABASE_OWNER_PASSWORD", "EMBERLOG_NAME"}


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)


@pytest.mark.parametrize("path", SHOWN, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_variable_named_in_a_document_is_a_setting(path: Path) -> None:
    named = set(re.findall(r"EMBERLOG_[A-Z_]*[A-Z]", path.read_text()))
    assert named <= VARIABLES | COMPOSE_ONLY


@pytest.mark.parametrize("path", DOCS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_make_verb_in_a_document_is_in_the_makefile(path: Path) -> None:
    verbs = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert (
        set(
            re.findall(
                r"(?<![\w-])make ([a-z]+)(?=[`\s])",
                "\n".join([*blocks(path, "sh"), *re.findall(r"`[^`]+`", path.read_text())]),
            )
        )
        <= verbs
    )


@pytest.mark.parametrize("path", DOCS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_emberlog_command_in_a_document_exists(path: Path) -> None:
    from gateway.cli import app

    root = typer.main.get_command(app)
    shown = [
        *re.findall(r"`(emberlog [^`]+)`", path.read_text()),
        *re.findall(r"^(?:\.venv/bin/)?(emberlog .*)$", "\n".join(blocks(path, "sh")), re.MULTILINE),
    ]
    for line in shown:
        at: Command = root
        for word in line.split()[1:]:
            if not hasattr(at, "commands") or not re.fullmatch(r"[a-z-]+", word) or word.startswith("-"):
                break
            group: Group = at  # type: ignore[assignment]
            assert word in group.commands, line
            at = group.commands[word]


def test_every_settings_example_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = [text for path in DOCS for text in blocks(path, "toml")]
    assert examples
    for number, text in enumerate(examples):
        config = tmp_path / f"{number}.toml"
        config.write_text(text)
        assert load_settings(config).endpoints


def test_the_settings_table_for_operators_names_every_setting_with_its_default() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    for name in Settings.model_fields:
        assert f"`{name}`" in text or f"`EMBERLOG_{name.upper()}`" in text, name


def test_the_lock_names_no_index_and_pins_every_dependency_with_hashes() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    assert "--index" not in lock
    pinned = set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    for extra in ("openai", "local", "otlp"):
        wanted += project["project"]["optional-dependencies"][extra]
    wanted += tomllib.loads((ROOT / "client" / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.split(r"[\[><=;\s]", name)[0].lower() for name in wanted} <= pinned
    for entry in re.split(r"^(?=[a-z0-9-]+==)", lock, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in entry


def test_the_image_contains_every_package_and_the_compose_file_only_known_services() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    for package in packages:
        assert f"COPY {package} {package}" in dockerfile
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    assert set(compose["services"]) == {"postgres", "valkey", "migrate", "gateway"}
    for service in compose["services"].values():
        for name in service.get("depends_on", {}):
            assert name in compose["services"]
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert source in compose["volumes"] or (ROOT / source).exists()
    gateway = compose["services"]["gateway"]
    assert gateway["stop_grace_period"] == "40s", "longer than drain_seconds, else the drain is cut short"


def test_every_sql_file_and_data_file_is_inside_a_package_of_the_wheel() -> None:
    packages = {"adapters", "domain", "gateway", "migrations", "projections"}
    for path in [*ROOT.glob("*/**/*.sql"), *ROOT.glob("*/**/catalogue.toml")]:
        top = path.relative_to(ROOT).parts[0]
        assert top in packages | {"tests", ".venv", "build", "dist"}, path
