"""What goes wrong: the rows of the chaos table."""

from __future__ import annotations

from typing import NamedTuple

from gateway.bench.faults import Fault

POISON = "this text is poison"


class Plan(NamedTuple):
    """What the provider does until half of the requests have ended; with `poison` only to calls that hold such a text, and to the end.

    `elsewhere`: another endpoint may answer what fails so. `long_texts`: some texts are longer than the server takes. `gone`: nobody
    listens.
    """

    name: str
    fault: Fault | None = None
    elsewhere: bool = True
    poison: bool = False
    long_texts: bool = False
    gone: bool = False

    @property
    def seconds(self) -> float:
        """How long a call may take."""
        return 0.1 if self.fault is not None and self.fault.kind == "hang" else 10.0

    @property
    def of_texts(self) -> bool:
        """Whether what fails is in the texts of some requests rather than in the provider."""
        return self.poison or self.long_texts


def _status(name: str, status: int, *, elsewhere: bool = True, retry_after: str | None = None) -> Plan:
    return Plan(name, Fault("status", count=-1, status=status, retry_after=retry_after), elsewhere)


PLANS = (
    Plan("none"),
    _status("401", 401),
    _status("400", 400, elsewhere=False),
    Plan("400, a text too long", elsewhere=False, long_texts=True),
    _status("429", 429),
    _status("429, retry after 0.1 s", 429, retry_after="0.1"),
    _status("429, retry after 60 s", 429, retry_after="60"),
    _status("500", 500),
    _status("503, retry after 0.1 s", 503, retry_after="0.1"),
    Plan("hangs", Fault("hang", count=-1)),
    Plan("connection refused", gone=True),
    Plan("connection closed", Fault("drop", count=-1)),
    Plan("reset in the body", Fault("reset", count=-1)),
    Plan("a web page", Fault("html", count=-1)),
    Plan("truncated body", Fault("truncated", count=-1)),
    Plan("a vector too few", Fault("wrong_count", count=-1)),
    Plan("wrong dimensions", Fault("wrong_dimensions", count=-1)),
    Plan("NaN", Fault("nan", count=-1)),
    Plan("a text that it refuses", Fault("status", count=-1, status=400, marker=POISON), elsewhere=False, poison=True),
    Plan("a text that it dies of", Fault("status", count=-1, status=500, marker=POISON), poison=True),
)
