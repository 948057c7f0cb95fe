"""The settings of the method: advantages, masks, losses, and each choice of the paper."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class AlgorithmConfig:
    """AsyPPO (arXiv 2510.01656) and each choice where the paper is silent."""

    # How advantages are estimated: "gae" from rewards and the critics' mean value (PPO). The others
    # from rewards alone: "grpo" in the group (arXiv 2402.03300); "rloo" minus the mean of the other
    # answers (2402.14740); "reinforce_plus_plus", with no baseline or with the group's mean
    # ("..._baseline"), whitened over the batch (2501.03262). See `algorithm.advantages`.
    advantages: Literal[
        "gae", "grpo", "rloo", "reinforce_plus_plus", "reinforce_plus_plus_baseline"
    ] = "gae"  # [P]
    # "grpo": advantages of a group are divided by its standard deviation ("std"), or not ("none",
    # Dr.GRPO, arXiv 2503.20783).
    group_scale: Literal["std", "none"] = "std"
    # Prompts whose answers all have the same reward: "keep"; "drop" them from the actor's loss and
    # its denominators; "resample": in steps that update the actor, sample more prompts to replace
    # them, and drop those that are left (DAPO, arXiv 2503.14476, equation 11).
    zero_spread_groups: Literal["keep", "drop", "resample"] = "keep"
    # DAPO's soft overlong punishment: over the last n tokens before the maximum length the reward
    # falls linearly by up to `overlong_penalty`; 0: off. Logged rewards stay the task's own.
    overlong_buffer: int = 0
    overlong_penalty: float = 1.0  # DAPO's, whose rewards are -1 and 1; for 0 and 1 that is 0.5
    num_critics: int = 2  # K [P]; 0 needs an estimator without values
    # Of the real tokens, those with the lowest std, which the policy loss leaves out. The paper has
    # 0.2, as `configs/paper.py`; 0, because in experiments/asyppo_study the mask costs accuracy.
    advantage_mask_fraction: float = 0.0
    entropy_mask_fraction: float = 0.2  # of the real tokens: those with the highest std [P]
    # Which responses critics train on. "responses" [P]: those to each prompt are divided over the
    # critics; "prompts": the prompts are; "all": no division. All three make the same number of
    # optimizer updates; with "all" each update has all K shares, so critics compute K times as much
    # and the comparison is of equal updates, not of equal data per critic.
    critic_data: Literal["responses", "prompts", "all"] = "responses"
    # The value of all critics, in advantages and targets: their "mean" [P] or their "min".
    value_aggregation: Literal["mean", "min"] = "mean"
    # What both masks rank tokens by, all with the same fractions: "std" of the critics' values [P];
    # "entropy" of the policy that sampled; "random". Only "std" needs two critics, the others work
    # with any estimator.
    mask_by: Literal["std", "entropy", "random"] = "std"
    gamma: float = 1.0  # [D] 0.95 is ROLL's default
    gae_lambda: float = 1.0  # [D] 0.95 is ROLL's default
    # λ of an answer of L tokens = max(0, 1 − 1 / (α L)) with this α, for the actor's advantages
    # (VAPO, arXiv 2504.05118: 0.05); 0: `gae_lambda`.
    length_adaptive_lambda: float = 0.0
    # λ of the critics' targets (VC-PPO, arXiv 2503.01491: 1); None: `gae_lambda`.
    returns_lambda: float | None = None
    # While the explained variance of a rollout is not above 0, the baseline is the mean reward of
    # the group's other answers in place of the values (after EVPO, arXiv 2604.19485).
    explained_variance_gate: bool = False
    # Truncated answers take no part in the actor's loss; statistics and critics keep them (EasyPPO,
    # arXiv 2609.36802).
    overlong_filter: bool = False
    # When the values behind the advantages are computed. [D] After its update, a critic has fitted
    # the rewards of its own share, so the std would show which critic trained on a response. The
    # box with the algorithm in the paper has "after_update".
    value_timing: Literal["before_update", "after_update"] = "before_update"
    # The critics' targets. [D] "lambda": A_t + mean value, which equals the final reward at
    # gamma = lambda = 1.
    returns: Literal["lambda", "monte_carlo"] = "lambda"
    # Whose mean and std whiten the advantages: "before_mask", those of all real tokens [D], because
    # the mask belongs to the policy loss; "after_mask", those that the advantage mask keeps.
    advantage_whitening: Literal["before_mask", "after_mask", "none"] = "before_mask"
    # The policy's loss per token: "asyppo" [P], or "module:function", a function of your own (see
    # `algorithm.policy_losses`).
    loss: str = "asyppo"
    # How per-token losses become one number. "sequence" [P]: 1/|o| per token, then the mean over
    # sequences; "token": the mean over all tokens of a minibatch (DAPO, arXiv 2503.14476);
    # "constant": 1/C per token, then the mean over sequences (Dr.GRPO, arXiv 2503.20783).
    loss_aggregation: Literal["sequence", "token", "constant"] = "sequence"
    clip_eps_low: float = 0.2  # [D] the paper clips symmetrically and does not give the value
    clip_eps_high: float = 0.2  # [D] 0.28 is common
    # c > 1: where the advantage A is negative, the clipped objective is at least c * A (dual clip,
    # arXiv 1912.09729, which has 3); 0: off.
    dual_clip: float = 0.0
    entropy_coef: float = 1e-3  # [D] ROLL's default is 0
    # The factor of a language-model loss on right answers, those with the reward 1: minus the mean
    # log-prob of their tokens (VAPO, arXiv 2504.05118, which has 0.1); 0: off.
    positive_nll_coef: float = 0.0
    # The factor of the KL divergence to the reference, the actor's starting weights, which each
    # token's loss contains (GRPO, arXiv 2402.03300, equation 4). [P] 0: none, and no reference is
    # loaded. Above 0, each start of the run loads the weights of config.actor.path, so keep them.
    kl_coef: float = 0.0
    # How a token's KL is estimated (`ops.losses.kl_penalty`). "k3": GRPO's; "k2": its expected
    # gradient is that of KL(policy || reference). "k1" only adds noise, because its expected
    # gradient is 0.
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    actor_epochs: int = 4  # [D] the paper's "update-to-data ratio 4"
    critic_epochs: int = 1  # [R]
    # Steps at the start that update the critics only. [D] Untrained critics differ by their random
    # heads alone, so the masks would be arbitrary.
    critic_warmup_steps: int = 10
    # [D] False: all critics start from one value head, so the std is 0 until their data differ.
    distinct_value_heads: bool = True
    # [D] "joint": one optimizer, with one gradient clip, for all critics; it couples their updates.
    critic_optimizer: Literal["per_critic", "joint"] = "per_critic"
    # [D] "rollout": the sampler's log-probs, whose gap to the learner's is measured per step;
    # "recompute": one more forward pass of the actor before its update.
    old_log_probs: Literal["rollout", "recompute"] = "rollout"
    log_prob_gap_bound: float = 0.05  # [D] mean |sampler - learner| in nats above which a run warns

    @property
    def ranks_tokens(self) -> bool:
        """Whether the masks have something to rank; one critic has no disagreement."""
        return self.num_critics > 1 or self.mask_by != "std"

    @property
    def method(self) -> str:
        """The method in words, such as "AsyPPO (2 critics, masks 0% and 20%)"."""
        details = [f"{self.num_critics or 'no'} critic{'s' * (self.num_critics != 1)}"]
        # A loss of a user may use the masks or not.
        if self.ranks_tokens and self.loss == "asyppo":
            advantage, entropy = self.advantage_mask_fraction, self.entropy_mask_fraction
            by = {"std": "", "entropy": " by entropy", "random": " at random"}[self.mask_by]
            details.append(f"masks {advantage:.0%} and {entropy:.0%}{by}")
        if self.loss_aggregation != "sequence":
            details.append(
                {"token": "loss per token", "constant": "loss over C"}[self.loss_aggregation]
            )
        if self.zero_spread_groups != "keep":
            what = {"drop": "dropped", "resample": "resampled"}[self.zero_spread_groups]
            details.append(f"groups without spread {what}")
        if self.overlong_buffer:
            details.append(f"overlong buffer {self.overlong_buffer}")
        if self.dual_clip:
            details.append(f"dual clip {self.dual_clip:g}")
        if self.loss != "asyppo":
            details.append(f"loss {self.loss}")
        if self.positive_nll_coef:
            details.append(f"NLL of right answers {self.positive_nll_coef:g}")
        if self.kl_coef:
            details.append(f"KL {self.kl_coef:g} by {self.kl_estimator}")
        return f"{self._name} ({', '.join(details)})"

    @property
    def _name(self) -> str:
        if self.advantages == "grpo":
            if self.group_scale == "none":
                return "Dr.GRPO"
            drops = self.zero_spread_groups != "keep" and self.loss_aggregation == "token"
            return "DAPO" if drops and self.clip_eps_high > self.clip_eps_low else "GRPO"
        names = {
            "gae": "AsyPPO" if self.num_critics > 1 else "PPO",
            "rloo": "RLOO",
            "reinforce_plus_plus": "REINFORCE++",
            "reinforce_plus_plus_baseline": "REINFORCE++ with baseline",
        }
        # An estimator of the user's is called by its name in `algorithm.advantages.ESTIMATORS`.
        return names.get(self.advantages, self.advantages)
