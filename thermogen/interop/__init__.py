"""Other people's objects and files: models in and out, results as others take them."""

import importlib
from typing import Any

from ._bits import Bits as Bits
from ._bits import from_bernoulli_rbm as from_bernoulli_rbm
from ._bits import from_bits as from_bits
from ._bits import to_bernoulli_rbm as to_bernoulli_rbm
from ._bits import to_bits as to_bits
from ._bqm import from_bqm as from_bqm
from ._bqm import to_bqm as to_bqm
from ._files import read_model as read_model
from ._files import write_model as write_model
from ._frames import from_pandas as from_pandas
from ._frames import to_pandas as to_pandas
from ._frames import to_xarray as to_xarray
from ._graphs import from_networkx as from_networkx
from ._graphs import library_graph as library_graph
from ._graphs import to_networkx as to_networkx
from ._graphs import tree_graph as tree_graph
from ._model import Model as Model
from ._polynomial import from_polynomial as from_polynomial
from ._polynomial import to_polynomial as to_polynomial
from ._qubo import Qubo as Qubo
from ._qubo import from_qubo as from_qubo
from ._qubo import to_qubo as to_qubo


def __getattr__(name: str) -> Any:
    """Estimators, imported at first use: scikit-learn loads for a second."""
    if name == "sklearn":
        return importlib.import_module(".sklearn", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
