"""Other people's objects and files: models in and out, results as others take them."""

from ._bqm import from_bqm as from_bqm
from ._bqm import to_bqm as to_bqm
from ._model import Model as Model
