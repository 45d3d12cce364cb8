"""The installation: maintenance, archive, views, keys."""

from __future__ import annotations

from domain.events.base import EventData


class MasterKeyRotated(EventData, frozen=True, gc=False, omit_defaults=True):
    """Every tenant's key was wrapped anew with another installation key. `tenants` counts them."""

    TYPE = "master_key.rotated"

    tenants: int
    at: int


class MaintenanceRan(EventData, frozen=True, gc=False, omit_defaults=True):
    """A run of a periodic task: what it did in numbers, or the error that ended it; `ms` is how long it took."""

    TYPE = "maintenance.ran"

    task: str
    at: int
    ms: int
    instance: str
    result: dict[str, int] = {}
    error: str | None = None


class LogArchived(EventData, frozen=True, gc=False, omit_defaults=True):
    """The events `first_position` to `last_position` moved from Postgres to a segment file. `sha256` (hex) is the file's."""

    TYPE = "log.archived"

    first_position: int
    last_position: int
    file: str
    sha256: str
    at: int


class LogRestored(EventData, frozen=True, gc=False, omit_defaults=True):
    """The log was restored from a backup: cursors of the incarnation `previous` are refused from here on.

    `shredded` counts the tenants whose destruction was applied again.
    """

    TYPE = "log.restored"

    previous: str
    shredded: int
    at: int


class ProjectionHalted(EventData, frozen=True, gc=False, omit_defaults=True):
    """A view stands before the event at `failed_position`, which it cannot fold; `error` says why, without the event's data."""

    TYPE = "projection.halted"

    projection: str
    generation: int
    failed_position: int
    error: str


class ProjectionParked(EventData, frozen=True, gc=False, omit_defaults=True):
    """A view went on without the event at `failed_position`, which it cannot fold; it waits to be retried or discarded."""

    TYPE = "projection.parked"

    projection: str
    generation: int
    failed_position: int
    error: str


class ProjectionUnparked(EventData, frozen=True, gc=False, omit_defaults=True):
    """A parked event was folded after all (`action` `retried`), or given up (`discarded`)."""

    TYPE = "projection.unparked"

    projection: str
    generation: int
    failed_position: int
    action: str
    at: int


class ProjectionRebuilt(EventData, frozen=True, gc=False, omit_defaults=True):
    """A view is read from a generation folded anew from the whole log. `digest` (hex) is the view's at `up_to`.

    `equal` is whether the generation before it had the same digest there.
    """

    TYPE = "projection.rebuilt"

    projection: str
    generation: int
    previous: int
    up_to: int
    digest: str
    equal: bool
    at: int


class ProjectionRolledBack(EventData, frozen=True, gc=False, omit_defaults=True):
    """A view is read from the generation before its last rebuild again."""

    TYPE = "projection.rolled_back"

    projection: str
    generation: int
    previous: int
    at: int


class SettingChanged(EventData, frozen=True, gc=False, omit_defaults=True):
    """A setting of the installation, over the environment's and the file's; `value` is JSON, None takes it away again."""

    TYPE = "setting.changed"
    DECISION = True

    name: str
    value: str | None = None
    actor: str | None = None
