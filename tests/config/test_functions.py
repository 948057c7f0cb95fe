"""Functions of the user's by name."""

import functools
import json

import pytest

from asyppo_jax.config import ConfigError
from asyppo_jax.config.functions import function_name, named_function


def test_a_name_finds_its_function():
    assert named_function("json:dumps", "config.x") is json.dumps


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dumps", r'^config\.x is \'dumps\'; give "module:function"$'),
        (":dumps", r'give "module:function"'),
        ("no_such_module:f", r"^config\.x is .* its module cannot be imported .*PYTHONPATH$"),
        ("json:nothing", r"^config\.x is .*module 'json' has no function 'nothing'"),
    ],
)
def test_a_name_of_nothing_is_refused_in_one_sentence(name, message):
    with pytest.raises(ConfigError, match=message):
        named_function(name, "config.x")


def test_the_other_values_of_the_setting_are_offered():
    with pytest.raises(ConfigError, match=r'give "a", "b" or "module:function"'):
        named_function("c", "config.x", '"a", "b"')


def test_the_name_of_a_function_a_partial_and_a_callable_object():
    assert function_name(json.dumps) == "json:dumps"
    assert function_name(functools.partial(json.dumps, indent=1)) == "json:dumps"
    assert function_name(json.JSONEncoder().encode) == "json.encoder:JSONEncoder.encode"

    class Grader:
        def __call__(self): ...

    assert function_name(Grader()).endswith(
        ":test_the_name_of_a_function_a_partial_and_a_callable_object.<locals>.Grader"
    )
