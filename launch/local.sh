#!/usr/bin/env bash
# On machines that you have, reached by SSH: launch/local.sh CONFIG. Fill cluster/local.yaml first, once:
#   scaletrain cluster init local --head HOST --worker HOST ... --ssh-user USER --ssh-key KEY --bucket URL_OR_FOLDER
# CONFIG's storage.root is that bucket (s3://..., gs://...) or a folder on a disk that all of the machines share.
# Every step does its work once: interrupt it, run it again, and it goes on. Needs: make setup.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ $# -ge 1 ] || { echo "usage: launch/local.sh CONFIG" >&2; exit 2; }
config=$1
cluster=${CLUSTER:-cluster/local.yaml}
export PATH="$PWD/.venv/bin:$PATH"
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "1/5  Is the cluster file complete and safe?  (cluster check)"
scaletrain cluster check "$cluster" "$config"

say "2/5  scaletrain is installed on each machine, and Ray started there, with a token.  (ray up)"
ray up -y "$cluster"

say "3/5  Prepare and train. Close the laptop if you like: the same command follows again, or goes on.  (train, as a job)"
scaletrain submit --cluster "$cluster" -- train "$config"

say "4/5  How well does the model predict held-out conversations, before and after?  (evaluate, as a job)"
scaletrain submit --cluster "$cluster" -- evaluate "$config"

say "5/5  Ray ends on the machines.  (down)"
scaletrain down "$cluster"

say "The model is yours. Talk to it:"
echo "    .venv/bin/scaletrain chat $config"
