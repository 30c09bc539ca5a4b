#!/usr/bin/env bash
# Runs a command as a Grid Engine job, from the project's folder:
#
#   qsub deploy/sge/job.sh training.train CONFIG.toml --data_dir DATA --output MODEL
#   qsub -t 1-8 deploy/sge/job.sh training.sweep CONFIG.toml --data_dir DATA --output MODEL
#   qsub -t 1-8 deploy/sge/job.sh inference.worker --model MODEL --input GLOB --output RUN
#
# A job whose host fails or that is restarted resumes from its last checkpoint. Each task of an array takes part in one
# search. Queue, time, memory, GPUs: flags of qsub, before this file's name.
#
#   LABELBEAM_PYTHON   the interpreter (.venv/bin/python)
#
#$ -N labelbeam
#$ -S /bin/bash
#$ -cwd
#$ -V
#$ -j y
#$ -r y
set -euo pipefail

module=${1:?"expected a module, such as training.train, and its flags"}
shift

extra=()
case $module in
  training.train) extra=(--resume) ;;
  training.sweep) [[ ${SGE_TASK_ID:-undefined} != undefined ]] && extra=(--search_only --worker "$SGE_TASK_ID") ;;
esac

echo "$(date -Is) on $(hostname), restarted ${RESTARTED:-0} times: $module $*"
exec "${LABELBEAM_PYTHON:-.venv/bin/python}" -m "$module" "$@" "${extra[@]}"
