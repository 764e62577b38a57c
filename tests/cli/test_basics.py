"""The help, the table of commands, text that is safe to print, and where the options may stand."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from redisflow.cli.root import COMMANDS, main
from redisflow.cli.text import clean, short, to_json
from tests.cli.conftest import Call, environment


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_exists_and_has_help(rf: Call, name: str) -> None:
    command = main.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    assert command.name == name
    done = rf(name, "--help")
    assert done.code == 0
    assert done.out.startswith("Usage: ")


def test_help_names_every_command(rf: Call) -> None:
    out = rf("--help").out
    assert all(f"\n  {name} " in out for name in COMMANDS)


def test_version(rf: Call) -> None:
    assert rf("--version").out.startswith("redisflow ")


def test_no_command_loads_the_library_for_schemas_before_it_needs_it() -> None:
    code = "import sys, redisflow.backend.redis.inspect, redisflow.worker; print('jsonschema' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_options_stand_before_or_after_the_command(rf: Call) -> None:
    url = "redis://127.0.0.1:1/7"
    before, after = rf("--url", url, "runs"), rf("runs", "--url", url)
    assert before.error == after.error
    assert url in before.error


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ä 漢", "plain ä 漢"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\r\x07", "a\\x0ab\\x0d\\x07"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("a\u202eb\u2066", "a\\u202eb\\u2066"),
        ("\ud800", "\\ud800"),
        ("[bold]markup[/bold]", "[bold]markup[/bold]"),
    ],
)
def test_clean(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_short() -> None:
    assert short("a" * 100, 10) == "a" * 9 + "…"
    assert short("a\nb", 10) == "a b"
    assert len(short("\x1b" * 1000, 20)) == 20


def test_json_is_safe_to_print_and_reads_back() -> None:
    value = {"a": "\x1b]0;x\x07\x9b\u202eä\ud800", "n": [1, 2.5, None]}
    text = to_json(value)
    assert json.loads(text) == value
    assert clean(text) == text
    assert "ä" in text
