"""The command line: arguments in, functions of the other rooms, files out."""

from ._app import app as app
from ._app import main as main
from ._compare import compare
from ._convert import convert
from ._merge import merge
from ._recall import recall
from ._sample import sample
from ._study import render, study_data

# In the order of `thermogen --help`.
app.command("study")(study_data)
app.command()(render)
app.command()(merge)
app.command()(recall)
app.command()(sample)
app.command()(compare)
app.command()(convert)
