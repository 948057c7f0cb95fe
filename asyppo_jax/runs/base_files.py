"""Copies of the base models' small files, so that a run can be loaded from its workdir alone.

Weights are in the checkpoints. Architecture and tokenizer are copied once to WORKDIR/base/actor
and, if the critics have their own base model, to WORKDIR/base/critic.
"""

import dataclasses

from etils import epath

from asyppo_jax.config import Config, NetworkConfig
from asyppo_jax.models.config import ModelError
from asyppo_jax.models.pretrained import critic_source
from asyppo_jax.runs.checkpoint import has_trained
from asyppo_jax.runtime.multi_host import is_first
from asyppo_jax.runtime.paths import resolve_directory

_SUFFIXES = (".json", ".jinja", ".txt", ".model")
_INDEX = ".index.json"  # maps weights to files; not needed without the weights


def keep_base_files(config: Config, workdir: str) -> None:
    """Copies architecture and tokenizer files to the workdir, on the first host, unless present.

    Copies of a run that has not trained may be those of another model, and are replaced.
    """
    if not is_first():
        return
    trained = has_trained(workdir)
    for name, source in model_sources(config).items():
        copy = _copy_directory(workdir, name)
        if trained and (copy / "config.json").is_file():
            continue
        if copy.exists():
            copy.rmtree()
        copy.mkdir(parents=True, exist_ok=True)
        base = epath.Path(resolve_directory(source.path))
        for file in base.iterdir():
            is_wanted = file.suffix in _SUFFIXES and not file.name.endswith(_INDEX)
            if is_wanted and file.is_file():  # a link may lead nowhere
                (copy / file.name).write_bytes(file.read_bytes())
        # Written last, because it marks the copy as complete.
        model_config = epath.Path(source.architecture or base / "config.json")
        (copy / "config.json").write_bytes(model_config.read_bytes())


def with_kept_base(config: Config, workdir: str) -> Config:
    """The settings of a run; missing base models are replaced by their copies in `workdir`."""
    changes = {}
    for name, source in model_sources(config).items():
        copy = _copy_directory(workdir, name)
        if not _exists(source) and (copy / "config.json").is_file():
            network = getattr(config, name)
            changes[name] = dataclasses.replace(network, path=str(copy), architecture="")
    return dataclasses.replace(config, **changes)


def model_sources(config: Config) -> dict[str, NetworkConfig]:
    """The base models of a run, {"actor": settings}, and "critic" if the critics have their own."""
    sources = {"actor": config.actor}
    if config.algorithm.num_critics and (config.critic.path or config.critic.architecture):
        sources["critic"] = critic_source(config)
    return sources


def _copy_directory(workdir: str, name: str) -> epath.Path:
    return epath.Path(workdir) / "base" / name


def _exists(source: NetworkConfig) -> bool:
    if source.architecture and not epath.Path(source.architecture).is_file():
        return False
    try:
        resolve_directory(source.path)
    except ModelError:
        return False
    return True
