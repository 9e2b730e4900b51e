"""The command line: every command is a short Python call first, named in its help."""

from __future__ import annotations

import os
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
        kept = str(stopped) or ("nothing was written" if argv[:1] == ["improve"] else "")
        print(f"\nsurpass: stopped{kept and '; '}{kept}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read has gone; what is left in the buffer goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # what no command foresaw: a full disk, a folder that is a file
        where = f"{error.filename}: " if error.filename else ""
        why = " ".join(str(error.strerror or error).split())
        print(f"surpass: {where}{why}; check the path and its permissions", file=sys.stderr)
        return 2
    return 0
