"""Where this process finds its database and its Redis: embedded ones it was given, or those of the settings."""

from __future__ import annotations

import msgspec


class Places(msgspec.Struct, frozen=True):
    """Connection strings. `owner_dsn` is for migrations, the archive, and what destroys or replaces keys; `redis_url` None means there is none."""

    app_dsn: str
    owner_dsn: str
    redis_url: str | None
