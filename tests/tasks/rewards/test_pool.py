import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from asyppo_jax.config import ConfigError, RewardConfig
from asyppo_jax.tasks.rewards import RewardPool, Scores, exact, join_scores, math, resolve_reward
from asyppo_jax.tasks.rewards.pool import REASONS
from tests.tasks.rewards.conftest import GRADER


def score(pool: RewardPool, completions: list[str], problem: str = "", answer: str = "") -> Scores:
    return pool.score([problem] * len(completions), completions, [answer] * len(completions))


def reward_config(function: str, time_limit: float = 30.0, num_workers: int = 2) -> RewardConfig:
    return RewardConfig(function=function, time_limit=time_limit, num_workers=num_workers)


def is_gone(pid: int) -> bool:
    """Not running, and not our zombie child; the system reaps orphans at any later time."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    fields = stat.read_text().rpartition(")")[2].split() if stat.exists() else ["?", "0"]
    return fields[0] == "Z" and int(fields[1]) != os.getpid()


def test_rewards_are_float32_and_fractions_are_kept(grader: str):
    with RewardPool(reward_config(grader)) as pool:
        scores = score(pool, ["0.5", "0.1", "true", "0.25"])
    assert scores.rewards.dtype == np.float32
    assert scores.rewards.tolist() == [0.5, np.float32(0.1), 1.0, 0.25]
    assert scores.valid.dtype == np.bool_ and scores.valid.all()
    naive = np.zeros(4, np.int32)  # an integer buffer, as elsewhere: every fraction becomes 0
    naive[:] = scores.rewards
    assert naive.tolist() == [0, 0, 1, 0]


def test_rewards_come_in_the_order_of_the_answers(grader: str):
    expected = np.random.default_rng(0).permutation(200) / 256
    with RewardPool(reward_config(grader, num_workers=3)) as pool:
        scores = score(pool, [str(reward) for reward in expected])
    np.testing.assert_array_equal(scores.rewards, expected.astype(np.float32))


def test_join_scores_concatenates_several_calls() -> None:
    first = Scores(np.array([1, 0.5], np.float32), np.array([True, True]), {"timeout": 0})
    second = Scores(np.array([0], np.float32), np.array([False]), {"timeout": 1})
    empty = dict.fromkeys(REASONS, 0)
    joined = join_scores([s._replace(reasons=empty | s.reasons) for s in (first, second)])
    np.testing.assert_array_equal(joined.rewards, np.array([1, 0.5, 0], np.float32))
    np.testing.assert_array_equal(joined.valid, [True, True, False])
    assert joined.reasons == empty | {"timeout": 1} and joined.rewards.dtype == np.float32


def test_loading_the_math_grader_does_not_count_against_the_first_answer_of_a_users_function() -> (
    None
):
    with RewardPool(reward_config("tests.tasks.rewards.own_grader:is_warm")) as pool:
        scores = score(pool, [r"\boxed{1/2}"] * 3, answer="0.5")
    assert scores.rewards.tolist() == [1.0] * 3


def test_only_answers_that_never_return_are_invalid(grader: str):
    completions = ["0.5", "loop", "0.25", "grow", "0.75", "loop", "1.0"]
    with RewardPool(reward_config(grader, time_limit=1.0)) as pool:
        scores = score(pool, completions)
    assert scores.rewards.tolist() == [0.5, 0, 0.25, 0, 0.75, 0, 1.0]
    assert scores.valid.tolist() == [True, False, True, False, True, False, True]
    assert scores.reasons == {"timeout": 3, "crashed": 0, "bad_score": 0}


def test_other_answers_are_scored_while_one_runs_into_its_time_limit(grader: str, tmp_path: Path):
    note = tmp_path / "note"
    problems = ["", *[str(note)] * 20]
    with RewardPool(reward_config(grader, time_limit=4.0)) as pool:
        score(pool, ["0.5"])  # a worker is ready, so that both time measurements start at once
        started = time.time()
        scores = pool.score(problems, ["loop", *["0.5"] * 20], [""] * 21)
    assert scores.valid.tolist() == [False, *[True] * 20]
    assert note.stat().st_mtime - started < 4.0


@pytest.mark.parametrize("completion", ["exit", "segfault", "raise", "big"])
def test_a_crash_invalidates_only_its_own_answer(grader: str, completion: str):
    with RewardPool(reward_config(grader)) as pool:
        scores = score(pool, ["0.5", completion, "0.25", "0.75"])
    assert scores.rewards.tolist() == [0.5, 0, 0.25, 0.75]
    assert scores.valid.tolist() == [True, False, True, True]
    assert scores.reasons == {"timeout": 0, "crashed": 1, "bad_score": 0}


def test_a_score_that_is_not_a_number_in_0_to_1_is_invalid(grader: str):
    bad = ["nan", "infinite", "above", "below", "none", "text", "list"]
    with RewardPool(reward_config(grader)) as pool:
        scores = score(pool, [*bad, "1.0", "0.0"])
    assert scores.valid.tolist() == [False] * len(bad) + [True, True]
    assert scores.rewards.tolist() == [0.0] * len(bad) + [1.0, 0.0]
    assert scores.reasons == {"timeout": 0, "crashed": 0, "bad_score": len(bad)}


def test_math_takes_answers_that_cannot_be_computed_for_wrong_not_for_invalid():
    bombs = [r"\boxed{9^{9^{9^9}}}", r"\boxed{5^{5^{5^5}}}"]
    completions = [rf"\boxed{{{n}}}" for n in range(4)]
    completions = [*completions[:2], *bombs, *completions[2:], "I do not know."]
    answers = ["0", "1", "7", "7", "2", "30", "7"]
    with RewardPool(reward_config("math", time_limit=3.0)) as pool:
        scores = pool.score([""] * 7, completions, answers)
    assert scores.rewards.tolist() == [1, 1, 0, 0, 1, 0, 0]
    assert scores.valid.all()
    assert scores.details[1]["extracted"] == "1" and "too large" in scores.details[2]["reason"]


def test_the_start_of_a_worker_does_not_count_against_its_first_answer(module_path: Path):
    (module_path / "slow_start.py").write_text(
        "import time\ntime.sleep(2)\ndef grade(problem, completion, answer): return 0.5\n"
    )
    with RewardPool(reward_config("slow_start:grade", time_limit=1.0, num_workers=1)) as pool:
        assert score(pool, ["a", "b"]).valid.all()


def test_a_worker_imports_neither_jax_nor_numpy_nor_this_package(grader: str):
    with RewardPool(reward_config(grader)) as pool:
        assert score(pool, ["modules"]).rewards.tolist() == [0.0]


def test_a_grader_that_prints_or_reads_does_not_disturb_the_pool(grader: str):
    with RewardPool(reward_config(grader)) as pool:
        assert score(pool, ["talk", "0.5"]).rewards.tolist() == [0.25, 0.5]


def test_long_texts_and_broken_unicode_arrive_complete(grader: str):
    answer = "\ud800\n" * 250_000
    with RewardPool(reward_config(grader)) as pool:
        assert score(pool, ["answer length"] * 3, answer=answer).rewards.tolist() == [0.5] * 3


def test_score_works_in_another_thread(grader: str):
    with RewardPool(reward_config(grader)) as pool, ThreadPoolExecutor(1) as threads:
        assert threads.submit(score, pool, ["0.5", "exit"]).result().valid.tolist() == [True, False]
        assert score(pool, ["0.25"]).rewards.tolist() == [0.25]


def test_close_leaves_no_process_and_no_pipe(grader: str, tmp_path: Path):
    note, child_note = tmp_path / "note", tmp_path / "child"
    pipes = Path("/proc/self/fd")
    before = len(list(pipes.iterdir())) if pipes.exists() else 0
    completions = ["0.5", "loop", "exit", "child", *["0.5"] * 8]
    with RewardPool(reward_config(grader, time_limit=1.0)) as pool:
        score(pool, completions, str(note), str(child_note))
        score(pool, ["0.5"] * 8, str(note))
    pool.close()  # a second call is not an error
    pids = {int(line) for line in note.read_text().split()}
    assert len(pids) >= 4  # two workers, and replacements for those that died
    assert all(is_gone(pid) for pid in pids)
    assert is_gone(int(child_note.read_text()))
    assert before == (len(list(pipes.iterdir())) if pipes.exists() else 0)


def test_close_ends_score_in_another_thread(grader: str, tmp_path: Path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with ThreadPoolExecutor(1) as threads:
        with RewardPool(reward_config(grader, time_limit=1000.0)) as pool:
            scoring = threads.submit(score, pool, ["loop"], str(fifo))
            pid = int(fifo.read_text())  # waits until the grader runs
        with pytest.raises(RuntimeError, match="was closed while it scored"):
            scoring.result(timeout=60)
    assert is_gone(pid)


def test_a_worker_that_dies_between_two_calls_invalidates_no_answer(grader: str, tmp_path: Path):
    note = tmp_path / "note"
    with RewardPool(reward_config(grader, num_workers=1)) as pool:
        score(pool, ["0.5"], str(note))
        pid = int(note.read_text())
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # dead, but not yet reaped
        assert score(pool, ["0.5"] * 4).valid.all()


def test_a_worker_that_does_not_read_cannot_block_the_run(grader: str, tmp_path: Path):
    note = tmp_path / "note"
    with (
        ThreadPoolExecutor(1) as threads,
        RewardPool(reward_config(grader, time_limit=1.0, num_workers=1)) as pool,
    ):
        score(pool, ["0.5"], str(note))
        os.kill(int(note.read_text()), signal.SIGSTOP)
        scoring = threads.submit(score, pool, ["0.5", "0.5"], answer="long " * 100_000)
        assert scoring.result(timeout=60).reasons["timeout"] == 1


def test_a_function_that_cannot_be_loaded_in_a_worker_gives_a_clear_error(module_path: Path):
    only_here = "import sys\nif sys.flags.safe_path: raise ValueError('not in a worker')\n"
    (module_path / "only_here.py").write_text(only_here + "def grade(p, c, a): return 1.0\n")
    with (
        RewardPool(reward_config("only_here:grade")) as pool,
        pytest.raises(RuntimeError, match=r"no worker can run .*only_here.*ValueError: not in"),
    ):
        score(pool, ["a"])


def test_workers_that_die_at_their_start_are_not_replaced_forever(module_path: Path):
    dies = "import os, sys\nif sys.flags.safe_path: os._exit(1)\n"
    (module_path / "dies_at_start.py").write_text(dies + "def grade(p, c, a): return 1.0\n")
    with (
        RewardPool(reward_config("dies_at_start:grade")) as pool,
        pytest.raises(RuntimeError, match=r"no worker can run .*its process died"),
    ):
        score(pool, ["a"])


def test_exact_needs_no_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("asyppo_jax.tasks.rewards.pool.start_worker", None)
    with RewardPool(reward_config("exact")) as pool:
        scores = pool.score(["", ""], ["7", r"\boxed{7}"], ["7", "8"])
    assert scores.rewards.tolist() == [1.0, 0.0] and scores.valid.all()


def test_no_answers_give_empty_arrays(grader: str):
    with RewardPool(reward_config(grader)) as pool:
        scores = score(pool, [])
    assert scores.rewards.shape == scores.valid.shape == (0,)
    assert scores.rewards.dtype == np.float32


def test_invalid_answers_are_logged_in_one_line_with_the_place_in_the_users_code(
    grader: str, module_path: Path, caplog: pytest.LogCaptureFixture
):
    line = GRADER.splitlines().index('            raise ValueError("not today")') + 1
    with RewardPool(reward_config(grader)) as pool:
        score(pool, ["0.5", "raise", "nan", "raise"])
    assert caplog.messages == [
        "3 of 4 answers have no valid reward (2 crashed, 1 bad_score); "
        f"the first, row 1: ValueError: not today ({module_path}/grader_of_the_tests.py:{line})"
    ]


@pytest.mark.parametrize(
    ("completion", "fix"),
    [
        ("raise", "correct the function"),
        ("exit", "correct the function"),
        ("loop", "raise config.reward.time_limit"),
        ("nan", r"return a number in \[0, 1\]"),
        ("0.5", "^$"),
    ],
)
def test_the_advice_fits_what_happened(grader: str, completion: str, fix: str):
    with RewardPool(reward_config(grader, time_limit=2.0, num_workers=1)) as pool:
        score(pool, ["raise"])  # what an earlier call left does not stay
        score(pool, [completion])
    assert re.search(fix, pool.fix)


def test_an_error_in_a_library_names_the_line_of_the_users_code_that_called_it(module_path: Path):
    (module_path / "calls_json.py").write_text(
        "import json\n\ndef grade(problem, completion, answer):\n"
        "    return json.loads(completion)\n"
    )
    with RewardPool(reward_config("calls_json:grade", num_workers=1)) as pool:
        score(pool, ["{"])
    assert re.fullmatch(r"JSONDecodeError: .*calls_json\.py:4\)", pool.failure), pool.failure


def test_a_function_of_a_notebook_that_no_worker_can_load_says_what_to_do():
    class OnlyHere:
        def __reduce__(self):
            return (__import__, ("no_such_module",))

    only_here = OnlyHere()

    def own(problem, completion, answer):
        return float(only_here is not None)

    with (
        RewardPool(reward_config("math", num_workers=1), own) as pool,
        pytest.raises(
            RuntimeError,
            match=r"no worker can load the reward own .*No module.*"
            "import what the function uses inside of it",
        ),
    ):
        score(pool, ["a"])


def test_names_resolve_to_functions(grader: str):
    assert resolve_reward("math") is math
    assert resolve_reward("exact") is exact
    assert resolve_reward(grader)("", "0.5", "") == 0.5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("maths", 'give "math", "exact", .* or "module:function"'),
        ("", 'give "math", "exact", .* or "module:function"'),
        ("os:", 'give "math", "exact", .* or "module:function"'),
        ("no_such_module:grade", "its module cannot be imported .*no_such_module"),
        ("os:no_such_function", "module 'os' has no function 'no_such_function'"),
        ("os:name", "module 'os' has no function 'name'"),
        ("__main__:grade", "move the function to a module of its own"),
    ],
)
def test_a_wrong_name_is_refused_and_the_message_says_how_to_fix_it(name: str, message: str):
    with pytest.raises(ConfigError, match=rf"config\.reward\.function is '{name}'.*{message}"):
        RewardPool(reward_config(name))


@pytest.mark.parametrize("time_limit", [0.0, -1.0, float("nan"), float("inf")])
def test_an_invalid_time_limit_is_refused(time_limit: float):
    with pytest.raises(ConfigError, match=r"config\.reward\.time_limit is .* in \(0, 86400\]"):
        RewardPool(reward_config("exact", time_limit=time_limit))


def test_a_pool_without_workers_is_refused():
    with pytest.raises(ConfigError, match=r"config\.reward\.num_workers is 0; it must be in"):
        RewardPool(reward_config("math", num_workers=0))


def test_lists_of_different_lengths_and_a_closed_pool_are_errors():
    pool = RewardPool(reward_config("exact"))
    with pytest.raises(ValueError, match="have 1, 2, 1 and 1 rows"):
        pool.score([""], ["a", "b"], ["a"])
    pool.close()
    with pytest.raises(RuntimeError, match="the reward pool is closed"):
        pool.score([""], ["a"], ["a"])
