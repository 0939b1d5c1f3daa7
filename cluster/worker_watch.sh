#!/usr/bin/env bash
# Ends a worker's machine that Ray has left: bash worker_watch.sh install, first in setup_commands; never the head's.
# Workers are ended by the head alone. Where the head is gone, or comes back without Ray, nobody would end them, and
# they would cost money until somebody looks. It lives in memory, so that an image holds nothing of it.
#   worker_watch.sh watch [SECONDS [PAUSE [COMMAND...]]]: the watch itself; COMMAND ends the machine
# To keep a machine without Ray, log in there and run: sudo systemctl stop scaletrain-worker-watch
set -euo pipefail

unit=scaletrain-worker-watch

uptime_s() { local up; read -r up _ </proc/uptime; echo "${up%.*}"; } # a clock that nobody sets

watch() {
  local limit=${1:-1800} pause=${2:-60} seen
  shift $(($# < 2 ? $# : 2))
  [ $# -gt 0 ] || set -- systemctl poweroff
  seen=$(uptime_s)
  while :; do
    if pgrep -x raylet >/dev/null; then seen=$(uptime_s); fi
    if [ $(($(uptime_s) - seen)) -ge "$limit" ]; then
      echo "no raylet has run here for $limit s; ending this machine"
      "$@"
      return
    fi
    sleep "$pause"
  done
}

install() {
  [ ! -e ~/ray_bootstrap_config.yaml ] || return 0 # the head: Ray puts it there, before any set-up command
  [ -d /run/systemd/system ] || return 0 # a container or an emulated machine: nothing here could end it
  systemctl is-active --quiet $unit && return 0
  local script root=()
  script=$(readlink -f "${BASH_SOURCE[0]}")
  [ "$(id -u)" -eq 0 ] || root=(sudo -n)
  "${root[@]}" systemd-run --quiet --collect --unit=$unit --property=Restart=on-failure bash "$script" watch \
    || echo "warning: no watch over this machine; if the head is lost, end it by scaletrain down" >&2
}

case ${1:-} in
  watch) shift; watch "$@" ;;
  install) install ;;
  *) echo "worker_watch.sh: give install or watch" >&2; exit 2 ;;
esac
