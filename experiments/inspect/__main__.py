"""Writes an HTML page that shows saved rollouts token by token in any browser.

    python -m experiments.inspect --rollouts=DIR/rollouts [--output=FILE.html]

A run with `--config.log.rollouts_every=n` writes `step_*.jsonl`, one with
`--config.log.heldout_prompts=n` writes `heldout_*.jsonl`. `--rollouts` takes files, folders and
workdirs, separated by commas. With held-out answers of at least two checkpoints, of one run or of
several, the page can show two of them side by side. The address of the page holds what is shown,
down to the token. A page of 64 answers of 500 tokens is fast; for long answers use a small
`config.log.rollout_prompts`.
"""

import sys

from absl import app, flags
from etils import epath

from asyppo_jax.config import ConfigError, UserError
from asyppo_jax.runtime.paths import absolute, write_whole
from experiments.command_line import parse_flags, refuse_words
from experiments.inspect.page import read_rollouts, render

_ROLLOUTS = flags.DEFINE_list("rollouts", [], "Files or folders of saved rollouts.")
_OUTPUT = flags.DEFINE_string(
    "output", None, "The page to write; default: beside the first of --rollouts, as NAME.html."
)


def main(argv: list[str]) -> None:
    try:
        refuse_words(argv)
        if not _ROLLOUTS.value:
            raise ConfigError("--rollouts=FILE is missing; give files from a run's rollouts/")
        runs = read_rollouts(_ROLLOUTS.value)
        first = epath.Path(absolute(_ROLLOUTS.value[0]))
        stem = first.name if first.is_dir() else first.stem
        output = epath.Path(_OUTPUT.value or first.with_name(f"{stem}.html"))
        try:
            write_whole(output, render(runs).encode())
        except OSError as error:
            raise ConfigError(f"--output={output} cannot be written ({error})") from error
    except UserError as error:
        sys.exit(f"error: {error}")
    print(f"wrote {output}, answers: {sum(len(run.answers) for run in runs)}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
