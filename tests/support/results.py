"""What becomes of a run."""


def until_error(run):
    """What a run delivers, and the error that ends it."""
    results = []
    try:
        for result in run:
            results.append(result)
    except BaseException as error:
        return results, error
    return results, None
