"""The public names, signatures and attributes are those of a list: a change of the interface is a change of that list.

`python tests/api/test_public_api.py` writes the list anew. Look at the difference before you commit it: what was removed
or renamed breaks programs, see docs/stability.md.
"""

import enum
import inspect
import re
import sys
from pathlib import Path

import inturn
import inturn.testing
from inturn._model.handle import Handle

LIST = Path(__file__).with_name("public_api.txt")


def described(name: str, thing: object) -> list[str]:
    if isinstance(thing, type):
        lines = [f"class {name}"]
        for each in sorted(set(dir(thing)) - set(dir(object))):
            if each.startswith("_"):
                continue
            member = inspect.getattr_static(thing, each)
            lines += [f"    {line}" for line in member_of(each, member)]
        return [lines[0] + parameters_of(thing), *lines[1:]]
    if callable(thing):
        return [f"def {name}{parameters_of(thing)}"]
    return [f"{name}"]


def member_of(name: str, member: object) -> list[str]:
    if isinstance(member, (staticmethod, classmethod)):
        member = member.__func__
    if inspect.isfunction(member):
        return [f"def {name}{parameters_of(member)}"]
    return [name]


def parameters_of(thing: object) -> str:
    """Names, kinds and defaults; types are the concern of the type checkers' tests."""
    if isinstance(thing, type) and (
        issubclass(thing, enum.Enum) or issubclass(thing, Handle) or "__init__" not in vars(thing)
    ):
        return ""  # runs are made by functions
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return ""
    plain = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    text = str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty))
    return re.sub(r"<object object at \w+>", "...", text)


def public_api() -> str:
    lines = []
    for module in (inturn, inturn.testing):
        lines.append(f"# {module.__name__}")
        for name in sorted(module.__all__):
            lines += described(name, getattr(module, name))
    return "\n".join(lines) + "\n"


def test_the_public_names_and_their_signatures_are_those_of_the_list():
    listed = LIST.read_text(encoding="utf-8")
    assert public_api() == listed, (
        f"if you mean it: python {Path(__file__).name} writes the list; see docs/stability.md"
    )


if __name__ == "__main__":
    sys.stdout.write("the list has changed\n" if LIST.read_text() != public_api() else "the list is as before\n")
    LIST.write_text(public_api(), encoding="utf-8")
