"""The options of the public functions, for type checkers and editors; nothing of it is there at run time.

What a run delivers follows three options: ``on_error`` and ``pass_failures`` say what takes the place of an item that
failed, and ``indexed`` whether results come as pairs. So there are six dictionaries of options, and each function has
overloads for each: `Plain` (results, or what the policy puts in their place), `Pairs` (``indexed=True``), `Kept`
(``on_error="return"``: results and failures) and `KeptPairs` (both). With ``pass_failures=True`` failures are delivered
in any case, and ``fn`` need not take them: `Passing` and `PassingPairs`. Options that only some functions have stand in
the overloads themselves.

Under `Plain` and `Kept` ``fn`` is checked against the first two sources, and refused for one source if it takes more.
Elsewhere, and for `Kept` where ``executor`` runs the calls of an async run, it is checked against the first source.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__: list[str] = []

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Generic, Literal, Protocol, Required, TypedDict

    from inturn._model.limit import Limiter
    from inturn._model.policy import OnError, S
    from inturn._model.stats import Stats

    class Updates(Protocol):
        """A progress bar, as far as this library is concerned."""

        def update(self, n: int, /) -> object: ...

    # ---- what is delivered -----------------------------------------------------------------------

    class Replaced(TypedDict, Generic[S], total=False):
        on_error: OnError[S]
        pass_failures: Literal[False]

    class Returned(TypedDict, total=False):
        on_error: Required[Literal["return"]]
        pass_failures: Literal[False]

    class Passed(TypedDict, Generic[S], total=False):
        on_error: OnError[S] | Literal["return"]
        pass_failures: Required[Literal[True]]

    class Single(TypedDict, total=False):
        indexed: Literal[False]

    class Indexed(TypedDict, total=False):
        indexed: Required[Literal[True]]

    # ---- what all runs take, and all but `ordered_gather` ----------------------------------------

    class Common(TypedDict, total=False):
        concurrency: int | None
        timeout: float | None
        deadline: float | None
        limit: float | Limiter | None
        name: str | None
        progress: bool | Callable[[Stats], object] | Updates

    class Options(Common, total=False):
        window: int | None
        strict: bool
        trace: bool

    # ---- both ------------------------------------------------------------------------------------

    class Plain(Options, Replaced[S], Single): ...

    class Pairs(Options, Replaced[S], Indexed): ...

    class Kept(Options, Returned, Single): ...

    class KeptPairs(Options, Returned, Indexed): ...

    class Passing(Options, Passed[S], Single): ...

    class PassingPairs(Options, Passed[S], Indexed): ...

    class GatherPlain(Common, Replaced[S]): ...

    class GatherKept(Common, Returned): ...

    class GatherPassing(Common, Passed[S]): ...
