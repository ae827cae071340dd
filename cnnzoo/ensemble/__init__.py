"""Several trained nets that answer as one: combining runs, making members, averaging weights, and why it helps.

`ensemble`, `compare` and `Ensemble` are imported when first used: counting odds needs no net.
"""

import importlib

from cnnzoo.errors import no_attribute

_IN_RUNS = {"ensemble": "combine", "compare": "compare", "Ensemble": "Ensemble"}


def __getattr__(name: str):
    if name not in _IN_RUNS:
        raise no_attribute("cnnzoo.ensemble", name, _IN_RUNS)
    return getattr(importlib.import_module("cnnzoo.ensemble.runs"), _IN_RUNS[name])
