"""Makes pages of the tutorials: scripts in jupytext's percent format, executed as notebooks.

They are executed side by side, one a core. A cell that fails ends the build. Each page links to its
script and to the notebook with its results. Who edits other pages sets TUTORIALS=unexecuted.
"""

import logging
import os
import pathlib
import posixpath
import tempfile
from concurrent.futures import ThreadPoolExecutor

import jupytext
import nbformat
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert import MarkdownExporter

FOLDER = pathlib.Path(__file__).parent
SECONDS = 300  # a cell
log = logging.getLogger("mkdocs.hooks.tutorials")
# What the kernels see: figures of one look, and no core that another one computes on.
SETTINGS = {"MATPLOTLIBRC": str(FOLDER / "matplotlibrc"), "OMP_NUM_THREADS": "1"}


def on_files(files, config):
    scripts = [f for f in files if f.src_uri.startswith("tutorials/") and f.src_uri.endswith(".py")]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for script, notebook in zip(scripts, pool.map(executed, scripts), strict=True):
            for name, content in page(script, notebook).items():
                files.append(File.generated(config, name, content=content))
    return files


def executed(script: File) -> nbformat.NotebookNode:
    notebook = jupytext.reads(script.content_string, fmt="py:percent")
    if os.environ.get("TUTORIALS") == "unexecuted":
        return notebook
    log.info("Executing %s", script.src_uri)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=SECONDS,
            kernel_name="python3",
            coalesce_streams=True,  # what a loop prints is one block
            extra_arguments=["--IPKernelApp.log_level=40"],  # no warnings of its sockets
            resources={"metadata": {"path": folder}},
        )
        try:
            return client.execute(env=os.environ | SETTINGS)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            raise PluginError(f"{script.src_uri}: {error}") from error


def page(script: File, notebook: nbformat.NotebookNode) -> dict[str, str | bytes]:
    """Files by name: the page in Markdown, its figures, the notebook."""
    folder, stem = posixpath.split(posixpath.splitext(script.src_uri)[0])
    text, resources = MarkdownExporter().from_notebook_node(
        notebook, {"unique_key": stem, "output_files_dir": "figures"}
    )
    title, _, rest = text.partition("\n\n")
    links = f"*[Script]({stem}.py) and [notebook]({stem}.ipynb) of this page.*"
    files = {f"{folder}/{name}": figure for name, figure in resources["outputs"].items()}
    files[f"{folder}/{stem}.ipynb"] = nbformat.writes(notebook)
    files[f"{folder}/{stem}.md"] = f"{title}\n\n{links}\n\n{rest}"
    return files
