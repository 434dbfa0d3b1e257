"""The command that comes first: from files that somebody has to a config that reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy.terminal import say
from schemas.errors import ConfigError
from schemas.settings import load_settings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(init)


def init(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files or folders of prices or returns.")],
    out: Annotated[Path, typer.Option("--out", help="The config to write.")] = Path("config.yaml"),
    universe: Annotated[str, typer.Option("--universe", help="Name of the universe.")] = "my_universe",
) -> None:
    """Look at files, say what they seem to hold, and write a commented config. Nothing is overwritten."""
    if out.exists() or out.is_symlink():
        raise ConfigError(f"{out}: is there already; give another --out")
    from storage.files import write_atomic
    from tasks.proposing import propose

    proposal = propose(files, universe, out.absolute().parent, load_settings())
    write_atomic(out, proposal.config)
    for line in proposal.seen:
        say(line)
    say("assumed, correct it in the config if it is wrong:")
    for line in proposal.unsure:
        say(f"  {line}")
    say(f"written: {out}; look at it with: factorcube check {out}")
