"""The options of the public functions, for type checkers and editors; nothing of it is there at run time.

What a run delivers follows two options, ``on_error`` and ``indexed``. Each function therefore has four dictionaries of
options and an overload for each: `Plain` (results, or what the policy puts in their place), `Pairs` (``indexed=True``),
`Kept` (``on_error="return"``: results and failures) and `KeptPairs` (both). With ``pass_failures=True`` failures are
delivered in any case, and ``fn`` need not take them: `Passing` and `PassingPairs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__: list[str] = []

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable
    from types import ModuleType
    from typing import Any, Generic, Literal, Protocol, Required, TypedDict, TypeVar

    from inturn._model.limit import Limiter
    from inturn._model.policy import OnError, S
    from inturn._model.processes import Processes
    from inturn._model.stats import Stats
    from inturn._model.threads import Threads

    from .executors import MakesPools

    T = TypeVar("T")
    Source = Iterable[T] | AsyncIterable[T]

    class Submits(Protocol):
        """An executor that is passed in, as far as this library is concerned."""

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any: ...

    class Updates(Protocol):
        """A progress bar, as far as this library is concerned."""

        def update(self, n: int, /) -> object: ...

    FlatExecutorLike = Literal["thread", "process", "serial"] | Threads | Processes | MakesPools
    # A Dask client has a `submit`, too; the module is `ray`.
    ExecutorLike = FlatExecutorLike | Literal["interpreter"] | Submits | ModuleType | Callable[[int], Submits]

    # ---- what is delivered -----------------------------------------------------------------------

    class Plain(TypedDict, Generic[S], total=False):
        on_error: OnError[S]
        indexed: Literal[False]
        pass_failures: Literal[False]

    class Pairs(TypedDict, Generic[S], total=False):
        on_error: OnError[S]
        indexed: Required[Literal[True]]
        pass_failures: Literal[False]

    class Kept(TypedDict, total=False):
        on_error: Required[Literal["return"]]
        indexed: Literal[False]
        pass_failures: Literal[False]

    class KeptPairs(TypedDict, total=False):
        on_error: Required[Literal["return"]]
        indexed: Required[Literal[True]]
        pass_failures: Literal[False]

    class Passing(TypedDict, Generic[S], total=False):
        on_error: OnError[S] | Literal["return"]
        indexed: Literal[False]
        pass_failures: Required[Literal[True]]

    class PassingPairs(TypedDict, Generic[S], total=False):
        on_error: OnError[S] | Literal["return"]
        indexed: Required[Literal[True]]
        pass_failures: Required[Literal[True]]

    # ---- what all runs take, and what some of them do --------------------------------------------

    class Options(TypedDict, total=False):
        concurrency: int | None
        window: int | None
        timeout: float | None
        deadline: float | None
        limit: float | Limiter | None
        strict: bool
        name: str | None
        progress: bool | Callable[[Stats], object] | Updates
        trace: bool

    class MapOptions(Options, total=False):
        executor: ExecutorLike
        chunksize: int | None
        live: bool

    class FlatOptions(Options, total=False):
        executor: FlatExecutorLike
        buffer: int
        live: bool

    class TaskOptions(Options, total=False):
        executor: None

    class ElsewhereOptions(Options, total=False):
        executor: Required[ExecutorLike]

    class FlatTaskOptions(Options, total=False):
        executor: None
        buffer: int

    class FlatElsewhereOptions(Options, total=False):
        executor: Required[FlatExecutorLike]
        buffer: int

    class GatherOptions(TypedDict, total=False):
        concurrency: int | None
        batch_size: int | None
        timeout: float | None
        deadline: float | None
        limit: float | Limiter | None
        name: str | None
        progress: bool | Callable[[Stats], object] | Updates

    class GatherTaskOptions(GatherOptions, total=False):
        executor: None

    class GatherElsewhereOptions(GatherOptions, total=False):
        executor: Required[ExecutorLike]

    # ---- both, for each function -----------------------------------------------------------------

    class MapPlain(MapOptions, Plain[S]): ...

    class MapPairs(MapOptions, Pairs[S]): ...

    class MapKept(MapOptions, Kept): ...

    class MapKeptPairs(MapOptions, KeptPairs): ...

    class MapPassing(MapOptions, Passing[S]): ...

    class MapPassingPairs(MapOptions, PassingPairs[S]): ...

    class FlatPlain(FlatOptions, Plain[S]): ...

    class FlatPairs(FlatOptions, Pairs[S]): ...

    class FlatKept(FlatOptions, Kept): ...

    class FlatKeptPairs(FlatOptions, KeptPairs): ...

    class FlatPassing(FlatOptions, Passing[S]): ...

    class FlatPassingPairs(FlatOptions, PassingPairs[S]): ...

    class TaskPlain(TaskOptions, Plain[S]): ...

    class TaskPairs(TaskOptions, Pairs[S]): ...

    class TaskKept(TaskOptions, Kept): ...

    class TaskKeptPairs(TaskOptions, KeptPairs): ...

    class TaskPassing(TaskOptions, Passing[S]): ...

    class TaskPassingPairs(TaskOptions, PassingPairs[S]): ...

    class ElsewherePlain(ElsewhereOptions, Plain[S]): ...

    class ElsewherePairs(ElsewhereOptions, Pairs[S]): ...

    class ElsewhereKept(ElsewhereOptions, Kept): ...

    class ElsewhereKeptPairs(ElsewhereOptions, KeptPairs): ...

    class ElsewherePassing(ElsewhereOptions, Passing[S]): ...

    class ElsewherePassingPairs(ElsewhereOptions, PassingPairs[S]): ...

    class FlatTaskPlain(FlatTaskOptions, Plain[S]): ...

    class FlatTaskPairs(FlatTaskOptions, Pairs[S]): ...

    class FlatTaskKept(FlatTaskOptions, Kept): ...

    class FlatTaskKeptPairs(FlatTaskOptions, KeptPairs): ...

    class FlatTaskPassing(FlatTaskOptions, Passing[S]): ...

    class FlatTaskPassingPairs(FlatTaskOptions, PassingPairs[S]): ...

    class FlatElsewherePlain(FlatElsewhereOptions, Plain[S]): ...

    class FlatElsewherePairs(FlatElsewhereOptions, Pairs[S]): ...

    class FlatElsewhereKept(FlatElsewhereOptions, Kept): ...

    class FlatElsewhereKeptPairs(FlatElsewhereOptions, KeptPairs): ...

    class FlatElsewherePassing(FlatElsewhereOptions, Passing[S]): ...

    class FlatElsewherePassingPairs(FlatElsewhereOptions, PassingPairs[S]): ...

    class GatherPlain(GatherTaskOptions, Generic[S], total=False):
        on_error: OnError[S]
        pass_failures: Literal[False]

    class GatherKept(GatherTaskOptions, total=False):
        on_error: Required[Literal["return"]]
        pass_failures: Literal[False]

    class GatherElsewhere(GatherElsewhereOptions, Generic[S], total=False):
        on_error: OnError[S]
        pass_failures: Literal[False]

    class GatherElsewhereKept(GatherElsewhereOptions, total=False):
        on_error: Required[Literal["return"]]
        pass_failures: Literal[False]

    class GatherElsewherePassing(GatherElsewhereOptions, Generic[S], total=False):
        on_error: OnError[S] | Literal["return"]
        pass_failures: Required[Literal[True]]

    class GatherPassing(GatherTaskOptions, Generic[S], total=False):
        on_error: OnError[S] | Literal["return"]
        pass_failures: Required[Literal[True]]
