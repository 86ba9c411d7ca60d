"""Public names that are imported when they are asked for (PEP 562), so that their packages load at once."""

from collections.abc import Callable, Mapping
from importlib import import_module


def importer(package: str, homes: Mapping[str, str], into: dict[str, object]) -> Callable[[str], object]:
    """The ``__getattr__`` of a package.

    Args:
        package: Its name.
        homes: By public name, the module of the package that it lives in.
        into: The package's ``globals()``, which keep what was imported.
    """

    def get(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        into[name] = getattr(import_module(f"{package}.{homes[name]}"), name)
        return into[name]

    return get
