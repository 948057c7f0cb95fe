"""The command `asyppo`: `asyppo train --config=quickstart --workdir=DIR`, from any directory.

`asyppo NAME ...` is `python -m` of a module in `experiments/` (`COMMANDS`). `asyppo configs` lists
the config files, whose names `--config` takes; `asyppo configs NAME` prints all values of one.
`eval "$(asyppo completion)"` completes both in bash and zsh.
"""

import ast
import difflib
import os
import re
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

_ROOT = Path(__file__).parents[1]
CONFIGS = _ROOT / "configs"
COMMANDS = {
    "train": ("experiments.train", "start or resume a run"),
    "evaluate": ("experiments.evaluate", "score a checkpoint on benchmarks or on your own file"),
    "export": ("experiments.export", "write a run's actor and critics as Hugging Face models"),
    "inspect": ("experiments.inspect", "show saved rollouts token by token in a page"),
    "plan": ("experiments.plan", "memory and time of a config on a TPU slice, without the slice"),
    "value-truth": ("experiments.value_truth", "compare a run's critics with true values"),
    "critics": ("experiments.critics", "compare options of the critics on recorded rollouts"),
    "study": ("experiments.study", "do the runs of a study: tasks, methods, seeds"),
    "report": ("experiments.report", "write the tables and figures of a study"),
    "convert": ("experiments.convert", "turn a GGUF file into a Hugging Face directory"),
    "fetch": ("experiments.real_model.fetch", "download the small pretrained models"),
    "benchmark": ("experiments.benchmark", "time sampling and updates"),
    "launch-tpu": ("experiments.launch.tpu_vm", "start a run on a Cloud TPU slice"),
    "launch-gke": ("experiments.launch.gke", "start a run in GKE"),
}

_HELP = {"help", "-h", "--help"}
_started_as_asyppo = False  # whether `main` runs a command of this process

_COMPLETION = """\
[ -n "$ZSH_VERSION" ] && autoload -U +X bashcompinit && bashcompinit
_asyppo() {
  local word="${COMP_WORDS[COMP_CWORD]}"
  [ "$word" = "=" ] && word=""  # bash splits words at =
  if [ "$COMP_CWORD" = 1 ]; then
    COMPREPLY=($(compgen -W "@COMMANDS@" -- "$word"))
  elif [[ "$COMP_LINE" =~ --config=[^\\ ]*$ ]]; then
    COMPREPLY=($(compgen -W "@CONFIGS@" -- "${word#--config=}"))
  else
    COMPREPLY=($(compgen -f -- "$word"))
  fi
}
complete -o nospace -F _asyppo asyppo
"""


def main() -> None:
    command, *rest = sys.argv[1:] or ["--help"]
    if command in COMMANDS:
        # As with `python -m`: reward functions and data are found in the current directory.
        sys.path.insert(0, os.getcwd())
        # If that holds a checkout called asyppo_jax, Python takes the checkout for the package,
        # unless the package is in a directory of the path; an editable install is in none.
        if str(_ROOT) not in sys.path:
            sys.path.append(str(_ROOT))
        sys.argv[1:] = rest
        global _started_as_asyppo
        _started_as_asyppo = True
        runpy.run_module(COMMANDS[command][0], run_name="__main__", alter_sys=True)
    elif command in _HELP or (command in ("configs", "completion") and _HELP & {*rest}):
        print(usage())
    elif command == "configs":
        try:
            print(describe_config(rest[0]) if rest else list_configs(), flush=True)
        except BrokenPipeError:  # `asyppo configs NAME | head`
            # Python flushes once more at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
    elif command == "completion":
        names = " ".join([*COMMANDS, "configs", "completion"])
        print(
            _COMPLETION.replace("@COMMANDS@", names).replace("@CONFIGS@", " ".join(config_names()))
        )
    else:
        sys.exit(f"error: there is no command {command!r}; {_hint(command)}")


def _hint(command: str) -> str:
    nearest = difflib.get_close_matches(command, [*COMMANDS, "configs", "completion"], n=1)
    listed = f"choose one of {', '.join(COMMANDS)}"
    return f"did you mean asyppo {nearest[0]}?" if nearest else listed


def usage() -> str:
    """The list of commands."""
    rows = [(name, about) for name, (_, about) in COMMANDS.items()]
    rows += [
        ("configs", "list the config files; configs NAME: all values of one"),
        ("completion", "print a completion script"),
    ]
    lines = [f"  {name:11} {about}" for name, about in rows]
    return "\n".join(["usage: asyppo COMMAND [--flags]; asyppo COMMAND --help lists them", *lines])


def config_names() -> list[str]:
    """The names of the config files, which `--config` takes."""
    return sorted(
        file.stem for file in CONFIGS.glob("*.py") if "def get_config" in file.read_text()
    )


def list_configs() -> str:
    """The names of the config files, each with the first line of its text."""
    names = config_names()
    width = max(map(len, names))
    return "\n".join(f"{name:{width}}  {_about(CONFIGS / f'{name}.py')}" for name in names)


def describe_config(name: str) -> str:
    """All settings of a config file, one per line; those that it changes are marked."""
    from asyppo_jax.config import UserError, default_config, from_config_dict
    from asyppo_jax.config.reading import flatten
    from experiments.command_line import read_config_file

    try:
        config = read_config_file(name)
    except UserError as error:
        sys.exit(f"error: {error}")
    values, default = (flatten(c) for c in (config, from_config_dict(default_config())))
    lines = [
        f"config.{setting} = {value!r}{'' if default[setting] == value else '   # changed'}"
        for setting, value in values.items()
    ]
    return "\n".join(lines)


def _about(file: Path) -> str:
    return (ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n")[0]


def config_path(name: str) -> str:
    """The path of the config file NAME or configs/NAME.py; `name` itself if there is such a file.

    Other paths are returned as they are.
    """
    stem = re.sub(r"^configs/(.*)\.py$", r"\1", name)
    file = CONFIGS / f"{stem}.py"
    is_name = "/" not in stem and file.is_file() and not os.path.exists(name)
    return os.path.relpath(file) if is_name else name


def with_config_paths(argv: Sequence[str]) -> list[str]:
    """The arguments, where the name of a config in --config=NAME is replaced by its path."""
    parts = [argument.partition("=") for argument in argv]
    return [
        f"{flag}={config_path(value)}" if equals and flag.lstrip("-") == "config" else argument
        for argument, (flag, equals, value) in zip(argv, parts, strict=True)
    ]


def command_line(name: str) -> str:
    """How the user who started this program calls another: for the lines that a program prints."""
    if _started_as_asyppo:
        return f"asyppo {name}"
    return f"{_python()} -m {COMMANDS[name][0]}"


def _python() -> str:
    """This interpreter as the user types it: relative to the directory that the program runs in."""
    python = os.path.abspath(sys.executable)
    relative = os.path.relpath(python)
    return python if relative.startswith("..") else relative


if __name__ == "__main__":
    main()
