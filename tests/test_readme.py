"""The README's Python code runs as written."""

import pathlib
import re

import jax.numpy as jnp

README = pathlib.Path(__file__).parent.parent / "README.md"


def test_readme_code_runs():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) >= 2
    names: dict = {}
    exec(compile("\n".join(blocks), str(README), "exec"), names)
    assert jnp.isfinite(names["heating"]) and names["response"].fields.shape == (20,)
    assert names["library"].size >= 1 and names["fitted"].history[-1] < names["fitted"].history[0]
