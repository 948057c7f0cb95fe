"""What a step of each setting costs."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.study import cost
from experiments.study.study import Study, runs_of
from tests.tiny import save_model_directory

ROOT = Path(__file__).parents[2]
GRPO = {"algorithm.num_critics": 0, "algorithm.advantages": "grpo"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    actor = {"actor.path": save_model_directory(tmp_path_factory.mktemp("model"))}
    methods = {"critics": {"algorithm.critic_warmup_steps": 2}, "GRPO": GRPO}
    return runs_of(Study("s", "tiny_test", {"sums": actor}, {"a": {}}, methods, (0, 1)))


def test_steps_that_compile_are_not_timed(runs, tmp_path, monkeypatch):
    def megabytes(config):
        return 2**20 * (2 if config.algorithm.num_critics else 3)

    monkeypatch.setattr(cost, "update_bytes", megabytes)
    short = [cost._shortened(run, 3) for run in runs]
    assert {run.method: run.config.num_steps for run in short} == {"critics": 6, "GRPO": 4}
    for run in short:
        compiled = run.config.num_steps - 3
        seconds = [100.0] * (compiled + 1) + [1.0, 2.0, 9.0]
        folder = tmp_path / run.folder
        folder.mkdir(parents=True)
        scale = 1 if run.method == "critics" else 2
        lines = [
            {
                "step": step,
                **{f"time/{name}_s": scale * x for name in ("sample", "score", "update")},
            }
            for step, x in enumerate(seconds)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    title, _, head, _, critics, grpo = cost._table(short, "", tmp_path).splitlines()
    assert title == "sums / a, ratios to critics" and head.startswith("| method | sampling, s |")
    assert critics == "| critics | 2.000 | 2.000 | 6.000 | 1.00 | 2 | 1.00 |"
    assert grpo == "| GRPO | 4.000 | 4.000 | 12.000 | 2.00 | 3 | 1.50 |"
    assert "ratios to GRPO" in cost._table(short, "GRPO", tmp_path)


def test_critics_and_larger_microbatches_need_memory(runs):
    critics, grpo = (run.config for run in runs if run.seed == 0)
    needed = cost.update_bytes(critics)
    assert cost.update_bytes(grpo) < needed
    whole = critics.batching.actor_minibatch_size
    batching = dataclasses.replace(critics.batching, microbatch_size=whole)
    smaller = dataclasses.replace(batching, microbatch_size=whole // 4)
    sizes = [
        cost.update_bytes(dataclasses.replace(critics, batching=b)) for b in (smaller, batching)
    ]
    assert sizes[0] < sizes[1]


@pytest.mark.slow
def test_the_command_prints_a_row_per_method(tmp_path):
    model = save_model_directory(tmp_path / "model")
    (tmp_path / "study.py").write_text(f"""\
from experiments.study.study import Study


def get_study():
    methods = {{"GRPO": {GRPO}, "too fast": {GRPO} | {{"actor_optimizer.learning_rate": 1e3}}}}
    tasks = {{"sums": {{"actor.path": {model!r}}}}}
    return Study("s", "tiny_test", tasks, {{"small": {{}}}}, methods, (0, 1))
""")
    command = [sys.executable, "-m", "experiments.study", f"--study={tmp_path}/study.py"]
    done = subprocess.run(
        [*command, f"--workdir={tmp_path}/work", "--cost=1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith(("| GRPO", "| too fast"))]
    assert len(rows) == 2 and all(float(row.split("|")[4]) > 0 for row in rows)
    assert not (tmp_path / "work/results.csv").exists()
