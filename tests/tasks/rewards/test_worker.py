"""The worker script: it starts fast because it imports the standard library only."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import asyppo_jax.tasks.rewards as rewards

WORKER = Path(rewards.__file__).with_name("worker.py")


def test_the_script_imports_the_standard_library_only():
    tree = ast.parse(WORKER.read_text())
    names = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
        )
    }
    assert names and names <= sys.stdlib_module_names


def test_a_worker_ends_when_its_parent_closes_the_pipe():
    process = subprocess.run(
        [sys.executable, "-P", str(WORKER)],
        input=json.dumps(
            {"path": sys.path, "functions": [{"name": "operator:concat"}], "time_limit": 1.0}
        ).encode()
        + b"\n",
        capture_output=True,
        timeout=60,
    )
    assert process.returncode == 0
    assert json.loads(process.stdout.splitlines()[0]) == {"ready": True}
