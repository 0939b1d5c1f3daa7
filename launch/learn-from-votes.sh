#!/usr/bin/env bash
# From a trained run to one that people prefer: launch/learn-from-votes.sh CONFIG [PROMPTS] [PORT]
# CONFIG is the run's file; PROMPTS has a prompt a line. People vote between the run and the model that it began with, the
# same model learns from their votes (DPO, docs/preferences.md), and is judged beside the run. Needs: make setup.
# All is kept in NAME-votes/. Every step does its work once: call it again after more votes, and it trains on all of them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ $# -ge 1 ] || { echo "usage: launch/learn-from-votes.sh CONFIG [PROMPTS] [PORT]" >&2; exit 2; }
config=$1
prompts=${2:-}
port=${3:-8001}
export PATH="$PWD/.venv/bin:$PATH"
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
setting() { scaletrain config "$config" | python -c 'import sys, yaml; print(yaml.safe_load(sys.stdin)'"$1"')'; }

name=$(setting '["name"]')
root=$(setting '["storage"]["root"]')
folder=$PWD/$name-votes
mkdir -p "$folder"

say "1/5  Answers of the run and of the model that it began with.  (judge prepare)"
if [ -e "$folder/judging.jsonl" ]; then echo "  $folder/judging.jsonl is there"
elif [ -n "$prompts" ]; then
  scaletrain judge prepare "base=$(setting '["model"]["source"]')" "trained=$config" --prompts "$prompts" \
    --temperature 0.8 --max-new-tokens 200 --out "$folder/judging.jsonl"
else
  scaletrain evaluate "$config"
  scaletrain judge prepare --from-run "$config" --out "$folder/judging.jsonl"
fi

say "2/5  People vote on http://127.0.0.1:$port. Ctrl-C when they have.  (judge serve)"
scaletrain judge serve "$folder/judging.jsonl" --port "$port" || [ $? = 130 ]

say "3/5  Who is preferred, and the pairs to learn from.  (judge result, judge export)"
scaletrain judge result "$folder/judging.jsonl"
scaletrain judge export "$folder/judging.jsonl" "$folder/preferences.jsonl"
pairs=$(grep -c . "$folder/preferences.jsonl" || true)
[ "$pairs" -ge 50 ] || echo "  Only $pairs pairs, which teach little: have people vote on more, and call this again."

say "4/5  The run goes on from its own weights, towards what people prefer.  (export, train)"
scaletrain export "$config" "$folder/before"
cat > "$folder/run.yaml" <<CONFIG
name: $name-votes-$(cksum < "$folder/preferences.jsonl" | cut -d ' ' -f 1)
storage: {root: $root}
model: {source: $folder/before}
data: {corpora: [{format: preferences, source: $folder/preferences.jsonl}], validation: 0}
train: {objective: dpo, epochs: 2, global_batch_size: 8, learning_rate: 5.0e-7, warmup_steps: 2}
CONFIG
scaletrain train "$folder/run.yaml"

say "5/5  Is it better now? Ask people again, about answers that they have not seen:"
echo "    .venv/bin/scaletrain judge prepare before=$config after=$folder/run.yaml --prompts OTHER --out $folder/after.jsonl"
echo "    .venv/bin/scaletrain judge serve $folder/after.jsonl"
