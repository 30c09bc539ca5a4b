#!/usr/bin/env bash
# Submits a command of labelbeam to Slurm, or opens an interactive session, in a container image if one is named.
#
#   deploy/slurm/submit.sh --gpus 1 --time 4:00:00 training.train CONFIG.toml --data_dir DATA --output MODEL
#   deploy/slurm/submit.sh --image labelbeam.sqsh --mounts /data:/data --gpus 1 training.train CONFIG.toml ...
#   deploy/slurm/submit.sh --image labelbeam.sqsh --mounts /data:/data --gpus 1 --interactive
#
#   --image FILE       Enroot image (.sqsh) or a registry's name; without it, .venv/bin/python runs the command
#   --mounts A:B,...   folders of the cluster that the container sees, beside the work folder
#   --workdir DIR      folder to run in (the present one); deploy/ and the configurations are looked up there
#   --interactive      a shell on a node instead of a job
#   --dry_run          prints the command instead of running it
#   every other flag before the module's name goes to Slurm, such as --gpus, --partition, --time, --nodes
set -euo pipefail

image='' mounts='' workdir=$PWD interactive='' dry_run='' slurm=()
while [[ $# -gt 0 && $1 == -* ]]; do
  case $1 in
    --image) image=${2:?"--image: expected a file or a name"}; shift 2 ;;
    --mounts) mounts=${2:?"--mounts: expected SOURCE:TARGET,..."}; shift 2 ;;
    --workdir) workdir=$(cd "${2:?"--workdir: expected a folder"}" && pwd); shift 2 ;;
    --interactive) interactive=1; shift ;;
    --dry_run) dry_run=1; shift ;;
    -h | --help) sed -n '2,/^set/{s/^# \{0,1\}//;/^set/d;p}' "$0"; exit 0 ;;
    *=*) slurm+=("$1"); shift ;;
    *) # a flag of Slurm, with a value unless another flag or the module follows
      slurm+=("$1"); shift
      [[ $# -eq 0 || $1 =~ ^(-|training\.|inference\.) ]] || { slurm+=("$1"); shift; } ;;
  esac
done

if [[ -f $image ]]; then image=$(realpath "$image"); fi # pyxis looks up other names in a registry
cd "$workdir" # where the job runs too
if [[ $interactive ]]; then
  command=(srun --pty "${slurm[@]}" --chdir "$workdir")
  if [[ $image ]]; then
    command+=(--container-image="$image" --container-workdir="$workdir")
    command+=(--container-mounts="$workdir:$workdir${mounts:+,$mounts}")
  fi
  command+=("${@:-bash}")
else
  [[ $# -gt 0 ]] || { echo "expected a module, such as training.train, and its flags; see --help" >&2; exit 2; }
  export LABELBEAM_IMAGE=$image LABELBEAM_MOUNTS=$mounts
  command=(sbatch "${slurm[@]}" --chdir "$workdir" "$workdir/deploy/slurm/job.sbatch" "$@")
fi
if [[ $dry_run ]]; then
  printf '%q ' "${command[@]}"
  echo
  exit 0
fi
exec "${command[@]}"
