"""Two processes with four simulated devices each equal one process with eight."""

import json
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

from asyppo_jax.config import ConfigError
from asyppo_jax.runs.checkpoint import saved_steps
from asyppo_jax.runs.metrics import read_metrics
from asyppo_jax.runs.rollout_files import read_rollout_file
from asyppo_jax.runtime.multi_host import initialize
from experiments.torture.compare import lost_bits
from tests.multi_host_program import answers_and_evaluation
from tests.simulated import environment

ROOT = Path(__file__).parents[2]
HOSTS = 2


def _free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def _started(commands: list[list[str]], devices: int):
    """Runs the commands as concurrent processes; all are killed at the end of the block."""
    with ExitStack() as stack:
        processes = []
        for command in commands:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env=environment(devices),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            processes.append(process)
        yield processes


def _succeed(commands: list[list[str]], devices: int, timeout: float = 400.0) -> list[str]:
    """The output of each command, after running them concurrently to their end."""
    with _started(commands, devices) as processes:
        outputs = [process.communicate(timeout=timeout) for process in processes]
        for process, (_, errors) in zip(processes, outputs, strict=True):
            assert process.returncode == 0, errors
        return [output for output, _ in outputs]


def _each(program: str, outs: list[Path], *before: str) -> list[list[str]]:
    """The commands of a test program's processes: BEFORE OUT ADDRESS PROCESSES INDEX."""
    address = _free_address()
    shared = [address, str(len(outs))]
    return [[program, *before, str(out), *shared, str(i)] for i, out in enumerate(outs)]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    directory = tmp_path_factory.mktemp("hosts")
    outs = [directory / f"{i}.json" for i in range(HOSTS)]
    _succeed(_each("tests.multi_host_program", outs), devices=4)
    return [json.loads(out.read_text()) for out in outs]


def test_each_row_belongs_to_exactly_one_process(hosts):
    for model in ("1", "2", "8"):
        first, second = (set(host["rows"][model]) for host in hosts)
        assert len(first) == len(second) == 8 and first | second == set(range(16))
    # With eight devices along `model` both processes have every row, so the rows alternate.
    assert hosts[0]["rows"]["8"] == list(range(0, 16, 2))
    assert [host["sum"] for host in hosts] == [3, 3]


def test_each_process_reads_its_answers_and_gets_the_full_evaluation(hosts, tmp_path):
    one = answers_and_evaluation(str(tmp_path), model=1)
    assert [host["said"] for host in hosts] == [one["said"][:3], one["said"][3:]]
    result = json.loads(json.dumps(one["result"]))  # as the processes gave theirs
    assert hosts[0]["result"] == hosts[1]["result"] == result
    assert one["result"][:2] == [3 / 12, 3]  # see test_held_out.py


def test_a_workdir_that_is_not_shared_is_refused_by_all_processes(hosts):
    for host in hosts:
        assert "1 of 2 processes do not see" in host["refusal"]
        assert "give a --workdir that all share" in host["refusal"]


@pytest.mark.parametrize("index", range(HOSTS))
def test_a_process_whose_peer_is_missing_prints_one_sentence_and_exits(index):
    call = f"initialize('{_free_address()}', {HOSTS}, {index}, timeout=1.0)"
    code = f"from asyppo_jax.runtime.multi_host import initialize; {call}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(1),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "not all processes of this run connected to 127.0.0.1" in line
    assert "within 1 s; check that each" in line


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("10.0.0.2:8476", None, None), "give all three"),
        (("10.0.0.2", 2, 0), "give host:port"),
        (("10.0.0.2:8476", 2, 2), "--process_id is 2 of --num_processes 2; count from 0 to 1"),
    ],
)
def test_invalid_flags_are_refused(arguments, sentence):
    with pytest.raises(ConfigError, match=sentence):
        initialize(*arguments, timeout=1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "setting"), [("2", "plain"), ("2", "offloaded"), ("1", "plain+meshes")]
)
def test_two_processes_give_the_same_tokens_masks_and_step_as_one(tmp_path, model, setting):
    program = "tests.multi_device_program"
    outs = [tmp_path / f"{i}.json" for i in range(HOSTS)]
    _succeed(_each(program, outs, model, setting), devices=4)
    _succeed([[program, "2", "plain", str(tmp_path / "one.json")]], devices=8)
    one = json.loads((tmp_path / "one.json").read_text())
    hosts = [json.loads(out.read_text()) for out in outs]
    assert hosts[0] == hosts[1]
    assert hosts[0]["devices"] == one["devices"] == 8
    assert hosts[0]["tokens"] == one["tokens"]
    assert hosts[0]["masks"] == one["masks"]
    for name, value in one["metrics"].items():
        np.testing.assert_allclose(hosts[0]["metrics"][name], value, atol=1e-5, err_msg=name)
    for left, right in zip(one["params"], hosts[0]["params"], strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)


def _train(workdir: Path, processes: int, **more: object) -> list[list[str]]:
    """The commands of a tiny run: three steps with a checkpoint after each."""
    changes = {"num_steps": 3, "checkpoint.every": 1, "log.tensorboard": False}
    changes |= {"log.heldout_prompts": 3, "value.reference_answer": "{answer}="}
    # The first steps of Adam are close to sign(gradient), which would amplify rounding errors.
    changes |= {"actor_optimizer.eps": 1e-3, "critic_optimizer.eps": 1e-3}
    changes |= {name.replace("__", "."): value for name, value in more.items()}
    command = ["experiments.train", "--config=configs/tiny_test.py", f"--workdir={workdir}"]
    command += [f"--config.{name}={value}" for name, value in changes.items()]
    if processes == 1:
        return [command]
    command += [f"--coordinator_address={_free_address()}", f"--num_processes={processes}"]
    return [[*command, f"--process_id={i}"] for i in range(processes)]


def _results(workdir: Path) -> list[dict]:
    timed = ("time/", "rollout/tokens_per_s")
    rows = read_metrics(workdir / "metrics.jsonl")
    return [{k: v for k, v in row.items() if not k.startswith(timed)} for row in rows]


def _data_position(workdir: Path):
    with ocp.CheckpointManager(workdir / "checkpoints") as manager:
        return manager.restore(3, args=ocp.args.Composite(data=ocp.args.JsonRestore()))["data"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("pair") / "run"
    return workdir, _succeed(_train(workdir, HOSTS), devices=1)


@pytest.mark.slow
def test_a_run_of_two_processes_equals_a_run_of_one(pair, tmp_path):
    workdir, (first, second) = pair
    assert "held-out accuracy" in first and "held-out" not in second
    assert json.loads((workdir / "summary.json").read_text())["steps"] == 3
    assert (workdir / "plots.png").is_file()
    _succeed(_train(tmp_path, 1), devices=2)
    _assert_same_results(workdir, tmp_path)
    for step in (0, 2, 3):
        file = f"rollouts/heldout_{step:08}.jsonl"
        ours, theirs = (read_rollout_file(path / file) for path in (workdir, tmp_path))
        assert [(a.tokens, a.reward) for a in ours] == [(a.tokens, a.reward) for a in theirs]
        for left, right in zip(ours, theirs, strict=True):
            values = np.array(left.values, float), np.array(right.values, float)
            np.testing.assert_allclose(*values, rtol=1e-3, atol=1e-4)


def _assert_same_results(left_dir: Path, right_dir: Path, without: tuple[str, ...] = ()) -> None:
    """The same metrics, but for those that start with `without` and are in one run alone."""
    assert _data_position(left_dir) == _data_position(right_dir)
    for left, right in zip(_results(left_dir), _results(right_dir), strict=True):
        differ = left.keys() ^ right.keys()
        assert all(name.startswith(without) for name in differ)
        for name in left.keys() & right.keys():
            value = left[name]
            np.testing.assert_allclose(value, right[name], rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_a_run_with_a_mesh_per_phase_resumes_with_others(pair, tmp_path):
    """Two processes start it, and one continues it: the numbers are those of one mesh."""
    meshes = {"mesh__sampling_model": 2, "mesh__critic_model": 2}
    _succeed(_train(tmp_path, HOSTS, num_steps=1, **meshes), devices=1)
    saved = read_rollout_file(tmp_path / "rollouts" / "heldout_00000001.jsonl")
    assert len(saved) == 3 and len(saved[0].values) == 2
    _succeed(_train(tmp_path, 1, num_steps=2, mesh__model=2, mesh__critic_model=1), devices=2)
    (output,) = _succeed(_train(tmp_path, 1, mesh__sampling_model=2), devices=2)
    assert "resuming after step 2" in output
    _assert_same_results(tmp_path, pair[0], without=("evaluate/",))


@pytest.mark.slow
def test_two_processes_replace_the_same_groups_as_one(tmp_path):
    """Sequences of a new group may belong to the other process than those that they replace."""
    resample = {"algorithm__zero_spread_groups": "resample", "sampling__max_rounds": 4}
    resample |= {"log__samples_every": 1, "reward__function": "tests.graders:odd_letters"}
    two, one = tmp_path / "two", tmp_path / "one"
    _succeed(_train(two, HOSTS, **resample), devices=1)
    _succeed(_train(one, 1, **resample), devices=2)
    _assert_same_results(two, one)
    assert all(row["rollout/rounds"] > 1 for row in _results(one)[2:])  # after the warm-up


@pytest.mark.slow
def test_a_run_whose_peer_dies_exits_and_can_be_resumed(pair, tmp_path):
    with _started(_train(tmp_path, HOSTS), devices=1) as (first, second):
        deadline = time.monotonic() + 400
        while not (tmp_path / "checkpoints" / "1").is_dir():
            assert first.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        second.kill()
        _, errors = first.communicate(timeout=300)
        assert first.returncode != 0
        assert "remote task has failed, got preempted, or crashed" in errors
    outputs = _succeed(_train(tmp_path, HOSTS), devices=1)
    assert "resuming after step" in outputs[0]
    assert _results(tmp_path) == _results(pair[0])


@pytest.mark.slow
@pytest.mark.parametrize("index", range(HOSTS))
def test_sigterm_to_one_process_stops_all_and_the_same_command_gives_every_bit(
    pair, tmp_path, index
):
    with _started(_train(tmp_path, HOSTS), devices=1) as processes:
        deadline = time.monotonic() + 400
        while not list(tmp_path.glob("checkpoints/1*")):  # step 1 is being saved
            assert processes[0].poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        at = time.monotonic()
        processes[index].send_signal(signal.SIGTERM)
        for process in processes:
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 128 + signal.SIGTERM, errors
            assert "stopped by SIGTERM; the last checkpoint is of step" in errors
            assert "Traceback" not in errors
        assert time.monotonic() - at < 20
    assert saved_steps(str(tmp_path))[-1] < 3
    outputs = _succeed(_train(tmp_path, HOSTS), devices=1)
    assert "resuming after step" in outputs[0]
    assert lost_bits(tmp_path, pair[0]) == 0
