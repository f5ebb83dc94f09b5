"""What the commands are made of: help with examples, and options for the settings and a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from cachecore.cli.failures import InputError
from cachecore.server.settings import GROUPS, Settings, SettingsError, abouts
from cachecore.server.sources import find_config, load

Examples = Sequence[tuple[str, str]]
Decorator = Callable[[Callable[..., None]], Callable[..., None]]


class SettingOption(click.Option):
    """An option of a setting; `group` is the section of the help that it is in."""

    def __init__(self, *args: Any, group: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


class Command(click.Command):
    """A command whose help groups the options of settings, and ends with examples."""

    def __init__(self, *args: Any, examples: Examples = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, those of settings in sections of their own."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                title = GROUPS[param.group] if isinstance(param, SettingOption) else "Options"
                sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        write_examples(self.examples, formatter)


def write_examples(examples: Examples, formatter: click.HelpFormatter) -> None:
    """A command a line, and what it does below; nothing is wrapped, so that it can be copied."""
    if examples:
        with formatter.section("Examples"):
            for line, what in examples:
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")
                formatter.write(f"{'':{formatter.current_indent + 4}}{what}\n")


def command(
    *, examples: Examples = (), name: str | None = None
) -> Callable[[Callable[..., Any]], Command]:
    """Make a function a command."""
    return click.command(name, cls=Command, examples=examples)


config_option = click.option(
    "--config",
    metavar="FILE",
    help="The file of settings.  [default: cachecore.toml here, in ~/.config/cachecore or"
    " /etc/cachecore]",
)


def setting_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each setting; of secrets only for what `ps` may show."""
    options: list[Decorator] = []
    for name, about in abouts():
        option = f"--{name.replace('_', '-')}"
        if about.kind.metavar == "":
            given: dict[str, Any] = {"is_flag": True, "default": None}
        else:
            given = {"metavar": about.kind.metavar}
        if about.kind.metavar != "TEXT":
            given |= {"help": about.meaning, "cls": SettingOption, "group": about.group}
            options.append(click.option(option, name, **given))
        if about.secret:
            what = f"File that holds it, which only you can read (mode 0600): {name}."
            options.append(
                click.option(
                    f"{option}-file",
                    f"{name}_file",
                    metavar="FILE",
                    help=what,
                    cls=SettingOption,
                    group=about.group,
                )
            )
    for option_of in reversed(options):
        function = option_of(function)
    return function


def read_settings(config: str | None, options: dict[str, Any]) -> tuple[Settings, Path | None]:
    """The settings, and the file that they are from; InputError says what is wrong with them."""
    try:
        found = find_config(config)
        return load(found, options), found
    except SettingsError as error:
        raise InputError(str(error)) from None
