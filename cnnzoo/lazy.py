"""Packages whose public names are imported when they are first used. A leaf.

A package lists them once, as the imports of its block `if TYPE_CHECKING`, which never runs: editors and type checkers
read it, and so does `attach`.
"""

import ast
import importlib
import sys
from types import ModuleType


class Package(ModuleType):
    """`cnnzoo.train` and its like are functions, also after the modules of the same names have been imported: these are
    reached by `from cnnzoo.train import ...`.
    """

    _homes: dict[str, str]  # public name -> the module that holds it

    def __getattr__(self, name: str):
        home = self._homes.get(name)
        if home is None:
            from cnnzoo.errors import did_you_mean
            from cnnzoo.habits import INSTEAD

            hint = did_you_mean(name, self._homes, f"help({self.__name__}) tells what it has")
            hint = f"; here it is {INSTEAD[name]}" if name in INSTEAD and self.__name__ == "cnnzoo" else hint
            text = f"module {self.__name__!r} has no attribute {name!r}{hint}"
            raise AttributeError(text, name=name, obj=None)  # without the module, of which Python would guess too
        if home == self.__name__:  # the name is a room's
            return importlib.import_module(f"{home}.{name}")
        return getattr(importlib.import_module(home), name)

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and name in self._homes):  # what importing the module would do
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return [*self._homes, *(name for name in self.__dict__ if name.startswith("__"))]


def attach(name: str) -> None:
    """Make a package, which is being imported, a `Package`."""
    package = sys.modules[name]
    block = next(node for node in ast.parse(package.__loader__.get_source(name)).body if isinstance(node, ast.If))
    package._homes = {each.name: line.module for line in block.body for each in line.names}
    package.__all__ = sorted(package._homes)
    package.__class__ = Package
