"""Convolutional networks: every net of the story, one trainer, one command line.

The public names are imported when first used, so that `import cnnzoo` itself costs next to nothing.
"""

import importlib
import sys
from types import ModuleType

__version__ = "0.1.0"

_HOMES = {
    "cnnzoo.zoo": ("create", "list_models", "load", "preprocessing", "register", "unregister"),
    "cnnzoo.models._base": ("Net",),
    "cnnzoo.registry": ("Stage",),
    "cnnzoo.claims": ("info",),
    "cnnzoo.data.given": ("register_data",),
    "cnnzoo.weights.table": ("list_weights",),
    "cnnzoo.summary": ("summary",),
    "cnnzoo.compare": ("compare",),
    "cnnzoo.run": ("train",),
    "cnnzoo.folds": ("cross_validate",),
    "cnnzoo.profiling": ("profile",),
    "cnnzoo.learn": ("finetune", "pick", "probe"),
    "cnnzoo.transfer.doctor": ("check",),
    "cnnzoo.ensemble.committees": ("train_committee",),
    "cnnzoo.ensemble.soup": ("soup",),
    "cnnzoo.estimator": ("CNNClassifier",),
    "cnnzoo.inference": ("optimize",),
    "cnnzoo.predict": ("predict",),
    "cnnzoo.evaluate": ("compare_runs", "evaluate", "judge"),
    "cnnzoo.ensemble.odds": ("vote_odds",),
    "cnnzoo.ensemble.runs": ("Ensemble", "combine"),
    "cnnzoo.ensemble.why": ("diversity",),
    "cnnzoo.export": ("export",),
    "cnnzoo.checkpoint": ("Run",),
    "cnnzoo.config": ("Config",),
    "cnnzoo.errors": ("InputError", "Interrupted"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
_ROOMS = ("visualize",)  # whose functions are used as cnnzoo.visualize.gradcam


class _Package(ModuleType):
    """`cnnzoo.train` and its like are functions.

    The rooms of the same names are reached by `from cnnzoo.train import ...`.
    """

    def __getattr__(self, name: str):
        if name in _ROOMS:
            return importlib.import_module(f"cnnzoo.{name}")
        if name not in _HOME:
            from cnnzoo.errors import no_attribute

            raise no_attribute("cnnzoo", name, (*_HOME, *_ROOMS))
        return getattr(importlib.import_module(_HOME[name]), name)

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):  # what importing the room would do
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *_HOME, *_ROOMS})


sys.modules[__name__].__class__ = _Package
