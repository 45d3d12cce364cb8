"""What the commands print of names that clients gave: the names themselves, and nothing that a terminal would act upon."""

from __future__ import annotations

import pytest

from gateway.cli.common import fields, printable, show

NAMES = ["[/x]", "[red]quiet[/red]", "x[1]", "a\x1b[2Jb", "a\nb", "a\rb", "right\u202eleft", "\x9b1m", "Zoë"]


def test_a_table_has_every_name_whole_and_one_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    show([], False, ["name", "more"], [[name, 7] for name in NAMES])
    lines = capsys.readouterr().out.splitlines()
    assert [line.rsplit(maxsplit=1)[0] for line in lines[1:]] == [printable(name) for name in NAMES]
    assert all(line.isprintable() for line in lines)


def test_the_fields_of_an_object_have_them_so_too() -> None:
    for name in NAMES:
        [line] = fields({"name": name})
        assert line.isprintable()
    assert fields({"name": "Zoë [/x]"}) == ["name  Zoë [/x]"]
