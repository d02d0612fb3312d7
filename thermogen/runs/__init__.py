"""What takes long: jobs, and the one driver that runs, stores, resumes and spreads them."""

from ._checkpoint import Checkpoint as Checkpoint
from ._checkpoint import Folder as Folder
from ._checkpoint import holding as holding
from ._checkpoint import part as part
from ._errors import CheckpointError as CheckpointError
from ._errors import ProcessLostError as ProcessLostError
from ._job import AbstractJob as AbstractJob
from ._place import Place as Place
from ._processes import check_same_call as check_same_call
from ._processes import from_first as from_first
from ._processes import is_first as is_first
from ._processes import together as together
from ._progress import counted as counted
from ._progress import progress as progress
from ._progress import shows_progress as shows_progress
from ._run import result_of as result_of
from ._run import run as run
from ._spread import Devices as Devices
from ._spread import Spread as Spread
from ._spread import on_all as on_all
from ._spread import over_lanes as over_lanes
