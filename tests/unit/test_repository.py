"""What the repository says of itself: documents, packaging and the container files agree with the code."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
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
NOT_SETTINGS = {
    "EMBERLOG_TEST_POSTGRES",
    "EMBERLOG_DATABASE_PASSWORD",
    "EMBERLOG_DATABASE_OWNER_PASSWORD",
    "EMBERLOG_NAME",
}


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)


@pytest.mark.parametrize("path", SHOWN, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_variable_named_in_a_document_is_a_setting(path: Path) -> None:
    named = set(re.findall(r"EMBERLOG_[A-Z_]*[A-Z]", path.read_text()))
    assert named <= VARIABLES | NOT_SETTINGS


@pytest.mark.parametrize("path", DOCS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


def test_every_document_is_listed_on_its_first_page() -> None:
    for first, folder in (
        (ROOT / "README.md", ROOT / "docs"),
        (ROOT / "docs/decisions/README.md", ROOT / "docs/decisions"),
    ):
        linked = {
            (first.parent / target).resolve() for target in re.findall(r"\]\(([^)#:]+)[^)]*\)", first.read_text())
        }
        assert set(folder.glob("*.md")) - {first} <= linked


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
            group: Group = at  # type: ignore[assignment]  # it has commands, so it is one
            assert word in group.commands, line
            at = group.commands[word]
        taken = {name for option in at.params for name in option.opts}
        assert set(re.findall(r"(?<=\s)--[a-z-]+", re.split(r"\s[#|<>]\s", line)[0])) <= taken | {"--help"}, line


@pytest.mark.parametrize("path", DOCS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_route_in_a_document_exists(path: Path) -> None:
    text = path.read_text()
    for methods, route in re.findall(r"`((?:[A-Z]+)(?:(?:,| and) [A-Z]+)*)\s(/[^`?\s]*)[^`]*`", text):
        for method in re.findall(r"[A-Z]+", methods):
            assert routes().fullmatch(f"{method} {route}"), f"{method} {route}"


@cache
def routes() -> re.Pattern[str]:
    from gateway.http.openapi import document

    paths: dict[str, dict[str, object]] = document("test")["paths"]
    shown = [re.escape(f"{method.upper()} {path}") for path, methods in paths.items() for method in methods]
    return re.compile("|".join(re.sub(r"\\\{\w+\\\}", "[^/]+", route) for route in shown))


def test_a_route_that_there_is_not_would_be_found() -> None:
    assert routes().fullmatch("GET /api/v1/endpoints/main")
    assert not routes().fullmatch("GET /api/v1/endpoints/main/nothing")


def test_every_settings_example_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = [text for path in DOCS for text in blocks(path, "toml")]
    assert examples
    for number, text in enumerate(examples):
        config = tmp_path / f"{number}.toml"
        config.write_text(text)
        settings = load_settings(config)
        assert settings.endpoints or settings.jwt_issuers


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
    for extra in ("openai", "bedrock", "vertex", "local", "otlp"):
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
    for path in [*ROOT.glob("*/**/*.sql"), *ROOT.glob("*/**/shipped/*.toml")]:
        top = path.relative_to(ROOT).parts[0]
        assert top in packages | {"tests", ".venv", "build", "dist"}, path


def test_make_help_lists_the_verbs() -> None:
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    verbs = re.findall(r"^  make ([a-z]+) +\S", told, re.MULTILINE)
    assert {"setup", "demo", "serve", "test", "check", "bench"} <= set(verbs)


def test_ci_checks_and_tests() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert re.findall(r"^make (\w+)$", script.read_text(), re.MULTILINE) == ["check", "test"]


def test_the_licence_is_apache_2_in_both_distributions() -> None:
    for folder in (ROOT, ROOT / "client"):
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        assert project["license"] == "Apache-2.0"
        assert project["requires-python"] == ">=3.11"
        assert "Version 2.0, January 2004" in (folder / "LICENSE").read_text()


def test_every_package_is_typed() -> None:
    for package in ("adapters", "domain", "gateway", "migrations", "projections", "client/emberlog_client"):
        assert (ROOT / package / "py.typed").is_file()


def test_the_domain_imports_what_computes_and_nothing_that_reaches_out() -> None:
    pure = {
        "__future__", "base64", "binascii", "bisect", "collections", "cryptography", "datetime", "domain", "enum", "functools",
        "hashlib", "heapq", "hmac", "itertools", "math", "msgspec", "numpy", "operator", "re", "secrets", "typing", "uuid",
        "zoneinfo",  # it reads the database of time zones, which is the same for everyone
    }  # fmt: skip
    for path in (ROOT / "domain").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, path
                names = [node.module or ""]
            assert {name.partition(".")[0] for name in names} <= pure, path
            assert not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open"), path


def test_an_import_against_the_arrows_is_found(tmp_path: Path) -> None:
    for package in ("adapters", "domain", "gateway", "migrations", "projections"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    sound = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path)})
    assert sound.returncode == 0, sound.stdout + sound.stderr
    (tmp_path / "domain" / "space.py").write_text("import adapters.appender\n")
    broken = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path)})
    assert broken.returncode == 1
    assert "domain.space -> adapters.appender" in broken.stdout


def test_nothing_points_to_one_machine_or_beside_the_repository() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    # Written apart, so that this file does not hold what it looks for.
    elsewhere = re.compile(
        "|".join(("/" + "work/", r"\.\./" + "shared", "/home" + "/[a-z]", "index" + "-url =", "find" + "-links"))
    )
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file():
            found = elsewhere.search(path.read_bytes().decode("utf-8", "replace"))
            assert found is None, f"{name}: {found[0] if found else ''}"


def test_the_page_of_events_is_the_one_that_make_docs_writes() -> None:
    from gateway.events_page import page

    assert (ROOT / "docs" / "events.md").read_text() == page()
