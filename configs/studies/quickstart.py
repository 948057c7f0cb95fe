"""Four methods on the quickstart's task, with three seeds: shows what a study is.

    python -m experiments.study --study=configs/studies/quickstart.py --workdir=runs/study
    python -m experiments.report --study=runs/study

Hardware: two CPU cores, a few minutes. It tells little: after more than ten steps all methods solve
the task (experiments/quickstart/README.md).
"""

from experiments.study.study import Study, differences


def get_study() -> Study:
    return Study(
        name="quickstart",
        base="quickstart",
        tasks={
            "sums": {"num_steps": 10, "evaluation.every": 2, "checkpoint.every": 5},
        },
        actors={"0.6M": {}},
        methods={
            "AsyPPO": {},
            "one critic": {"algorithm.num_critics": 1},
            "symmetric PPO": differences("quickstart_symmetric_ppo", "quickstart"),
            "GRPO": differences("quickstart_grpo", "quickstart"),
        },
        seeds=(0, 1, 2),
        reference="symmetric PPO",
        panels={
            "critics": ("AsyPPO", "one critic", "symmetric PPO"),
            "without critics": ("AsyPPO", "GRPO"),
        },
    )
