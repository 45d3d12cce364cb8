"""Settings that were changed by an event: the last layer, over the file and the environment. Folded from their events."""

from __future__ import annotations

from domain.events import EventData, SettingChanged


class LiveSettings:
    """Name -> JSON of the value. `version` grows with every change."""

    def __init__(self) -> None:
        self.version = 0
        self.values: dict[str, str] = {}

    def apply(self, data: EventData) -> None:
        """Fold one event."""
        if not isinstance(data, SettingChanged):
            return
        self.version += 1
        if data.value is None:
            self.values.pop(data.name, None)
        else:
            self.values[data.name] = data.value
