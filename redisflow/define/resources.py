"""Resources: what steps share inside a worker process, such as a connection pool, opened once and closed at
drain.

A resource is a function that makes the value. As a generator it yields the value once and cleans up after the
`yield`. The object that the decorator returns is its own key: workers and tests map it to the value that is
open.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Generic, TypeVar, overload

from redisflow.model.errors import DefinitionError

T = TypeVar("T")


class Resource(Generic[T]):
    """A value of type `T` that steps receive through `Annotated[T, Use(resource)]`.

    Attributes:
        name: name of the function, for people.
    """

    __slots__ = ("_make", "name")

    def __init__(self, make: Callable[[], Any]) -> None:
        self.name: str = getattr(make, "__name__", type(make).__name__)
        self._make = make
        required = [
            name
            for name, parameter in inspect.signature(make).parameters.items()
            if parameter.default is parameter.empty and parameter.kind.name not in ("VAR_POSITIONAL", "VAR_KEYWORD")
        ]
        if required:
            raise DefinitionError(
                f"resource {self.name!r} has parameters ({', '.join(required)}): a resource is opened "
                "without arguments, read settings inside it"
            )

    def __repr__(self) -> str:
        return f"<Resource {self.name}>"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[T]:
        """Make the value and give it up when the block ends; whoever opens it sees to it that this happens
        once.
        """
        if inspect.isasyncgenfunction(self._make):
            async with asynccontextmanager(self._make)() as value:
                yield value
        elif inspect.isgeneratorfunction(self._make):
            with contextmanager(self._make)() as value:
                yield value
        else:
            made = self._make()
            yield await made if inspect.isawaitable(made) else made


@overload
def resource(make: Callable[[], AsyncIterator[T]]) -> Resource[T]: ...
@overload
def resource(make: Callable[[], Awaitable[T]]) -> Resource[T]: ...
@overload
def resource(make: Callable[[], Iterator[T]]) -> Resource[T]: ...
def resource(make: Callable[[], Any]) -> Resource[Any]:
    """Declare a resource: decorate an async generator, a generator or an `async def` without parameters.

    Raises:
        DefinitionError: it is none of these.
    """
    if not (inspect.isasyncgenfunction(make) or inspect.isgeneratorfunction(make) or inspect.iscoroutinefunction(make)):
        name = getattr(make, "__name__", repr(make))
        raise DefinitionError(
            f"resource {name!r} must be a generator that yields the value, or an async def that returns it"
        )
    return Resource(make)


class Use:
    """Marks a parameter that receives a resource: `pool: Annotated[Pool, Use(db)]`."""

    __slots__ = ("resource",)

    def __init__(self, resource: Resource[Any]) -> None:
        if not isinstance(resource, Resource):
            raise DefinitionError(f"Use({resource!r}): decorate the function with @resource first")
        self.resource = resource

    def __repr__(self) -> str:
        return f"Use({self.resource!r})"
