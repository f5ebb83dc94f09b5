"""`cachecore completion`: the script that lets a shell complete our commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from cachecore.cli.command import command

EXAMPLES = [
    ('eval "$(cachecore completion bash)"', "in ~/.bashrc; zsh is the same in ~/.zshrc"),
    ("cachecore completion fish > ~/.config/fish/completions/cachecore.fish", "for fish, once"),
]


@command(examples=EXAMPLES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes commands and options in SHELL."""
    from cachecore.cli.group import cli

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(cli, {}, "cachecore", "_CACHECORE_COMPLETE").source(), nl=False)
