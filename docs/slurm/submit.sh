#!/usr/bin/env bash
# The next runs of the study as a SLURM array, without Ray: docs/slurm/submit.sh FOLDER REMOTE [sbatch options]
# FOLDER is on a file system that every machine has; REMOTE is a DVC remote. Call it again when the array has ended, until
# it submits nothing: rates are chosen before what they are for is trained. It says nothing then, and `dvc repro` is done.
set -euo pipefail
folder=$1 remote=$2
shift 2
export PYTHONPATH=src
count=$(python -m bnstudy.launch --export "$folder" --remote "$remote" | tail -n 1)
if [ "$count" -gt 0 ]; then
    sbatch --array="1-$count" "$@" "$(dirname "$0")/run.sbatch" "$folder"
fi
