"""Items, results and errors that cannot be pickled, or not unpickled, and functions that give them back."""


class NoPickle:
    def __reduce__(self):
        raise TypeError("not this one")

    def __repr__(self):
        return "NoPickle"


class NoUnpickle:
    def __reduce__(self):
        return exploding, ("boom",)


def exploding(text):
    raise LookupError(text)


def give(things, i):
    return things[i] if things else i


def make(i):
    return {3: NoPickle, 5: NoUnpickle}.get(i, int)()


class Stubborn(Exception):
    """Pickles, and does not unpickle: its arguments are not those of its class."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


class Unpicklable(Exception):
    def __reduce__(self):
        raise TypeError("no")


def raising(i):
    if i == 2:
        raise Stubborn("this", "that")
    if i == 4:
        raise Unpicklable("lost")
    if i == 6:
        raise ValueError("plain") from KeyError("cause")
    return i


def throw(error, i):
    raise error
