"""MathJax as part of the site, from an installed package: pages need no network.

A hook of mkdocs. The package `django-static-mathjax` ships MathJax; nothing of Django is used.
"""

import importlib.metadata
import pathlib
import posixpath
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ES5 = "mathjax/static/mathjax/es5/"
SCRIPT = "tex-chtml.js"
FONTS = "output/chtml/fonts/woff-v2/"
FOLDER = "javascripts/mathjax/"


def on_config(config: Any) -> Any:
    config.extra_javascript = ["javascripts/mathjax.js", FOLDER + SCRIPT]
    return config


def on_files(files: Files, config: Any) -> Files:
    for path in importlib.metadata.files("django-static-mathjax") or []:
        name = str(path).partition(ES5)[2]
        if name == SCRIPT or posixpath.dirname(name) + "/" == FONTS:
            content = pathlib.Path(path.locate()).read_bytes()
            files.append(File.generated(config, FOLDER + name, content=content))
    if FOLDER + SCRIPT not in files.src_uris:
        raise PluginError(f"django-static-mathjax is installed without {ES5}{SCRIPT}")
    return files
