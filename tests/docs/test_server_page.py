"""The page about the server says what there is: its settings, its commands, its exit codes.

Run as a program, it writes the table of the settings into the page.
"""

from __future__ import annotations

import re
from pathlib import Path

from cachecore.cli.group import EXIT_CODES, MODULES
from cachecore.server.template import table

PAGE = Path(__file__).parents[2] / "docs" / "server.md"
BEGIN, END = (
    "<!-- settings: cachecore.server.template.table() -->\n",
    "<!-- end of settings -->",
)


def test_the_table_of_settings_is_the_one_of_the_code() -> None:
    text = PAGE.read_text()
    assert text.partition(BEGIN)[2].partition(END)[0] == f"{table()}\n", (
        "python tests/docs/test_server_page.py writes it anew"
    )


def test_all_commands_and_exit_codes_are_there() -> None:
    commands, codes = PAGE.read_text().partition("| exit code |")[::2]
    for name in MODULES:
        assert re.search(rf"(?m)^\|.*`{name}\b", commands), name
    for code, _ in EXIT_CODES:
        assert re.search(rf"(?m)^\| {code} \|", codes), code


if __name__ == "__main__":
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{table()}\n{END}{rest.partition(END)[2]}")
