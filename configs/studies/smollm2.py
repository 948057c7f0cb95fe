"""AsyPPO with real weights: SmolLM2-135M on one-shot arithmetic, four methods, three seeds.

    python -m experiments.real_model.fetch
    python -m experiments.study --study=smollm2 --workdir=runs/smollm2_study --jobs=1
    python -m experiments.report --study=runs/smollm2_study

Hardware: two CPU cores, 12 GiB; a run takes a quarter of an hour. All methods have the rates of
configs/smollm2_arithmetic.py; nothing is tuned. The three warm-up steps of the critics count in the
budget of 40 steps. The final accuracy is the mean of the last two evaluations, 78 problems with
four sampled answers each.
"""

from experiments.study.study import Study, differences


def get_study() -> Study:
    return Study(
        name="smollm2",
        base="smollm2_arithmetic",
        tasks={"arithmetic": {"num_steps": 40}},
        actors={"SmolLM2-135M": {}},
        methods={
            "AsyPPO": {},
            "symmetric PPO": differences("quickstart_symmetric_ppo", "quickstart"),
            "GRPO": differences("quickstart_grpo", "quickstart"),
            # The recipe whose critics know most on this task (experiments/critics/README.md).
            "AsyPPO, anchored critics": {
                "value.head_init": "rollout",
                "value.head": "sigmoid",
                "value.loss": "bce",
                "value.anchor": "shrunken_group",
            },
        },
        seeds=(0, 1, 2),
        reference="AsyPPO",
        panels={
            "baselines": ("AsyPPO", "symmetric PPO", "GRPO"),
            "better critics": ("AsyPPO", "AsyPPO, anchored critics"),
        },
        final_evaluations=2,
        threads=2,
    )
