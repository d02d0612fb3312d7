"""Where the parts of a longer run are stored, and on which devices they run."""

from typing import Any, NamedTuple

from ._checkpoint import Folder, part
from ._spread import Devices


class Place(NamedTuple):
    """Where a longer run, or a part of it, has its states and its devices.

    Attributes:
        checkpoint: folder of its states.
        sharding: devices over which it is spread.
    """

    checkpoint: Folder = None
    sharding: Devices = None

    def at(self, *names: str | int) -> "Place":
        """The place of a part."""
        return self._replace(checkpoint=part(self.checkpoint, *names))

    def options(self, *names: str | int) -> dict[str, Any]:
        """The place of a part, as options of functions such as `fit`."""
        return self.at(*names)._asdict()
