#!/usr/bin/env bash
# From a Google Cloud project to your own chat model: launch/gcp.sh CONFIG REGION [BUCKET_URL], with a CONFIG whose
# storage.root is a bucket, as gs://my-bucket/scaletrain, and a REGION that has the GPUs, as us-central1. It rents a head,
# machines without a GPU to prepare the data, and for each of CONFIG's scaling.workers (at most 4 as the file is) a spot
# machine with one L4; `check` tells what they cost. At the end it gives all of them back.
# Every step does its work once: interrupt it, run it again, and it goes on. Needs: make setup, and
# `gcloud auth application-default login`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ $# -ge 2 ] || { echo "usage: launch/gcp.sh CONFIG REGION [BUCKET_URL]" >&2; exit 2; }
config=$1
region=$2
bucket=${3:-}
cluster=${CLUSTER:-cluster/gcp.yaml}
export PATH="$PWD/.venv/bin:$PATH"
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "1/7  Bucket, accounts, roles, firewall and keys: the plan is shown and asked for; what is there stays.  (cluster init)"
scaletrain cluster init gcp --file "$cluster" --region "$region" ${bucket:+--bucket "$bucket"}

say "2/7  APIs, quotas, rights, images, and what an hour costs.  (cluster check)"
scaletrain cluster check "$cluster" "$config"

say "3/7  The head comes up; workers come when a job asks for them.  (ray up)"
warn() {
  cat >&2 <<NEXT

This script did not come to its end. The head may still run and cost money.
  To go on: the same command.
  To end the machines:
      .venv/bin/scaletrain down $cluster
NEXT
}
trap warn EXIT  # however it ends from here on, until the machines are gone
ray up -y "$cluster"

say "4/7  Are the machines ready? Two minutes, before hours are paid for.  (doctor --nodes, as a job)"
scaletrain submit --cluster "$cluster" -- doctor "$config" --nodes

say "5/7  Prepare and train. Close the laptop if you like: the job goes on, and the same command follows it again. The head
     costs money until this script has come to its end, or until: scaletrain down $cluster.  (train, as a job)"
scaletrain submit --cluster "$cluster" -- train "$config"

say "6/7  How well does the model predict held-out conversations, before and after?  (evaluate, as a job)"
scaletrain submit --cluster "$cluster" -- evaluate "$config"

say "7/7  The machines go; the bucket, with the model in it, stays.  (down)"
scaletrain down "$cluster"
trap - EXIT

say "The model is yours:"
cat <<NEXT
  Talk to it, here:
      .venv/bin/scaletrain chat $config
  Is anything left that costs money?
      .venv/bin/scaletrain cluster sweep-leaks $cluster
  Remove all that the first step made (the bucket only if it is empty):
      .venv/bin/scaletrain cluster init gcp --file $cluster --destroy
NEXT
