#!/bin/bash
# An array of tasks, and what unites them once all have ended, well or not.
here=$(dirname "$0")
array=$(sbatch --parsable "$here/array.sh" "$@")
sbatch --dependency="afterany:$array" "$here/merge.sh"
