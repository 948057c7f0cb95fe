"""What a run keeps of the models that it started from, so that its directory is enough to load it.

Weights are in the checkpoints; architecture and tokenizer are copied once to WORKDIR/base/actor
and, where the critics have their own, WORKDIR/base/critic.
"""

import dataclasses

from etils import epath

from asyppo_jax.config import Config, NetworkConfig
from asyppo_jax.models.config import ModelError
from asyppo_jax.models.formats.huggingface import resolve_directory
from asyppo_jax.models.pretrained import critic_source
from asyppo_jax.runtime.multi_host import is_first

_SUFFIXES = (".json", ".jinja", ".txt", ".model")
_INDEX = ".index.json"  # says which file holds which weights


def keep_base_files(config: Config, workdir: str) -> None:
    """Copies them, on the first host, if they are not there yet."""
    if not is_first():
        return
    for name, source in _sources(config).items():
        kept = _kept(workdir, name)
        if (kept / "config.json").is_file():
            continue
        kept.mkdir(parents=True, exist_ok=True)
        given = epath.Path(resolve_directory(source.path))
        for file in given.iterdir():
            if file.suffix in _SUFFIXES and not file.name.endswith(_INDEX):
                (kept / file.name).write_bytes(file.read_bytes())
        # Last: it says that all is there.
        shape = epath.Path(source.architecture) if source.architecture else given / "config.json"
        (kept / "config.json").write_bytes(shape.read_bytes())


def with_kept_base(config: Config, workdir: str) -> Config:
    """The settings of a run, read from its own copies what is no longer where it was."""
    changes = {}
    for name, source in _sources(config).items():
        kept = _kept(workdir, name)
        if not _is_here(source) and (kept / "config.json").is_file():
            own = getattr(config, name)
            changes[name] = dataclasses.replace(own, path=str(kept), architecture="")
    return dataclasses.replace(config, **changes)


def _sources(config: Config) -> dict[str, NetworkConfig]:
    sources = {"actor": config.actor}
    if config.algorithm.num_critics and (config.critic.path or config.critic.architecture):
        sources["critic"] = critic_source(config)
    return sources


def _kept(workdir: str, name: str) -> epath.Path:
    return epath.Path(workdir) / "base" / name


def _is_here(source: NetworkConfig) -> bool:
    if source.architecture and not epath.Path(source.architecture).is_file():
        return False
    try:
        resolve_directory(source.path)
    except ModelError:
        return False
    return True
