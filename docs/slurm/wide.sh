#!/bin/bash
#SBATCH --job-name=wide
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=04:00:00

# One process a node, all devices in one mesh.
srun thermogen study "$@" --out report --resume --distributed
