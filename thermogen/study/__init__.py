"""The main job: from data to one HTML page, stage by stage."""

from ._merged import Merged as Merged
from ._merged import merge_studies as merge_studies
from ._merged import merged_summary as merged_summary
from ._page import render as render
from ._pipeline import run_study as run_study
from ._progress import progress as progress
from ._same import check_same as check_same
from ._saved import load_study as load_study
from ._saved import save_study as save_study
from ._sizes import check_size as check_size
from ._study import Comparison as Comparison
from ._study import Contestant as Contestant
from ._study import Functional as Functional
from ._study import Moments as Moments
from ._study import Recollection as Recollection
from ._study import ScanPoint as ScanPoint
from ._study import Settings as Settings
from ._study import Source as Source
from ._study import Study as Study
from ._study import Variation as Variation
from ._study import load_source as load_source
from ._summary import fit_failed as fit_failed
from ._summary import summary as summary
from ._summary import version as version
