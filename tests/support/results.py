"""What becomes of a run."""

from collections.abc import Iterable
from typing import Any


def until_error(run: Iterable[Any]) -> tuple[list[Any], BaseException | None]:
    """What a run delivers, and the error that ends it."""
    results = []
    try:
        for result in run:
            results.append(result)
    except BaseException as error:
        return results, error
    return results, None
