"""boto3's client for Bedrock, as an endpoint is configured: its place, its credential and nothing of another account's."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from typing import Any

import boto3
import botocore.session
import msgspec
from botocore.config import Config
from botocore.exceptions import NoCredentialsError
from botocore.loaders import Loader
from botocore.tokens import FrozenAuthToken

from domain.catalogue import Endpoint

SERVICE = "bedrock-runtime"
CONTROL = "bedrock"

# botocore logs request bodies and headers, which is to say texts and signatures, at DEBUG: never, whatever the root logger is set to.
logging.getLogger("botocore").setLevel(logging.WARNING)

_API_KEY = re.compile(r"(ABSK|bedrock-api-key-)[\x21-\x7e]+")
"""AWS itself refuses keys without one of these beginnings."""


class AccessKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An AWS access key, with the token that belongs to it where it is a temporary one."""

    aws_access_key_id: str
    aws_secret_access_key: str
    aws_session_token: str | None = None

    def __repr__(self) -> str:
        return "AccessKey(...)"


class ApiKey(msgspec.Struct, frozen=True):
    """A Bedrock API key, sent as a bearer token."""

    token: str

    def __repr__(self) -> str:
        return "ApiKey(...)"


Credential = AccessKey | ApiKey | None
"""None: the SDK looks for credentials in its own way (variables, profile, role)."""


def credential_of(secret: str | None) -> Credential:
    """The credential in a secret: an access key as JSON, or a Bedrock API key. Raises ValueError, which does not quote it."""
    if secret is None:
        return None
    secret = secret.strip()
    if secret.startswith("{"):
        with contextlib.suppress(msgspec.MsgspecError, UnicodeError):
            key = msgspec.json.decode(secret, type=AccessKey)
            if key.aws_access_key_id and key.aws_secret_access_key:
                return key
    elif _API_KEY.fullmatch(secret):
        return ApiKey(secret)
    raise ValueError(
        'the credential is not one for AWS; expected {"aws_access_key_id": "...", "aws_secret_access_key": "..."} with "aws_session_token" '
        "where the key is a temporary one, or a Bedrock API key (it begins with ABSK or bedrock-api-key-)"
    )


class _Data(Loader):  # type: ignore[misc]  # botocore has no types
    """The SDK's data about its services, a megabyte, read once in a process and not once a session."""

    @property
    def search_paths(self) -> list[str]:
        """A list of its own for each that asks: every session of boto3 adds its folder to it."""
        return [*super().search_paths]


_DATA = _Data()


def session_of(endpoint: Endpoint, credential: Credential) -> Any:
    """A botocore session of this endpoint. With a credential of its own it reads no profile and no file; the chain reads what the SDK reads."""
    if credential is None:
        session = botocore.session.Session(profile=endpoint.options.get("profile"))
        session.register_component("data_loader", _DATA)
        return session
    session = botocore.session.Session(
        session_vars={
            "profile": (None, None, None, None),
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
        }
    )
    session.register_component("data_loader", _DATA)
    token = FrozenAuthToken(credential.token) if isinstance(credential, ApiKey) else None
    session.register_component("token_provider", _Token(token))
    return session


def client_of(session: Any, endpoint: Endpoint, region: str, credential: Credential, service: str = SERVICE) -> Any:
    """A client that makes one attempt a call. Takes a tenth of a second, and longer where the SDK has to ask for credentials.

    Raises `NoCredentialsError` where the SDK finds none.
    """
    settings: dict[str, Any] = {
        "retries": {"total_max_attempts": 1, "mode": "standard"},
        # An endpoint names its own place; AWS_ENDPOINT_URL speaks of everybody's.
        "ignore_configured_endpoint_urls": True,
        "parameter_validation": False,
        # The SDK's own, with what it knows of this machine, is put together twice a call: a tenth of the call's time.
        "user_agent": "emberlog",
    }
    keys: dict[str, str | None] = {}
    # Said in code, this is not replaced by what AWS_BEARER_TOKEN_BEDROCK holds: that is another account's.
    if isinstance(credential, AccessKey) or "profile" in endpoint.options:
        settings["signature_version"] = "v4"
    if isinstance(credential, AccessKey):
        keys = msgspec.structs.asdict(credential)
    elif isinstance(credential, ApiKey):
        settings["signature_version"] = "bearer"
    elif session.get_credentials() is None and session.get_auth_token(signing_name="bedrock") is None:
        raise NoCredentialsError
    return boto3.Session(botocore_session=session).client(
        service,
        region_name=region,
        endpoint_url=endpoint.base_url if service == SERVICE else _control_address(endpoint.base_url),
        config=Config(**settings),
        **keys,
    )


def _control_address(base_url: str | None) -> str | None:
    """Where the models are listed, which AWS has at a host of its own; another server has all at one address."""
    return None if base_url is None else base_url.replace(f"//{SERVICE}.", f"//{CONTROL}.", 1)


class _Token:
    """The token provider of a session with a credential of its own: its API key or none, never one of the environment."""

    def __init__(self, token: FrozenAuthToken | None) -> None:
        self._token = token

    def load_token(self, **_: object) -> FrozenAuthToken | None:
        return self._token
