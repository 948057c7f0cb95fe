"""The name of the method that the settings of the algorithm make."""

import pytest

from tests.config.test_settings import with_changes


@pytest.mark.parametrize(
    ("changes", "method"),
    [
        ({}, "AsyPPO (2 critics, masks 0% and 20%)"),
        ({"algorithm__num_critics": 1}, "PPO (1 critic)"),
        ({"algorithm__num_critics": 0, "algorithm__advantages": "grpo"}, "GRPO (no critics)"),
        ({"algorithm__advantages": "grpo"}, "GRPO (2 critics, masks 0% and 20%)"),
        (
            {"algorithm__loss_aggregation": "token", "algorithm__num_critics": 1},
            "PPO (1 critic, loss per token)",
        ),
        (
            {
                "algorithm__advantages": "grpo",
                "algorithm__num_critics": 0,
                "algorithm__group_scale": "none",
                "algorithm__loss_aggregation": "constant",
            },
            "Dr.GRPO (no critics, loss over C)",
        ),
        (
            {"algorithm__advantages": "rloo", "algorithm__advantage_whitening": "none"},
            "RLOO (2 critics, masks 0% and 20%)",
        ),
        (
            {"algorithm__advantages": "reinforce_plus_plus", "algorithm__num_critics": 0},
            "REINFORCE++ (no critics)",
        ),
        (
            {"algorithm__advantages": "reinforce_plus_plus_baseline", "algorithm__num_critics": 0},
            "REINFORCE++ with baseline (no critics)",
        ),
        (
            {
                "algorithm__advantages": "grpo",
                "algorithm__num_critics": 0,
                "algorithm__loss_aggregation": "token",
                "algorithm__clip_eps_high": 0.28,
                "algorithm__zero_spread_groups": "drop",
                "algorithm__overlong_buffer": 64,
            },
            "DAPO (no critics, loss per token, groups without spread dropped, overlong buffer 64)",
        ),
        (
            {"algorithm__zero_spread_groups": "resample"},
            "AsyPPO (2 critics, masks 0% and 20%, groups without spread resampled)",
        ),
        (
            {"algorithm__dual_clip": 3.0, "algorithm__num_critics": 1},
            "PPO (1 critic, dual clip 3)",
        ),
        (
            {"algorithm__kl_coef": 1e-3, "algorithm__num_critics": 1},
            "PPO (1 critic, KL 0.001 by k3)",
        ),
        (
            {"algorithm__positive_nll_coef": 0.1, "algorithm__num_critics": 1},
            "PPO (1 critic, NLL of right answers 0.1)",
        ),
        (
            {"algorithm__mask_by": "entropy"},
            "AsyPPO (2 critics, masks 0% and 20% by entropy)",
        ),
        (
            {
                "algorithm__mask_by": "random",
                "algorithm__num_critics": 0,
                "algorithm__advantages": "grpo",
            },
            "GRPO (no critics, masks 0% and 20% at random)",
        ),
        ({"algorithm__loss": "my:f", "algorithm__num_critics": 1}, "PPO (1 critic, loss my:f)"),
    ],
)
def test_a_run_names_the_method_that_it_trains_with(changes, method):
    assert with_changes(**changes).algorithm.method == method


def test_the_masks_of_a_loss_of_a_users_own_are_not_claimed():
    config = with_changes(algorithm__loss="mine:loss")
    assert config.algorithm.method == "AsyPPO (2 critics, loss mine:loss)"
