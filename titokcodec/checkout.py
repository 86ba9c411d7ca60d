"""In a checkout, two packages of the wheel lie beside this one: found there under their names in the wheel."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # as in the package itself
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

BESIDE = ("titokcodec.training", "titokcodec.bench")


class Finder:
    """One of Python's import hooks (PEP 451), asked when all others have found nothing.

    Args:
        root: The checkout's folder.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Where the package lies; None for any other."""
        if name not in BESIDE:
            return None
        from importlib.util import spec_from_file_location

        folder = os.path.join(self.root, name.rpartition(".")[2])
        return spec_from_file_location(name, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder])


def install() -> None:
    """Find them from now on, if this is a checkout."""
    root = os.path.dirname(os.path.dirname(__file__))
    if os.path.exists(os.path.join(root, "setup.py")):
        sys.meta_path.append(Finder(root))
