#!/usr/bin/env bash
# Trains on several nodes under SLURM; what follows the script's name is passed on to the training:
#   sbatch --nodes 4 --gpus-per-node 8 --cpus-per-task 64 --time 24:00:00 \
#       experiments/launch/slurm.sh cifar100 --run-dir /shared/runs/c
# One task a node takes all its GPUs. Before the time is up, or when the job is preempted, it saves
# its state; a stopped job, or one that lost a node, goes back into the queue and resumes.
#SBATCH --ntasks-per-node=1 --requeue --open-mode=append --signal=USR1@120
# From SLURM 22.05 on, srun does not take over the --cpus-per-task of sbatch.
[[ ${SLURM_CPUS_PER_TASK:-} ]] && export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
srun --kill-on-bad-exit=0 senet-jax train "$@" && exit
code=$?
# 0: done; 1, 2, 3: an error that a restart does not mend; else (75, or a task was killed): again.
((code > 3 && ${SLURM_RESTART_COUNT:-0} < 50)) && scontrol requeue "$SLURM_JOB_ID"
exit "$code"
