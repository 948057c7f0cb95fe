"""`import asyppo_jax`: quick, without JAX, and every name is where it says."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import asyppo_jax

PUBLIC = sorted(asyppo_jax._PLACES)


def test_the_import_takes_no_jax_and_hardly_any_time():
    program = (
        "import sys, time, json; started = time.perf_counter(); import asyppo_jax; "
        "print(json.dumps([time.perf_counter() - started, sorted(sys.modules)]))"
    )
    out = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        cwd=Path(__file__).parents[1],
    )
    seconds, modules = json.loads(out.stdout)
    assert not {"jax", "numpy", "flax", "transformers"} & set(modules)
    assert seconds < 2


@pytest.mark.parametrize("name", PUBLIC)
def test_each_name_is_the_object_of_its_module(name):
    module = importlib.import_module(f"asyppo_jax.{asyppo_jax._PLACES[name]}")
    assert getattr(asyppo_jax, name) is getattr(module, name)
    assert name in dir(asyppo_jax)


def test_no_name_hides_a_module():
    modules = {path.stem for path in Path(asyppo_jax.__file__).parent.iterdir()}
    assert not modules & set(PUBLIC)


def test_type_checkers_are_told_the_same_names():
    tree = ast.parse(Path(asyppo_jax.__file__).read_text())
    told = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("asyppo_jax.")
        for alias in node.names
    }
    assert told == {name: f"asyppo_jax.{place}" for name, place in asyppo_jax._PLACES.items()}


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'asyppo_jax' has no attribute 'load_actr'"):
        asyppo_jax.load_actr  # noqa: B018
