"""`import asyppo_jax`: quick, without JAX, and every name is where it says."""

import ast
import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import asyppo_jax

PUBLIC = sorted(asyppo_jax._MODULE_OF)


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
    module = importlib.import_module(f"asyppo_jax.{asyppo_jax._MODULE_OF[name]}")
    assert getattr(asyppo_jax, name) is getattr(module, name)
    assert name in dir(asyppo_jax)


def test_no_name_hides_a_module():
    modules = {path.stem for path in Path(asyppo_jax.__file__).parent.iterdir()}
    assert not modules & set(PUBLIC)


def test_type_checkers_are_told_the_same_names():
    tree = ast.parse(Path(asyppo_jax.__file__).read_text())
    declared = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("asyppo_jax.")
        for alias in node.names
    }
    assert declared.pop("train") == "asyppo_jax.train"  # a module that can be called
    assert declared == {
        name: f"asyppo_jax.{place}" for name, place in asyppo_jax._MODULE_OF.items()
    }


@pytest.mark.parametrize(
    "lines",
    [
        "from asyppo_jax import train",
        "from asyppo_jax.train import train as function; from asyppo_jax import train",
        "import asyppo_jax.train; train = asyppo_jax.train",
        "from asyppo_jax import train as module; train = module.train",
    ],
)
def test_train_can_be_called_however_it_was_imported(lines, tmp_path):
    scope: dict = {}
    exec(lines, scope)
    assert list(inspect.signature(scope["train"]).parameters) == [
        *("config", "workdir", "loss", "reward", "pool")
    ]
    with pytest.raises(asyppo_jax.UserError, match="path"):  # from inside of it
        scope["train"](asyppo_jax.default_config(), tmp_path)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'asyppo_jax' has no attribute 'load_actr'"):
        asyppo_jax.load_actr  # noqa: B018


OLD_IMPORTS = [  # as earlier documents and notebooks wrote them
    "from asyppo_jax.checkpoint import is_run",
    "from asyppo_jax.metrics import read_metrics",
    "from asyppo_jax.prompts import make_prompts, pad_token_id, stop_token_ids",
    "from asyppo_jax.records import load_records",
    "from asyppo_jax.rewards import exact, last_boxed, math",
    "from asyppo_jax.rollout_files import read_rollout_file, token_texts",
    "from asyppo_jax.rollouts import read_answers, training_options",
    "from asyppo_jax.statistics import average_at_k",
    "from asyppo_jax.train import train",
    "from asyppo_jax.ops.losses import asyppo_loss",
    "from asyppo_jax.ops.masked import sequence_mean_sum",
]


@pytest.mark.parametrize("line", OLD_IMPORTS)
def test_an_import_that_earlier_documents_showed_still_works(line):
    exec(line, {})


def test_an_earlier_path_gives_the_objects_of_the_module_that_it_became():
    earlier = importlib.import_module("asyppo_jax.prompts")
    for module in ("prompts", "tokenizers"):
        current = importlib.import_module(f"asyppo_jax.tasks.{module}")
        for name in ("make_prompts", "load_tokenizer"):
            if hasattr(current, name):
                assert getattr(earlier, name) is getattr(current, name)
