#!/usr/bin/env bash
# Makes an Enroot image with labelbeam and what it needs, on a node of the cluster (Enroot and pyxis):
#
#   deploy/slurm/image.sh docker://nvcr.io#nvidia/pytorch:25.09-py3 labelbeam.sqsh
#
# The first name is an image of a registry as Enroot writes it, or a .sqsh file; it has to have Python 3.11 or later and
# a torch for the node's GPUs, which is kept. Flags for Slurm go into SLURM_FLAGS, such as "--partition=cpu --mem=32G".
set -euo pipefail

source=${1:?"expected an image to start from"}
target=$(realpath -m "${2:?"expected a .sqsh file to write"}") # pyxis takes names without a folder for a registry's
if [[ -f $source ]]; then source=$(realpath "$source"); fi
read -ra flags <<<"${SLURM_FLAGS:-}"

base=$source
if [[ $source == docker://* ]]; then
  base=${target%.sqsh}.base.sqsh
  [[ -f $base ]] || srun "${flags[@]}" enroot import --output "$base" "$source"
fi
# torch is left out of the requirements: the image's own fits its CUDA.
srun "${flags[@]}" --container-image="$base" --container-save="$target" --container-mounts="$PWD:$PWD" \
  --container-workdir="$PWD" bash -c 'pip install --no-deps -r requirements.txt && pip install --no-deps .'
echo "wrote $target; use it with deploy/slurm/submit.sh --image $target"
