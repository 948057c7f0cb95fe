"""Hashes of the problems and models that a run began with, in `inputs.json` of its workdir.

A run that continues with other problems, another tokenizer or other weights would be neither the
old run nor a new one, so it refuses.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from asyppo_jax.config import Config, DataConfig
from asyppo_jax.runs.base_files import model_sources
from asyppo_jax.runs.checkpoint import CheckpointError, has_trained
from asyppo_jax.runs.metrics import write_problem_counts
from asyppo_jax.runtime.fingerprints import MODEL_SUFFIXES, fingerprint, fingerprints
from asyppo_jax.runtime.multi_host import is_first, sum_over_hosts
from asyppo_jax.runtime.paths import resolve_directory, write_whole
from asyppo_jax.tasks.prompts import Prompt

_FILE = "inputs.json"
_DATA = {"train_data": "training", "eval_data": "held-out"}  # section of the config: in words
Inputs = dict[str, dict[str, Any]]


def keep_inputs(
    workdir: str, config: Config, train_prompts: Sequence[Prompt], eval_prompts: Sequence[Prompt]
) -> None:
    """Writes the hashes and numbers of a run's inputs; refuses to continue with other ones.

    A run of an earlier version has no hashes and gets them when it continues. Every process of a
    run must call this.

    Raises:
        CheckpointError: the run has trained, and its problems or models have changed since.
    """
    file = epath.Path(workdir) / _FILE
    inputs, change = read_inputs(config, train_prompts, eval_prompts), ""
    if has_trained(workdir) and file.is_file():
        change = find_change(_read(file), inputs, config)
    others = int(sum_over_hosts(np.int32(bool(change))))
    if others:
        change = change or "another process has other problems or models than the run began with"
        raise CheckpointError(
            f"{change}; put the old ones back, give another --workdir, or remove {file} to "
            "continue with the new ones"
        )
    if is_first():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, (json.dumps(inputs, indent=1) + "\n").encode())
    write_problem_counts(workdir, len(train_prompts), len(eval_prompts))


def read_inputs(
    config: Config, train_prompts: Sequence[Prompt], eval_prompts: Sequence[Prompt]
) -> Inputs:
    """What the problems and models of a run hash to now."""
    inputs: Inputs = {}
    for section, prompts in zip(_DATA, (train_prompts, eval_prompts), strict=True):
        digest = _hash_prompts(prompts, getattr(config, section))
        inputs[section] = {"problems": len(prompts), "hash": digest}
    for name, source in model_sources(config).items():
        files = fingerprints(resolve_directory(source.path), MODEL_SUFFIXES)
        if source.architecture:
            files[source.architecture] = fingerprint(source.architecture)
        inputs[name] = files
    return inputs


def find_change(before: Inputs, now: Inputs, config: Config) -> str:
    """The first input that changed, and how, without an end; "" if all are as before."""
    for section, words in _DATA.items():
        old, new = before[section], now[section]
        if old != new:
            counts = f"{new['problems']} of them instead of {old.get('problems')}"
            how = "their content" if old.get("problems") == new["problems"] else counts
            path = getattr(config, section).path
            return f"the {words} problems of {path} have changed since the run began ({how})"
    for name in sorted(before.keys() - _DATA.keys()):
        old, new = before[name], now.get(name, {})
        for file in sorted(old.keys() | new.keys()):
            if old.get(file) != new.get(file):
                how = "is new" if file not in old else "is missing" if file not in new else ""
                path = getattr(config, name).path
                how = how or "has other content"
                return f"the {name}'s model {path} has changed since the run began: {file} {how}"
    return ""


def _read(file: epath.Path) -> Inputs:
    try:
        inputs = json.loads(file.read_text())
    except ValueError:
        inputs = {}
    is_complete = isinstance(inputs, dict) and _DATA.keys() <= inputs.keys()
    if not is_complete or not all(isinstance(entry, dict) for entry in inputs.values()):
        raise CheckpointError(
            f"{file} is damaged; remove it to continue without the comparison of the run's "
            "problems and models with those that it began with"
        )
    return inputs


def _hash_prompts(prompts: Sequence[Prompt], data: DataConfig) -> str:
    """A hash of the problems and answers in order; of files, of all their columns."""
    digest = hashlib.blake2b(digest_size=16)
    for prompt in prompts:
        record = prompt.record
        # Other sources may give objects whose text differs from process to process.
        columns = record.columns if data.source in ("jsonl", "parquet") else {}
        content = [record.problem, record.answer, columns]
        digest.update(json.dumps(content, sort_keys=True, default=str).encode())
    return digest.hexdigest()
