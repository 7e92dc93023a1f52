import pytest

from senet_jax.errors import UsageError
from senet_jax.training.clusters import FIRST_PORT, HostsConfig, Place, find_place

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "node[08-09]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_NODEID": "1",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    # Of the allocation, not of the step.
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


def place(environ=None, **flags):
    return find_place(HostsConfig(**flags), environ or {})


def test_a_process_of_which_nothing_is_said_runs_alone():
    assert place() is None


def test_flags_say_which_process_it_is():
    assert place(coordinator="a:1", count=3, index=2) == Place("a:1", 3, 2)
    assert place(coordinator="[fd00::2]:80", count=1, index=0).address == ("fd00::2", 80)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"count": 2}, r"--hosts.coordinator, --hosts.index are missing"),
        ({"coordinator": "a:1", "count": 2}, r"--hosts.index is missing"),
        ({"coordinator": "a", "count": 2, "index": 0}, "must be HOST:PORT.*not 'a'"),
        ({"coordinator": "a:1", "count": 2, "index": 2}, "must be from 0 to 1.*not 2"),
    ],
)
def test_flags_that_are_wrong_are_refused(flags, message):
    with pytest.raises(UsageError, match=message):
        place(**flags)


def test_the_tasks_of_a_step_of_slurm():
    found = place(SLURM)
    host, port = found.address
    assert (host, found.count, found.index, found.local_devices) == ("node08", 4, 3, None)
    assert FIRST_PORT <= port < 65536
    assert place({**SLURM, "SLURM_PROCID": "0"}).coordinator == found.coordinator
    assert place({**SLURM, "SLURM_JOB_ID": "8"}).coordinator != found.coordinator


def test_a_job_of_slurm_in_which_no_step_runs_is_no_cluster():
    assert place({k: v for k, v in SLURM.items() if "STEP" not in k}) is None
    assert place({**SLURM, "SLURM_STEP_NUM_TASKS": "1"}) is None


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
    assert place({**SLURM, "SLURM_STEP_NODELIST": nodes}).address[0] == first


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
    assert place({**SLURM, "SLURM_GPUS_ON_NODE": "8", **changes}).local_devices == own


def test_more_tasks_than_gpus_are_refused():
    with pytest.raises(UsageError, match="2 tasks on a node with 1 GPUs"):
        place({**SLURM, "SLURM_GPUS_ON_NODE": "1"})


def test_the_processes_of_open_mpi():
    found = place(OPEN_MPI)
    assert (found.address[0], found.count, found.index) == ("192.0.2.2", 4, 2)
    assert place({**OPEN_MPI, "CUDA_VISIBLE_DEVICES": "0,1"}).local_devices == (0,)
    assert place({**OPEN_MPI, "OMPI_COMM_WORLD_SIZE": "1"}) is None


def test_open_mpi_5_does_not_say_where_the_first_process_is():
    later = {k: v for k, v in OPEN_MPI.items() if "MCA" not in k} | {"PMIX_NAMESPACE": "prte-1@1"}
    with pytest.raises(UsageError, match=r"--hosts.coordinator is missing"):
        place(later)
    assert place(later, coordinator="a:1") == Place("a:1", 4, 2)
    assert place({**later, "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}).address[0] == "127.0.0.1"


def test_the_variables_of_jax_and_of_an_indexed_job():
    assert place({**JAX, "JOB_COMPLETION_INDEX": "3"}) == Place("senet-0.senet:1234", 4, 3)
    assert place({**JAX, "JAX_PROCESS_ID": "1"}).index == 1
    # An indexed Job of pods that have nothing to do with each other.
    assert place({"JOB_COMPLETION_INDEX": "3"}) is None


def test_a_flag_counts_more_than_the_environment():
    assert place({**JAX, "JAX_PROCESS_ID": "1"}, coordinator="b:2") == Place("b:2", 4, 1)
    assert place(SLURM, count=1) is None
