"""A name of TRL or verl is refused with the name that it has here."""

import re
from pathlib import Path

import pytest

from asyppo_jax.config import default_config
from asyppo_jax.config.elsewhere import ELSEWHERE
from asyppo_jax.config.reading import setting_names, unknown_setting

PAGE = Path(__file__).parents[2] / "docs" / "from_trl_or_verl.md"


def _names_of_the_page() -> list[str]:
    """The names in the columns of TRL and verl, without the section and the value."""
    tables = PAGE.read_text().split("\n## Names\n")[1].split("\n## What is different\n")[0]
    rows = [line.split(" | ") for line in tables.splitlines() if line.startswith("| ")]
    cells = [cell for row in rows[1:] for cell in row[:2]]
    quoted = [name for cell in cells for name in re.findall(r"`([\w.]+)", cell)]
    return quoted


def test_every_name_of_the_page_is_understood():
    fields = {name.rpartition(".")[2] for name in setting_names()}
    names = set(_names_of_the_page())
    assert len(names) > 40 and "save_steps" in names and "actor.entropy_coeff" in names
    for name in names:
        last = name.rpartition(".")[2]
        assert name in ELSEWHERE or last in ELSEWHERE or (last in fields and last != "path"), name


def test_the_hints_name_settings_and_no_field_of_ours():
    known = {f"config.{name}" for name in setting_names()}
    known |= {"config.train_data", "config.eval_data", "--workdir"}
    for name, there in ELSEWHERE.items():
        assert there.partition(",")[0].partition(" ")[0] in known, name
    fields = {name.rpartition(".")[2] for name in setting_names()} - {"model"}  # of `mesh`
    assert not ELSEWHERE.keys() & fields


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("save_steps", "config.checkpoint.every"),
        ("checkpoint.save_steps", "config.checkpoint.every"),
        ("prompt.max_prompt_length", "config.prompt.max_length"),
        ("output_dir", "--workdir, or the second argument of train"),
        ("actor_rollout_ref.model.path", "config.actor.path"),
        ("rollout.top_p", "config.sampling.top_p"),
    ],
)
def test_a_name_is_refused_with_ours(name, there):
    assert unknown_setting(name) == f"config.{name} is not a setting; here it is {there}"


def test_an_unknown_key_gives_the_hint_that_an_attribute_gives():
    config = default_config()
    with pytest.raises(KeyError, match=r"algorithm\.beta is not .* config\.algorithm\.kl_coef"):
        config.algorithm["beta"] = 0.04
    with pytest.raises(KeyError, match=r"algorithm\.beta is not .* config\.algorithm\.kl_coef"):
        _ = config.algorithm["beta"]
    config.algorithm["kl_coef"] = 0.04
    assert config.algorithm.kl_coef == config["algorithm"]["kl_coef"] == 0.04
