"""Shows saved rollouts token by token, as one HTML page that any browser opens.

    python -m experiments.inspect --rollouts=DIR/rollouts/step_00000010.jsonl [--output=FILE.html]

The files come from a run with `--config.log.rollouts_every=n`. `--rollouts` takes several, or a
folder, separated by commas. A page holds 64 answers of 500 tokens with ease; for long answers keep
`config.log.rollout_prompts` small.
"""

import sys

from absl import app, flags
from etils import epath

from asyppo_jax.config import ConfigError, UserError
from asyppo_jax.runtime.paths import write_whole
from experiments.command_line import parse_flags
from experiments.inspect.page import read_rollouts, render

_ROLLOUTS = flags.DEFINE_list("rollouts", [], "Files or folders of saved rollouts.")
_OUTPUT = flags.DEFINE_string("output", None, "The page; default: beside the first, as .html.")


def main(argv: list[str]) -> None:
    del argv
    try:
        if not _ROLLOUTS.value:
            raise ConfigError("--rollouts=FILE is missing; give what a run wrote into rollouts/")
        answers = read_rollouts(_ROLLOUTS.value)
        output = epath.Path(_OUTPUT.value or epath.Path(_ROLLOUTS.value[0]).with_suffix(".html"))
        try:
            write_whole(output, render(answers).encode())
        except OSError as error:
            raise ConfigError(f"--output={output} cannot be written ({error})") from error
    except UserError as error:
        sys.exit(f"error: {error}")
    print(f"wrote {output}, answers: {len(answers)}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
