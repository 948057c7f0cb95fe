"""The settings of the critics' values: what they output and what they fit."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ValueConfig:
    """What critics output and what they fit.

    The defaults are plain regression of the return (arXiv 2510.01656). docs/critics.md has the
    equation of each option, experiments/critics/README.md the measured effect of most.
    """

    # How a critic's output z becomes V. "linear": V = z; "atan" (arXiv 2608.23566): ½ + atan(z)/π;
    # "sigmoid"; "bins": the mean of a distribution over `bins` values, softmax(z).
    head: Literal["linear", "atan", "sigmoid", "bins"] = "linear"
    bins: int = 101  # values of a "bins" head, evenly spaced over `bin_range`
    bin_range: tuple[float, ...] = (-0.1, 1.1)
    # What sets scale and bias of new value heads. "noise": noise of std 0.1 / sqrt(D), bias 0;
    # "rollout": after the first rollout, std of V = `head_std` and mean of V = the mean reward.
    head_init: Literal["noise", "rollout"] = "noise"
    head_std: float = 0.03
    # What a critic's output is added to (with a bounded head, before the bound). "group": the mean
    # reward of the group's other answers; "shrunken_group": the same, the closer to the mean reward
    # of the other groups the less prompts differ; "none": nothing.
    anchor: Literal["none", "group", "shrunken_group"] = "none"
    # "squared_error" [P]; "bce": binary cross-entropy (needs the head "sigmoid"); cross-entropy to
    # a distribution over bins (needs the head "bins"): "two_hot", or "hl_gauss", the Gaussian of
    # arXiv 2403.03950.
    loss: Literal["squared_error", "bce", "two_hot", "hl_gauss"] = "squared_error"
    hl_gauss_std: float = 0.75  # of the Gaussian, in bin widths
    # Clip the change of V since the rollout to this distance, and take the larger squared error
    # (arXiv 2005.12729, section 3); 0: off.
    clip_eps: float = 0.0
    # Positions at which V is fitted, as fractions of the answer (SP3O, arXiv 2609.18708: 0.3, 0.6,
    # 0.9), after the warm-up; empty: all tokens.
    positions: tuple[float, ...] = ()
    # Weigh each prompt by 1 / max(std of its rewards, 1 / (2 sqrt(G))), with mean 1 (EasyPPO, arXiv
    # 2609.36802).
    noise_weights: bool = False
    # The text before the prompt in what critics read, in which {answer} is the record's answer; the
    # actor does not see it (an asymmetric critic, arXiv 1710.06542). Such as "{answer}\n"; "": off.
    reference_answer: str = ""
    reference_max_length: int = 32  # R, tokens of that text; longer ones are refused at the start
    # What of the critics is not updated; "attention": its weights (SAO, arXiv 2607.07508).
    frozen: Literal["none", "attention"] = "none"
    # A run without actor updates (`num_steps` <= `critic_warmup_steps`) ends after the first step
    # whose explained variance is at least this; None: it does not.
    stop_at_explained_variance: float | None = None
    # The run whose critics this one starts with; set by config.critic.path = RUN.
    warm_start: str = ""
