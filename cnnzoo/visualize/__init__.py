"""Looking inside a net: what its layers have learned, and what an answer rests on.

Each way to look is a function, imported when first used. It gives a frozen result with the arrays, `.figure()` and
`.save(file)`.
"""

import importlib
import sys
from types import ModuleType

from cnnzoo.errors import no_attribute

_HOMES = {
    "cnnzoo.visualize.hooks": ("layer_of", "stages_of", "untouched", "watching"),
    "cnnzoo.visualize.subject": ("Subject",),
    "cnnzoo.visualize.filters": ("filters",),
    "cnnzoo.visualize.attribution": ("saliency", "guided", "gradcam", "occlusion", "compare"),
    "cnnzoo.visualize.faithfulness": ("deletion_insertion", "pointing", "sanity"),
    "cnnzoo.visualize.activations": ("activations", "sparsity", "walk"),
    "cnnzoo.visualize.deconv": ("deconv",),
    "cnnzoo.visualize.synthesis": ("invert", "maximise"),
    "cnnzoo.visualize.neighbours": ("neighbours",),
    "cnnzoo.visualize.atlas": ("map",),
    "cnnzoo.visualize.concepts": ("concepts",),
    "cnnzoo.visualize.tcav": ("tcav",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


class _Room(ModuleType):
    """`visualize.filters` and its like are functions, also after the modules of the same names have been imported."""

    def __getattr__(self, name: str):
        if name not in _HOME:
            raise no_attribute("cnnzoo.visualize", name, _HOME)
        return getattr(importlib.import_module(_HOME[name]), name)

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):  # what importing the module would do
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *_HOME})


sys.modules[__name__].__class__ = _Room
