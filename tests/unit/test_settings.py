"""Settings: which source wins, and what a wrong one is told."""

from pathlib import Path

import pytest

from gateway.settings import InvalidSettings, load_settings, unknown_variables


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("LISTEN", "CONFIG", "WORKERS", "DATA_DIR", "DATABASE_URL", "REDIS_URL"):
        monkeypatch.delenv(f"EMBERLOG_{name}", raising=False)


def _config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "emberlog.toml"
    path.write_text(text)
    return path


def test_without_any_source_the_defaults_serve_the_local_model_on_loopback(tmp_path: Path) -> None:
    settings = load_settings()
    assert settings.host_port == ("127.0.0.1", 8080)
    assert settings.data_dir == tmp_path / ".emberlog"
    assert [e.name for e in settings.configured_endpoints()] == ["local"]
    assert settings.embedded_postgres
    assert settings.embedded_valkey


def test_environment_beats_dotenv_beats_toml_beats_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _config(tmp_path, 'listen = "127.0.0.1:1"\nworkers = 2\ndrain_seconds = 5\n')
    (tmp_path / ".env").write_text("EMBERLOG_LISTEN=127.0.0.1:2\nEMBERLOG_WORKERS=3\n")
    monkeypatch.setenv("EMBERLOG_LISTEN", "127.0.0.1:3")
    settings = load_settings(config)
    assert (settings.listen, settings.workers, settings.drain_seconds) == ("127.0.0.1:3", 3, 5)
    assert settings.cache_ttl_seconds == 3600


def test_every_failing_field_is_named_by_its_dotted_path(tmp_path: Path) -> None:
    config = _config(
        tmp_path,
        'workers = 0\nlisten = "nowhere"\n[[endpoints]]\nname = "a"\nprovider = "openai"\nmodels = ["m"]\ntimeout_ms = -1\ntypo = 1\n',
    )
    with pytest.raises(InvalidSettings) as failed:
        load_settings(config)
    lines = str(failed.value).splitlines()
    assert {line.split(": ")[0] for line in lines} == {
        "workers",
        "listen",
        "endpoints.0.timeout_ms",
        "endpoints.0.typo",
    }
    assert any("expected HOST:PORT" in line for line in lines)


def test_an_empty_path_is_refused_and_not_taken_for_the_folder_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBERLOG_DATA_DIR", "")
    with pytest.raises(InvalidSettings, match="data_dir: is empty"):
        load_settings()


def test_an_unknown_setting_in_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="lisen: there is no such setting"):
        load_settings(_config(tmp_path, 'lisen = "127.0.0.1:1"\n'))


def test_broken_toml_is_refused_with_the_files_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match=r"emberlog\.toml"):
        load_settings(_config(tmp_path, "listen = \n"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="there is no file"):
        load_settings(tmp_path / "absent.toml")


def test_secrets_are_masked_wherever_settings_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBERLOG_DATABASE_URL", "postgresql://u:hunter2@db/x")
    settings = load_settings()
    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json()


def test_a_secret_in_a_failing_file_is_not_echoed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBERLOG_WORKERS", "hunter2")
    with pytest.raises(InvalidSettings) as failed:
        load_settings()
    assert "hunter2" not in str(failed.value)


def test_models_may_be_a_list_or_carry_the_providers_own_ids(tmp_path: Path) -> None:
    config = _config(
        tmp_path,
        '[[endpoints]]\nname = "a"\nprovider = "openai"\nmodels = ["text-embedding-3-small", {"text-embedding-3-large" = "mine"}]\n',
    )
    (endpoint,) = load_settings(config).configured_endpoints()
    assert endpoint.models == {"text-embedding-3-small": "", "text-embedding-3-large": "mine"}
    assert endpoint.api_key_env == "OPENAI_API_KEY"


def test_a_compatible_server_gets_the_key_of_openai_only_where_its_endpoint_names_it(tmp_path: Path) -> None:
    table = '[[endpoints]]\nname = "{}"\nprovider = "openai"\nbase_url = "http://127.0.0.1:1/v1"\nmodels = ["m"]\n'
    config = _config(tmp_path, table.format("a") + table.format("b") + 'api_key_env = "MINE"\n')
    plain, named = load_settings(config).configured_endpoints()
    assert (plain.api_key_env, named.api_key_env) == (None, "MINE")


@pytest.mark.parametrize(
    ("provider", "variable"),
    [
        ("azure", "AZURE_OPENAI_API_KEY"),
        ("cohere", "COHERE_API_KEY"),
        ("voyage", "VOYAGE_API_KEY"),
        ("mistral", "MISTRAL_API_KEY"),
        ("jina", "JINA_API_KEY"),
        ("gemini", "GEMINI_API_KEY"),
        ("bedrock", None),
        ("vertex", None),
        ("local", None),
        ("somebody-elses", None),
    ],
)
def test_each_providers_key_is_where_its_users_have_it(tmp_path: Path, provider: str, variable: str | None) -> None:
    table = f'[[endpoints]]\nname = "a"\nprovider = "{provider}"\nmodels = ["m"]\n'
    (endpoint,) = load_settings(_config(tmp_path, table)).configured_endpoints()
    assert endpoint.api_key_env == variable
    (endpoint,) = load_settings(_config(tmp_path, table + 'api_key_env = "MINE"\n')).configured_endpoints()
    assert endpoint.api_key_env == "MINE"


def test_what_a_provider_takes_beside_goes_into_the_options_of_its_endpoint(tmp_path: Path) -> None:
    table = '[[endpoints]]\nname = "a"\nprovider = "openai"\nmodels = ["m"]\nproject = "p"\nregion = "r"\napi_version = "v"\n'
    config = _config(tmp_path, table + 'options = { organization = "o" }\n')
    (endpoint,) = load_settings(config).configured_endpoints()
    assert endpoint.options == {"project": "p", "region": "r", "api_version": "v", "organization": "o"}


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://h/v1", "http://", "https://u:p@h/v1", "https://h/v1?key=k", "https://h /v1"]
)
def test_an_address_that_is_none_or_holds_a_secret_is_refused_without_being_shown(tmp_path: Path, url: str) -> None:
    table = f'[[endpoints]]\nname = "a"\nprovider = "openai"\nmodels = ["m"]\nbase_url = "{url}"\n'
    with pytest.raises(InvalidSettings, match=r"endpoints\.0\.base_url: expected http:// or https://") as failed:
        load_settings(_config(tmp_path, table))
    assert url == "http://" or url not in str(failed.value)


def test_an_option_said_twice_is_refused(tmp_path: Path) -> None:
    table = '[[endpoints]]\nname = "a"\nprovider = "openai"\nmodels = ["m"]\nproject = "p"\n'
    with pytest.raises(InvalidSettings, match=r"endpoints\.0: project .* say it once"):
        load_settings(_config(tmp_path, table + 'options = { project = "q" }\n'))


def test_two_endpoints_of_one_name_are_refused(tmp_path: Path) -> None:
    table = '[[endpoints]]\nname = "a"\nprovider = "local"\nmodels = ["m"]\n'
    with pytest.raises(InvalidSettings, match="must be unique"):
        load_settings(_config(tmp_path, table + table))


def test_several_workers_need_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBERLOG_WORKERS", "2")
    monkeypatch.setenv("EMBERLOG_REDIS_URL", "none")
    with pytest.raises(InvalidSettings, match="only one process"):
        load_settings()


def test_a_misspelt_variable_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBERLOG_LISTENN", "x")
    assert unknown_variables() == ["EMBERLOG_LISTENN"]


def test_a_providers_key_may_stand_in_dotenv_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / ".env").write_text("OPENAI_API_KEY=from-file\nEMBERLOG_WORKERS=2\n")
    settings = load_settings()
    assert settings.workers == 2
    assert settings.environment()["OPENAI_API_KEY"] == "from-file"


def test_a_trusted_proxy_that_is_no_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBERLOG_TRUSTED_PROXIES", "127.0.0.1, proxy-host")
    with pytest.raises(InvalidSettings, match=r"trusted_proxies.*proxy-host"):
        load_settings()


def test_segments_go_to_the_data_folder_unless_the_database_is_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings().archive_folder == tmp_path / ".emberlog" / "archive"
    monkeypatch.setenv("EMBERLOG_DATABASE_URL", "postgresql://db/x")
    assert load_settings().archive_folder is None
    monkeypatch.setenv("EMBERLOG_ARCHIVE_DIR", str(tmp_path / "shared"))
    assert load_settings().archive_folder == tmp_path / "shared"


def test_archiving_by_age_needs_a_folder_and_an_age_beyond_the_dedupe_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBERLOG_ARCHIVE_AFTER_DAYS", "2")
    with pytest.raises(InvalidSettings, match="archive_after_days"):
        load_settings()
    monkeypatch.setenv("EMBERLOG_ARCHIVE_AFTER_DAYS", "3")
    assert load_settings().archive_after_days == 3
    monkeypatch.setenv("EMBERLOG_DATABASE_URL", "postgresql://db/x")
    with pytest.raises(InvalidSettings, match=r"archive_after_days: .*archive_dir"):
        load_settings()
