import math

import pytest

from senet_jax.errors import UsageError
from senet_jax.training.distributed.clusters import FIRST_PORT, HostsConfig, Process, find_process

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "node[08-09]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_NODEID": "1",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    # A variable of the allocation, not of the step.
    "SLURM_NTASKS": "9",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_MCA_ess_base_jobid": "1725825025",
    "OMPI_MCA_orte_hnp_uri": "1725825024.0;tcp://192.0.2.2,10.0.0.1:41713;tcp6://[fd00::2]:4",
}
JAX = {"JAX_COORDINATOR_ADDRESS": "senet-0.senet:1234", "JAX_NUM_PROCESSES": "4"}


def process(environ=None, **flags):
    return find_process(HostsConfig(**flags), environ or {})


def test_a_process_of_which_nothing_is_said_runs_alone():
    assert process() is None


def test_flags_say_which_process_it_is():
    assert process(coordinator="a:1", count=3, index=2) == Process("a:1", 3, 2)
    assert process(coordinator="[fd00::2]:80", count=1, index=0).address == ("fd00::2", 80)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"count": 2}, r"--hosts.coordinator, --hosts.index are missing"),
        ({"coordinator": "a:1", "count": 2}, r"--hosts.index is missing"),
        ({"coordinator": "a", "count": 2, "index": 0}, "must be HOST:PORT.*not 'a'"),
        ({"coordinator": "a:1", "count": 2, "index": 2}, "must be from 0 to 1.*not 2"),
        ({"coordinator": "a:1", "count": 2, "index": -1}, "must be from 0 to 1.*not -1"),
        ({"coordinator": "a:1", "count": 0, "index": 0}, "count must be from 1 to 65536, not 0"),
        ({"coordinator": "a:1", "count": 2**63, "index": 0}, "count must be from 1 to 65536"),
        ({"timeout": 0.0}, "timeout must be from 1 to 86400 seconds, not 0"),
        ({"timeout": -5.0}, "timeout must be from 1"),
        ({"timeout": 1e300}, "timeout must be from 1"),
        ({"timeout": math.inf}, "timeout must be from 1"),
        ({"timeout": math.nan}, "timeout must be from 1"),
        ({"listen": "10.0.0.1:80"}, "listen must be an address of this machine"),
        ({"listen": "\x1b"}, r"listen .*'\\\\x1b'"),
    ],
)
def test_flags_that_are_wrong_are_refused(flags, message):
    with pytest.raises(UsageError, match=message):
        process(**flags)


@pytest.mark.parametrize(
    "coordinator",
    [
        *("a:0", "a:99999", "a:65536", "a:123456", "a:", "a:b", "a:-1", ":1", "a b:1", "\x1b:1"),
        *("a..b:1", ".a:1", f"{'a' * 64}:1", f"{'a.' * 150}a:1", "::1:80", "[::1]", "[::g]:1"),
        *("[1.2.3.4]:1", "256.0.0.1:1", "1.2.3:1", "http://a:1", "ä:1", "a:1\n", ""),
    ],
)
def test_an_address_that_is_none_is_refused(coordinator):
    with pytest.raises(UsageError, match="coordinator") as refused:
        process(coordinator=coordinator, count=2, index=0)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "coordinator",
    ["a:1", "node-08.rack_2.example.:65535", "10.0.0.1:80", "[::1]:80", "[fd00::2]:1"],
)
def test_an_address_is_taken(coordinator):
    assert process(coordinator=coordinator, count=2, index=0).coordinator == coordinator


@pytest.mark.parametrize(
    ("environ", "changes", "message"),
    [
        (SLURM, {"SLURM_STEP_NUM_TASKS": "four"}, "SLURM_STEP_NUM_TASKS must be a whole number"),
        (SLURM, {"SLURM_STEP_NUM_TASKS": ""}, "SLURM_STEP_NUM_TASKS is missing"),
        (SLURM, {"SLURM_STEP_NODELIST": ""}, "SLURM_STEP_NODELIST is missing"),
        (SLURM, {"SLURM_PROCID": "-1"}, "SLURM_PROCID must be a whole number, not '-1'"),
        (SLURM, {"SLURM_PROCID": "9"}, "must be from 0 to 3"),
        (SLURM, {"SLURM_NODEID": "7"}, "SLURM_NODEID must be less than 2"),
        (SLURM, {"SLURM_STEP_TASKS_PER_NODE": "two"}, r"must be as 2\(x3\),1"),
        (SLURM, {"SLURM_STEP_TASKS_PER_NODE": "0"}, r"must be as 2\(x3\),1"),
        (SLURM, {"SLURM_GPUS_ON_NODE": "all"}, "SLURM_GPUS_ON_NODE must be a number"),
        (OPEN_MPI, {"OMPI_COMM_WORLD_RANK": "\x1b"}, r"OMPI_COMM_WORLD_RANK .*'\\\\x1b'"),
        (OPEN_MPI, {"OMPI_COMM_WORLD_LOCAL_SIZE": "0"}, "at least 1"),
        (JAX, {"JAX_PROCESS_ID": "zero"}, "JAX_PROCESS_ID must be a whole number"),
        (JAX, {"JAX_PROCESS_ID": "0", "JAX_NUM_PROCESSES": "1e3"}, "JAX_NUM_PROCESSES must be"),
    ],
)
def test_an_environment_that_is_wrong_is_refused(environ, changes, message):
    with pytest.raises(UsageError, match=message):
        process({**environ, **changes})


def test_the_tasks_of_a_step_of_slurm():
    found = process(SLURM)
    host, port = found.address
    assert (host, found.count, found.index, found.local_devices) == ("node08", 4, 3, None)
    assert FIRST_PORT <= port < 65536
    assert process({**SLURM, "SLURM_PROCID": "0"}).coordinator == found.coordinator
    assert process({**SLURM, "SLURM_JOB_ID": "8"}).coordinator != found.coordinator


def test_a_job_of_slurm_in_which_no_step_runs_is_no_cluster():
    assert process({k: v for k, v in SLURM.items() if "STEP" not in k}) is None
    assert process({**SLURM, "SLURM_STEP_NUM_TASKS": "1"}) is None


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("vm", "vm"),
        ("a,b", "a"),
        ("node[1,3-5],x", "node1"),
        ("node[001-015]", "node001"),
        ("rack[1-2]node[3,7]", "rack1node3"),
    ],
)
def test_the_first_node_of_a_list(nodes, first):
    assert process({**SLURM, "SLURM_STEP_NODELIST": nodes}).address[0] == first


@pytest.mark.parametrize(
    ("changes", "own"),
    [
        # One task a node takes all GPUs, as does one to which SLURM shows only its own.
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x4)", "SLURM_LOCALID": "0"}, None),
        ({"SLURM_GPUS_PER_TASK": "4"}, None),
        ({"SLURM_TRES_PER_TASK": "cpu=2,gres/gpu=4"}, None),
        ({}, (4, 5, 6, 7)),
        ({"SLURM_STEP_TASKS_PER_NODE": "1,8", "SLURM_LOCALID": "5"}, (5,)),
    ],
)
def test_the_gpus_of_a_task(changes, own):
    assert process({**SLURM, "SLURM_GPUS_ON_NODE": "8", **changes}).local_devices == own


def test_more_tasks_than_gpus_are_refused():
    with pytest.raises(UsageError, match="2 tasks on a node with 1 GPUs"):
        process({**SLURM, "SLURM_GPUS_ON_NODE": "1"})


def test_the_processes_of_open_mpi():
    found = process(OPEN_MPI)
    assert (found.address[0], found.count, found.index) == ("192.0.2.2", 4, 2)
    assert process({**OPEN_MPI, "CUDA_VISIBLE_DEVICES": "0,1"}).local_devices == (0,)
    assert process({**OPEN_MPI, "OMPI_COMM_WORLD_SIZE": "1"}) is None


def test_open_mpi_5_does_not_say_where_the_first_process_is():
    later = {k: v for k, v in OPEN_MPI.items() if "MCA" not in k} | {"PMIX_NAMESPACE": "prte-1@1"}
    with pytest.raises(UsageError, match=r"--hosts.coordinator is missing"):
        process(later)
    assert process(later, coordinator="a:1") == Process("a:1", 4, 2)
    assert process({**later, "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}).address[0] == "127.0.0.1"


def test_the_variables_of_jax_and_of_an_indexed_job():
    assert process({**JAX, "JOB_COMPLETION_INDEX": "3"}) == Process("senet-0.senet:1234", 4, 3)
    assert process({**JAX, "JAX_PROCESS_ID": "1"}).index == 1
    # An indexed Job of pods that have nothing to do with each other.
    assert process({"JOB_COMPLETION_INDEX": "3"}) is None


def test_a_flag_counts_more_than_the_environment():
    assert process({**JAX, "JAX_PROCESS_ID": "1"}, coordinator="b:2") == Process("b:2", 4, 1)
    assert process(SLURM, count=1) is None
