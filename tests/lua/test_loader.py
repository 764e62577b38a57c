"""The loader: includes are joined once, headers are signatures, and errors are told by file and line."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from redisflow.backend.redis import RedisBackend
from redisflow.backend.scripts import Script, ScriptError, find_lua, load_scripts, parse_scripts
from redisflow.model.errors import RedisflowError

KEYS = "-- KEYS meta hash\n-- KEYS never string\n"
HEAD = f"#!lua\n-- probe: a script of the tests\n{KEYS}"
Folder = Callable[..., Script]


@pytest.fixture
def load(tmp_path: Path) -> Folder:
    """Writes files of a folder of scripts and loads the one named `probe`."""

    def write(probe: str, **files: str) -> Script:
        (tmp_path / "lib").mkdir(exist_ok=True)
        (tmp_path / "probe.lua").write_text(probe)
        for name, text in files.items():
            (tmp_path / "lib" / f"{name}.lua").write_text(text)
        return parse_scripts(tmp_path, ["probe"])["probe"]

    return write


def test_every_script_of_the_checkout_loads() -> None:
    scripts = load_scripts()
    assert set(scripts) == {path.stem for path in find_lua().glob("*.lua")}
    assert {
        "submit",
        "claim",
        "complete",
        "fail",
        "skip",
        "release",
        "reclaim",
        "cancel",
        "sweep",
        "turn",
    } <= set(scripts)
    for script in scripts.values():
        assert script.title.startswith(f"{script.name}: ")
        assert script.arguments[0] == ("epoch", "string")
        assert script.returns


async def test_every_script_is_a_function_of_one_library(backend: RedisBackend) -> None:
    await backend.client.function_flush()
    libraries = {script.library for script in backend.scripts.values()}
    (library,) = libraries
    await backend.server.load_library(library, backend.partitions[0])
    (listed,) = await backend.client.function_list(f"{library.name}*")
    assert set(re.findall(rf"{library.name}_(\w+)", str(listed))) == set(backend.scripts)
    assert str(listed).count("allow-oom") == sum(
        "allow-oom" in path.read_text().partition("\n")[0] for path in find_lua().glob("*.lua")
    )


async def test_a_library_is_named_by_its_content(load: Folder) -> None:
    one, other = load(HEAD + "return 1\n"), load(HEAD + "return 2\n")
    assert one.library.name != other.library.name
    assert one.function == f"{one.library.name}_probe"


async def test_calls_that_miss_the_library_at_once_load_it_once(backend: RedisBackend) -> None:
    script, keys = backend.scripts["wait"], backend.partitions[0]
    await backend.client.function_flush()
    await backend.client.config_resetstat()
    argv = script.pack(epoch=backend.epoch)
    await asyncio.gather(*(backend.server.call_once(script, keys, argv) for _ in range(20)))
    assert (await backend.client.info("commandstats"))["cmdstat_function|load"]["calls"] == 1


async def test_libraries_of_other_versions_are_taken_away_when_they_are_many(
    load: Folder, backend: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redisflow.backend.connection.MOST_LIBRARIES", 2)
    keys = backend.partitions[0]
    await backend.client.function_flush()
    scripts = [load(HEAD + f"return {{ {number} }}\n") for number in range(4)]
    for number, script in enumerate(scripts):
        assert await backend.server.call_once(script, keys, []) == [number]
    listed = str(await backend.client.function_list("redisflow_*"))
    assert {script.library.name for script in scripts if f"'{script.library.name}'" in listed} == {
        scripts[3].library.name
    }
    assert await backend.server.call_once(scripts[0], keys, []) == [0]  # who still needs one loads it again


def test_a_file_is_included_once_and_where_it_is_first_named(load: Folder) -> None:
    script = load(
        HEAD + "-- @include lib/a\n-- @include lib/b\nreturn 1\n", a="-- @include lib/b\nlocal a", b="local b"
    )
    body = [line for line in script.library.text.splitlines() if not line.startswith("-- ")]
    assert body[2:6] == ["local b", "local a", "do local function main(KEYS, ARGV)", body[5]]


def test_lines_stay_what_they_are(load: Folder) -> None:
    script = load(HEAD + "-- @include lib/a\nreturn 1\n", a="local a\nlocal c")
    lines = script.library.lines
    assert lines[2:5] == (("lib/a.lua", 1), ("lib/a.lua", 2), ("probe.lua", 1))
    assert script.library.text.splitlines()[lines.index(("probe.lua", 6))] == "return 1"
    assert len(lines) == len(script.library.text.splitlines())


async def test_slots_are_places_and_constants_are_numbers(backend: RedisBackend, load: Folder) -> None:
    lib = (
        "-- @slots run: status count\n-- @slots run: rest\n-- @slots step: status count level\nlocal MOST = 3 -- of all\n"
        "local word = 'run.status MOST' -- run.status MOST\nlocal status = '!'"
    )
    script = load(
        HEAD + "-- @include lib/a\nlocal run = { 'a', 1, {} }\nrun.count = run.count + MOST\nrun.rest.MOST = MOST\n"
        "return { run.status, run.count, word..status, run.rest.MOST, (\"run.rest\") }\n", a=lib,
    )  # fmt: skip
    reply = await backend.server.call_once(script, backend.partitions[0], [])
    assert reply == [b"a", 4, b"run.status MOST!", 3, b"run.rest"]
    text = script.library.text
    assert "run[2] = run[2] + 3" in text
    assert "-- run.status MOST" in text


def test_a_slot_has_one_place(load: Folder) -> None:
    with pytest.raises(ScriptError, match=r"lua/lib/a\.lua:2: slot 'count' is number 2 of another record, and 1 here"):
        load(HEAD + "-- @include lib/a\n", a="-- @slots run: status count\n-- @slots step: count")


def test_no_slot_is_named_before_it_is_declared(load: Folder) -> None:
    with pytest.raises(
        ScriptError, match=r"lib/a\.lua:2: slot 'count' is a name in lua/lib/a\.lua:1, before it is declared"
    ):
        load(HEAD + "-- @include lib/a\n", a="local n = ({}).count\n-- @slots run: status count")


def test_no_table_is_built_with_the_name_of_a_slot(load: Folder) -> None:
    with pytest.raises(ScriptError, match=r"lua/probe\.lua:6: 'count' is a slot of a record, whose tables are lists"):
        load(HEAD + "-- @include lib/a\nlocal other = { size = 1, count = 2 }\n", a="-- @slots run: status count")


@pytest.mark.parametrize(
    "files",
    [{"a": "-- @include lib/a"}, {"a": "-- @include lib/b", "b": "-- @include lib/a"},
     {"a": "-- @include lib/b", "b": "-- @include lib/c", "c": "-- @include lib/a"}],
    ids=["itself", "two", "three"],
)  # fmt: skip
def test_cycles_are_refused(load: Folder, files: dict[str, str]) -> None:
    with pytest.raises(
        ScriptError, match=r"lua/lib/\w\.lua:1: lib/a -> .*includes itself|lib/a -> lib/a includes itself"
    ):
        load(HEAD + "-- @include lib/a\n", **files)


def test_a_missing_include_is_named(load: Folder) -> None:
    with pytest.raises(ScriptError, match=r"lua/probe\.lua:5: there is no lua/lib/nowhere\.lua"):
        load(HEAD + "-- @include lib/nowhere\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must open with"),
        ("-- probe: no shebang\n" + KEYS, "must open with #!lua and a title"),
        ("#!lua\nlocal x\n" + KEYS, "must open with #!lua and a title"),
        ("#!lua\n-- probe: no keys\nreturn 1\n", "must declare KEYS meta and never"),
        ("#!lua\n-- probe: another key\n" + KEYS + "-- KEYS run hash\n", "and no other"),
        (HEAD + "-- ARGV count number\n", "ARGV count has the unknown type number"),
    ],
)
def test_wrong_headers_are_refused(load: Folder, text: str, message: str) -> None:
    with pytest.raises(ScriptError, match=message):
        load(text)


def test_the_header_is_the_signature(load: Folder) -> None:
    script = load(
        HEAD + "-- ARGV epoch string     of the namespace\n-- ARGV count int\n-- ARGV items list      the rest\n"
        "-- RETURNS {OK}\n-- EVENTS StepStarted StepFailed\nreturn 1\n"
    )
    assert script.title == "probe: a script of the tests"
    assert script.arguments == (("epoch", "string"), ("count", "int"), ("items", "list"))
    assert script.events == ("StepStarted", "StepFailed")
    assert script.returns == "{OK}"
    assert script.pack(["x", "y"], count=3, epoch="e") == ["e", 3, "x", "y"]


@pytest.mark.parametrize("named", [{"epoch": "e"}, {"epoch": "e", "count": 1, "more": 2}, {}])
def test_arguments_are_held_to_the_header(load: Folder, named: dict[str, object]) -> None:
    script = load(HEAD + "-- ARGV epoch string\n-- ARGV count int\nreturn 1\n")
    with pytest.raises(TypeError, match="probe takes"):
        script.pack([], **named)


async def test_names_are_bound_as_locals(load: Folder, backend: RedisBackend) -> None:
    script = load(
        HEAD + "-- ARGV name string\n-- ARGV count int\n-- ARGV items list\n"
        "return { meta, never, name, count + 1, ARGV[items], ARGV[items + 1] }\n"
    )
    keys = backend.partitions[0]
    reply = await backend.server.call_once(script, keys, script.pack(["x", "y"], name="n", count="41"))
    assert reply == [keys.meta.encode(), keys.never.encode(), b"n", 42, b"x", b"y"]


@pytest.mark.parametrize(
    ("probe", "lib", "place"),
    [
        (
            "-- @include lib/a\nreturn broken()\n",
            "local function broken()\n  return nil + 1\nend\n",
            "lua/lib/a.lua:2",
        ),
        ("-- @include lib/a\nlocal x = 1\nreturn nil .. x\n", "local a\n", "lua/probe.lua:7"),
        ("-- @include lib/a\nreturn redis.call('HGET', meta)\n", "local a\n", "lua/probe.lua:6"),
    ],
    ids=["in a library", "in the script", "of Redis"],
)
async def test_errors_are_told_by_file_and_line(
    load: Folder, backend: RedisBackend, probe: str, lib: str, place: str
) -> None:
    script = load(HEAD + probe, a=lib)
    with pytest.raises(RedisflowError, match=place.replace(".", r"\.")):
        await backend.server.script(script, backend.partitions[0], [])


def test_no_scripts_at_all_is_a_broken_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from redisflow.backend import scripts

    monkeypatch.setattr(scripts, "__file__", str(tmp_path / "redisflow" / "backend" / "scripts.py"))
    with pytest.raises(ScriptError, match="the installation is broken"):
        find_lua()
