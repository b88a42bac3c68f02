#!/usr/bin/env bash
# The next stages of the study as a SLURM array, without Ray: docs/slurm/submit.sh [sbatch options]
# Call it in a checkout that every machine sees, and again when the array has ended, until it submits nothing.
set -euo pipefail
export PYTHONPATH=src
dvc repro prepare
mkdir -p logs
python -m bnstudy.launch --list study/dvc.yaml > logs/array
if [ -s logs/array ]; then
    sbatch --array="1-$(wc -l < logs/array)" "$@" "$(dirname "$0")/run.sbatch"
else
    python -m bnstudy.launch study/dvc.yaml  # puts the lock file in the order of a serial run
fi
