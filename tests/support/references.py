"""The table of references, in memory: takes the statements of `adapters.postgres.space_references`."""

from __future__ import annotations


class Kept:
    """The table of references."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, int, bytes], bytes] = {}
        self.away = False

    async def fetch(self, sql: str, space: str, owner: str, epoch: int, probes: list[bytes]) -> list[dict[str, bytes]]:
        if self.away:
            raise ConnectionRefusedError
        of = space, owner, epoch
        return [{"probe": p, "vector": self.rows[*of, p]} for p in probes if (*of, p) in self.rows]

    async def fetchval(self, sql: str, space: str, owner: str) -> int:
        return max((e for s, o, e, _ in self.rows if (s, o) == (space, owner)), default=-1)

    async def execute(
        self, sql: str, space: str, owner: str, epoch: int, probes: list[bytes], vectors: list[bytes]
    ) -> None:
        for probe, vector in zip(probes, vectors, strict=True):
            self.rows.setdefault((space, owner, epoch, probe), vector)
