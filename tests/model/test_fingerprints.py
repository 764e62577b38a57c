"""Equal errors hash alike: through chains and groups, on other machines, after an edit above."""

import contextlib
import hashlib
import re
import traceback
from typing import NoReturn, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redisflow.model.errors import InvalidArgument
from redisflow.model.events import ErrorFingerprints, StepError
from redisflow.model.fingerprints import (
    GROUPINGS,
    compose,
    describe_exception,
    fingerprint_error,
    fingerprint_exception,
    parse_fingerprint,
)

E = TypeVar("E", bound=BaseException)
EMPTY = hashlib.sha1(b"").hexdigest()


def sha1(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


def fail(error: BaseException) -> NoReturn:
    raise error


def caught(error: E) -> E:
    """The error with a traceback of two frames, this function's and that of `fail`."""
    with contextlib.suppress(type(error)):
        fail(error)
    return error


def linked(error: E, cause: BaseException) -> E:
    with contextlib.suppress(type(error)):
        raise error from cause
    return error


def hash_of(exc: BaseException) -> str:
    """What the exact hash must be, straight from the traceback."""
    frames = traceback.extract_tb(exc.__traceback__)[-3:]
    return sha1("\n".join(f"{frame.filename}:{frame.lineno}:{frame.name}" for frame in frames))


def stack(*frames: tuple[str, int, str], message: str = "ValueError: no") -> StepError:
    lines = [f'  File "{path}", line {line}, in {name}\n    code()' for path, line, name in frames]
    return StepError(
        name="ValueError",
        message="no",
        stack="\n".join(["Traceback (most recent call last):", *lines, message, ""]),
    )


def test_name_message_and_three_innermost_frames() -> None:
    error = stack(("/a/z.py", 1, "z"), ("/a/x.py", 2, "f"), ("/a/x.py", 3, "g"), ("/a/y.py", 4, "h"))
    found = fingerprint_error(error)
    assert found.name_hash == sha1("ValueError")
    assert found.message_hash == sha1("no")
    assert found.stack_exact_hash == sha1("/a/x.py:2:f\n/a/x.py:3:g\n/a/y.py:4:h")
    assert found.stack_normalized_hash == sha1("/a/x.py:f\n/a/x.py:g\n/a/y.py:h")
    assert found.stack_portable_hash == sha1("x.py:2:f\nx.py:3:g\ny.py:4:h")


@pytest.mark.parametrize("name", [None, ""])
def test_what_is_missing(name: str | None) -> None:
    found = fingerprint_error(StepError(name=name, message=""))
    assert found.name_hash == sha1("Error")
    assert {found.message_hash, found.stack_exact_hash, found.stack_portable_hash} == {EMPTY}


def test_an_exception_and_its_description_hash_alike() -> None:
    exc = caught(KeyError("k"))
    described = describe_exception(exc)
    assert (described.name, described.message) == ("KeyError", "'k'")
    assert described.stack == "".join(traceback.format_exception(exc))
    assert fingerprint_exception(exc) == fingerprint_error(described)
    assert fingerprint_exception(exc).stack_exact_hash == hash_of(exc)


def test_a_chain_hashes_as_its_last() -> None:
    exc = linked(ValueError("no"), caught(KeyError("cause")))
    assert "direct cause" in (describe_exception(exc).stack or "")
    assert fingerprint_exception(exc).stack_exact_hash == hash_of(exc)
    unraised = ValueError("no")
    unraised.__cause__ = caught(KeyError("cause"))
    assert fingerprint_exception(unraised).stack_exact_hash == EMPTY


def test_a_group_hashes_as_itself_or_its_first_leaf() -> None:
    leaves = [caught(ValueError("one")), linked(KeyError("two"), caught(OSError("cause")))]
    inner = ExceptionGroup("inner", [leaves[1], leaves[0]])
    outer = ExceptionGroup("outer", [inner, leaves[0]])
    assert fingerprint_exception(outer).stack_exact_hash == hash_of(leaves[1])
    assert fingerprint_exception(inner).stack_exact_hash == hash_of(leaves[1])
    raised = caught(outer)
    assert fingerprint_exception(raised).stack_exact_hash == hash_of(raised)
    assert describe_exception(raised).name == "ExceptionGroup"


def test_groups_in_chains() -> None:
    group = ExceptionGroup("g", [linked(ValueError("x"), caught(OSError("deep")))])
    leaf = group.exceptions[0]
    plain = linked(RuntimeError("after"), group)
    assert fingerprint_exception(plain).stack_exact_hash == hash_of(plain)
    raised = linked(ExceptionGroup("h", [plain]), caught(OSError("before")))
    assert fingerprint_exception(raised).stack_exact_hash == hash_of(raised)
    group.__cause__ = caught(OSError("before"))
    assert fingerprint_exception(group).stack_exact_hash == hash_of(leaf)
    nested = ExceptionGroup("n", [ExceptionGroup("m", [caught(ValueError("y"))])])
    nested.exceptions[0].__cause__ = ExceptionGroup("c", [caught(OSError("z"))])
    assert fingerprint_exception(nested).stack_exact_hash == hash_of(nested.exceptions[0].exceptions[0])


def test_a_message_that_is_a_traceback_is_no_traceback() -> None:
    inside = describe_exception(linked(ValueError("remote"), caught(OSError("x")))).stack or ""
    exc = caught(RuntimeError(f"worker said:\n{inside}"))
    assert fingerprint_exception(exc).stack_exact_hash == hash_of(exc)
    noted = caught(ValueError("plain"))
    noted.add_note('  File "x.py", line 3, in f')
    assert fingerprint_exception(noted).stack_exact_hash == hash_of(noted)


def test_recursion_and_syntax_errors() -> None:
    def again(depth: int) -> None:
        if depth == 0:
            raise ValueError("bottom")
        again(depth - 1)

    try:
        again(40)
    except ValueError as error:
        exc: BaseException = error
    first = fingerprint_exception(exc)
    assert first.stack_exact_hash != EMPTY
    try:
        compile("1 +", "<made up>", "exec")
    except SyntaxError as error:
        exc = error
    assert fingerprint_exception(exc).stack_exact_hash == hash_of(exc)


def test_a_shifted_line_keeps_the_normalized_hash_only() -> None:
    before, after = (fingerprint_error(stack(("/a/src/x.py", line, "f"))) for line in (10, 14))
    assert before.stack_normalized_hash == after.stack_normalized_hash
    assert before.stack_exact_hash != after.stack_exact_hash
    assert before.stack_portable_hash != after.stack_portable_hash


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("/home/a/.venv/lib/python3.11/site-packages/lib/x.py", "C:\\venv\\Lib\\site-packages\\lib\\x.py"),
        ("/usr/lib/python3/dist-packages/lib/x.py", "/opt/site-packages/lib/x.py"),
        ("/home/a/shop/src/shop/x.py", "/usr/src/app/src/shop/x.py"),
        ("src/shop/x.py", "/home/a/shop/src/shop/x.py"),
        ("/home/a/src/shop/.venv/lib/python3.11/site-packages/p/src/x.py", "/v/site-packages/p/src/x.py"),
        ("/usr/lib/python3.11/asyncio/tasks.py", "/opt/python/lib/python3.12/asyncio/tasks.py"),
        ("/app/flows.py", "/home/a/shop/flows.py"),
    ],
)
def test_two_machines_agree_on_the_portable_hash(here: str, there: str) -> None:
    one, two = (fingerprint_error(stack((path, 3, "f"))) for path in (here, there))
    assert one.stack_portable_hash == two.stack_portable_hash
    assert one.stack_exact_hash != two.stack_exact_hash


def test_other_packages_do_not_agree() -> None:
    paths = ("/v/site-packages/a/x.py", "/v/site-packages/b/x.py")
    one, two = (fingerprint_error(stack((path, 3, "f"))).stack_portable_hash for path in paths)
    assert one != two


def test_paths_below_the_project_root() -> None:
    one = fingerprint_error(stack(("/app/flows/x.py", 3, "f")), project_root="/app")
    two = fingerprint_error(stack(("/home/a/shop/flows/x.py", 3, "f")), project_root="/home/a/shop/")
    other = fingerprint_error(stack(("/app/other/x.py", 3, "f")), project_root="/app")
    assert one.stack_portable_hash == two.stack_portable_hash == sha1("flows/x.py:3:f")
    assert other.stack_portable_hash != one.stack_portable_hash
    sibling = fingerprint_error(stack(("/application/x.py", 3, "f")), project_root="/app")
    assert sibling.stack_portable_hash == sha1("x.py:3:f")


def test_a_description_can_have_paths_relative_to_the_root() -> None:
    root = __file__.rsplit("/tests/", 1)[0]
    exc = caught(ExceptionGroup("g", [caught(ValueError("x"))]))
    described = describe_exception(exc, project_root=root)
    assert root not in (described.stack or root)
    assert 'File "tests/model/test_fingerprints.py", line ' in (described.stack or "")
    portable = fingerprint_error(described).stack_portable_hash
    assert portable == fingerprint_exception(exc, project_root=root).stack_portable_hash


def test_a_message_that_cannot_be_told_or_written() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert describe_exception(caught(Mute())).message == "<exception str() failed>"
    assert describe_exception(ValueError()).message == ""
    assert describe_exception(ValueError("\ud800")).message == "\\ud800"


@settings(deadline=None)
@given(message=st.text(max_size=40), note=st.none() | st.text(alphabet="ab \n", max_size=10))
def test_no_message_moves_the_frames(message: str, note: str | None) -> None:
    exc = caught(ValueError(message))
    if note is not None:
        exc.add_note(note)
    found = fingerprint_exception(exc)
    assert (found.stack_exact_hash, found.message_hash) == (hash_of(exc), sha1(message))


def test_a_fingerprint_composes_and_parses() -> None:
    hashes = fingerprint_exception(caught(ValueError("no")))
    texts = {grouping: compose(hashes, grouping) for grouping in GROUPINGS}
    assert texts["exact"] == f"{hashes.name_hash}:{hashes.message_hash}:{hashes.stack_exact_hash}"
    assert parse_fingerprint(texts["portable"]) == (
        hashes.name_hash,
        hashes.message_hash,
        hashes.stack_portable_hash,
    )
    assert all(re.fullmatch(r"([0-9a-f]{40}:){2}[0-9a-f]{40}", text) for text in texts.values())
    with pytest.raises(InvalidArgument, match="exact, normalized, portable"):
        compose(hashes, "fuzzy")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "a", "a:b", "a:b:c:d", "a::c", "::"])
def test_a_fingerprint_without_three_parts_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="fingerprint"):
        parse_fingerprint(text)


def test_hashes_are_frozen() -> None:
    assert ErrorFingerprints.model_config["frozen"] is True
