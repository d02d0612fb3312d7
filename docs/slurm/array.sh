#!/bin/bash
#SBATCH --job-name=study
#SBATCH --array=0-9
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=02:00:00

# Data and options of the study, such as: sbatch array.sh samples.csv --starts 8192
thermogen study "$@" --out report --resume
