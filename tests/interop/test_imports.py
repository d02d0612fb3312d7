"""The libraries of others are imported by who hands over their objects, and by no one else."""

import subprocess
import sys

FOREIGN = ["dimod", "h5py", "pandas", "sklearn", "xarray"]


def test_importing_thermogen_imports_none_of_them():
    script = (
        "import sys, thermogen as tg, thermogen.cli\n"
        "tg.interop.from_bqm, tg.Pairwise\n"
        f"print([name for name in {FOREIGN} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
