"""Sampling completions: prompts -> `sample` -> a `Rollout`, as one jitted program."""

from asyppo_jax.sampling.draw import DecodingOptions as DecodingOptions
from asyppo_jax.sampling.draw import draw as draw
from asyppo_jax.sampling.engine import decoding_params as decoding_params
from asyppo_jax.sampling.engine import sample as sample
from asyppo_jax.sampling.prefill import prefill as prefill
from asyppo_jax.sampling.stops import holds_stop_string as holds_stop_string
from asyppo_jax.sampling.stops import make_stop_table as make_stop_table
