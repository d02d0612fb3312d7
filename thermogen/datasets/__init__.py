"""Binary data sets as host arrays of spins.

Data sets are small, so they are NumPy arrays of float64, -1 or +1 for each spin. Sums and products
of whole samples are exact in float64, and matrix products are fast. `data.astype("int8")` takes
an eighth of the memory, but its arithmetic wraps around at 127.
"""

from ._read import Table as Table
from ._read import doubts as doubts
from ._read import load as load
from ._read import load_weights as load_weights
from ._read import read as read
from ._read import read_table as read_table
from ._sets import LabelledSpins as LabelledSpins
from ._sets import adder as adder
from ._sets import bars_and_stripes as bars_and_stripes
from ._sets import digits as digits
from ._sets import southern_women as southern_women
from ._spins import spins_as_given as spins_as_given
from ._spins import validate_spins as validate_spins
from ._split import Split as Split
from ._split import split as split
