#!/usr/bin/env bash
# Trains on all workers of a TPU slice, with the package installed on them; what follows the first
# two arguments is passed on. The same command resumes, also after the slice was made anew:
#   experiments/launch/tpu_vm.sh my-v5e-32 us-west4-a cifar100 --run-dir /mnt/shared/runs/c
# The folder of the run is one that all workers see, such as a Filestore mount.
set -euo pipefail
slice=$1 zone=$2
printf -v arguments ' %q' "${@:3}"
exec gcloud compute tpus tpu-vm ssh "$slice" --zone "$zone" --worker all \
  --command "senet-jax train$arguments"
