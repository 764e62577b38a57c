"""The command line: everything a person does with redisflow from a shell.

`root.py` holds the group and turns errors into one line and an exit code; each other file holds one group
of commands and is imported when one of them is called, so that `redisflow --help` answers at once. Results
go to stdout, all else to stderr; `--json` leaves nothing but JSON on stdout.
"""

from redisflow.cli.root import main

__all__ = ["main"]
