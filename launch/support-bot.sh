#!/usr/bin/env bash
# From a trained run to a page with a support bot, on this machine: launch/support-bot.sh CONFIG [FOLDER] [PORT]
# CONFIG is the run's file, as launch/configs/quickstart.yaml after `make quickstart`. Needs: make setup.
# What is served is the folder: train on as you like, and call this again (or export alone) when the newer model should
# answer. The server notices, and no request is lost.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ $# -ge 1 ] || { echo "usage: launch/support-bot.sh CONFIG [FOLDER] [PORT]" >&2; exit 2; }
config=$1
folder=${2:-support-bot}
port=${3:-8000}
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "1/3  Is it better than before training? Look before anybody talks to it.  (evaluate)"
.venv/bin/scaletrain evaluate "$config"

say "2/3  The model as a folder of its own, for as long as it serves.  (export)"
.venv/bin/scaletrain export "$config" "$folder"

say "3/3  The API, the web chat and the bot's page. Ctrl-C ends it, when what runs has ended.  (serve)"
cat <<NEXT
  The support page:  http://127.0.0.1:$port/example.html
  On a site of your own, for everybody:
      scaletrain keys add website --requests-per-minute 60 --tokens-per-minute 20000
      scaletrain serve $folder --host 0.0.0.0 --keys keys.json --allow-origin https://YOUR.SITE
      <script src="https://YOUR.SERVER/widget.js" data-key="THE KEY" async></script>   in the page (docs/web_chat.md)
NEXT
exec .venv/bin/scaletrain serve "$folder" --port "$port" --feedback "$folder-feedback.jsonl"
