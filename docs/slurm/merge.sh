#!/bin/bash
#SBATCH --job-name=merge
#SBATCH --mem=8G
#SBATCH --time=00:10:00

thermogen merge report
