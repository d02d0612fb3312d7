#!/bin/bash
#SBATCH --job-name=wide
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00

# One process a GPU, all GPUs in one mesh.
srun thermogen study "$@" --out report --resume --distributed
