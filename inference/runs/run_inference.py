"""Imports RunInference without Beam's model manager, which would import torch and scipy.

That takes two seconds and 200 MB. The manager shares a GPU between several models, and a worker of a run has one. Where
torch is missing, Beam does without the manager too.
"""

import sys
from types import ModuleType

MANAGER = "apache_beam.ml.inference.model_manager"

_absent = ModuleType(MANAGER)
_absent.ModelManager = None  # type: ignore[attr-defined]  # what Beam has where it cannot import the manager
_replaced = sys.modules.setdefault(MANAGER, _absent) is _absent
try:
    from apache_beam.ml.inference.base import ModelHandler as ModelHandler
    from apache_beam.ml.inference.base import RunInference as RunInference
finally:
    if _replaced:
        del sys.modules[MANAGER]
