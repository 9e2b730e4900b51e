"""The command line: every command is a short Python call first, named in its help."""

from __future__ import annotations

import sys
from collections.abc import Callable

import tyro

from surpass.cli.job import improve, monitor, serve
from surpass.cli.learning import evaluate, tasks, train, zoo
from surpass.cli.systems import evidence, list_systems, show
from surpass.errors import InputError, MissingExtra

__all__ = ["main"]

COMMANDS: dict[str, Callable[..., None]] = {
    "improve": improve,
    "train": train,
    "evaluate": evaluate,
    "list": list_systems,
    "show": show,
    "evidence": evidence,
    "serve": serve,
    "monitor": monitor,
    "tasks": tasks,
    "zoo": zoo,
}


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 when it did its work (whatever the verdict), 2 on input that cannot be
    used."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["--version"]:
        from surpass import __version__

        print(f"surpass {__version__}")
        return 0
    try:
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="surpass",
            description="A better policy with the proof, from the logs of the one you run.",
            args=argv,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except (InputError, MissingExtra) as error:
        print(f"surpass: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        kept = str(stopped) or "nothing was written"
        print(f"\nsurpass: stopped; {kept}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    return 0
