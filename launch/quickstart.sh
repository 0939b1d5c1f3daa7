#!/usr/bin/env bash
# From nothing to your own chat model, on this machine: `make quickstart` sets up .venv and calls this.
# Every step is one command that does its work once: interrupt it, run it again, and it goes on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

config=launch/configs/quickstart.yaml
nvidia-smi >/dev/null 2>&1 && config=launch/configs/quickstart-gpu.yaml
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "1/5  Is this machine ready?  (scaletrain doctor)"
.venv/bin/scaletrain doctor "$config"

say "2/5  Human conversations become rows of tokens, some are held out; the model goes into the bucket.  (prepare)"
.venv/bin/scaletrain prepare "$config"

say "3/5  How well does the model predict the held-out conversations before training?  (evaluate)"
.venv/bin/scaletrain evaluate "$config" --only base

say "4/5  Training with Ray Train and DeepSpeed ZeRO; a checkpoint now and then. The first start compiles for a minute.  (train)"
.venv/bin/scaletrain train "$config"

say "5/5  And after training?  (evaluate)"
.venv/bin/scaletrain evaluate "$config"

say "The model is yours. Three things to try next:"
cat <<NEXT
  Talk to it:
      .venv/bin/scaletrain chat $config
  Take it elsewhere, as a Hugging Face folder:
      .venv/bin/scaletrain export $config my-model
  Train it longer, on one worker instead of two; it goes on from the last checkpoint, and Ctrl-C saves:
      .venv/bin/scaletrain train $config train.steps=200 scaling.workers=1
NEXT
