#!/usr/bin/env bash
# Makes a machine ready for scaletrain: bash setup.sh EXTRAS, where EXTRAS is aws, gcp or aws,gcp (bucket libraries),
# and more of pyproject.toml's extras where jobs need them, as aws,serve,sweep. A machine with a GPU gets gpu as well.
# Ray runs it from ~/scaletrain, where the project's files lie, as the SSH user (with sudo) or as root. It may run any
# number of times; where nothing is missing, as on a prepared image, it only looks. It ends with one line that says
# "ready", or what failed and in which step.
set -euo pipefail

extras=${1:-aws}
project=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home=/opt/scaletrain
venv=$home/venv
oldest_driver=580 oldest_gpu=75 # of CUDA 13, which PyPI's torch is built for: a V100 has 7.0
step="starting"
trap 'code=$?; [ $code -eq 0 ] || echo "scaletrain set-up FAILED (exit $code) while: $step" >&2' EXIT

fail() { step="$step: $*"; exit 1; }
has_gpu() { grep -qs 0x10de /sys/bus/pci/devices/*/vendor; } # anything of NVIDIA's
as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi; }
wait_for() { # wait_for SECONDS COMMAND...: until the command succeeds
  local deadline=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do [ $SECONDS -lt "$deadline" ] || return 1; sleep 2; done
}

wait_for_boot() {
  step="waiting for cloud-init"
  command -v cloud-init >/dev/null || return 0
  local code=0
  as_root timeout 600 cloud-init status --wait >/dev/null 2>&1 || code=$?
  # 2: done, with warnings. Any other failure shows up in a later step, if it matters to us.
  [ $code -ne 124 ] || fail "not done after 600 s; look at /var/log/cloud-init-output.log"
}

install_packages() {
  step="installing system packages"
  local missing=()
  python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
  [ -e "$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] || missing+=(python3-dev)
  command -v c++ >/dev/null || missing+=(g++)
  command -v rsync >/dev/null || missing+=(rsync)
  command -v pgrep >/dev/null || missing+=(procps)
  [ ${#missing[@]} -eq 0 ] && return 0
  as_root apt-get -qq -o DPkg::Lock::Timeout=600 update || fail "apt-get update: is there a way to the internet?"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=600 install "${missing[@]}" \
    >/dev/null || fail "apt-get install ${missing[*]}"
}

check_driver() {
  step="checking the NVIDIA driver"
  has_gpu || return 0
  wait_for 600 nvidia-smi || fail "nvidia-smi does not answer after 600 s; use an image with the driver"
  local driver capability
  IFS=', ' read -r driver capability < <(nvidia-smi --query-gpu=driver_version,compute_cap --format=csv,noheader)
  [ "${driver%%.*}" -ge $oldest_driver ] || fail "driver $driver, torch needs $oldest_driver; use a newer image"
  [ "${capability/./}" -ge $oldest_gpu ] || fail "compute capability $capability, torch needs 7.5; use a newer GPU"
}

prepare_scratch() {
  step="preparing the scratch disk"
  # Instance storage is fast and dies with the machine: right for Ray's spilled objects. GPU images mount it themselves.
  # nvme_card is Google's; nvme_card-pd, its lasting disk, must not match.
  if ! mountpoint -q /scratch; then
    local disk
    disk=$(lsblk -dpno NAME,MODEL 2>/dev/null | awk '/EC2 NVMe Instance Storage|nvme_card[0-9]* *$/ && !found++ {print $1}') || disk=""
    if mountpoint -q /opt/dlami/nvme; then
      as_root mkdir -p /scratch && as_root mount --bind /opt/dlami/nvme /scratch
    elif [ -n "$disk" ] && [ -z "$(lsblk -no FSTYPE "$disk" | tr -d '[:space:]')" ]; then
      as_root mkfs.ext4 -q -E nodiscard "$disk" && as_root mkdir -p /scratch && as_root mount "$disk" /scratch
    fi
  fi
  if mountpoint -q /scratch && [ ! -e /tmp/ray ]; then
    as_root install -d -m 1777 /scratch/ray && ln -s /scratch/ray /tmp/ray
  fi
  step="sizing /dev/shm" # Ray keeps its objects there, 30% of the memory; containers often have 64 MB
  local memory_kib shm_kib
  memory_kib=$(awk '/MemTotal/ {print $2}' /proc/meminfo)
  shm_kib=$(df -k --output=size /dev/shm | tail -n 1)
  if [ "$shm_kib" -lt $((memory_kib * 4 / 10)) ]; then
    as_root mount -o remount,size=50% /dev/shm \
      || echo "warning: /dev/shm has only $((shm_kib / 1024)) MiB; Ray will use the disk" >&2
  fi
}

has_everything() { # the stamp says so, or the packages themselves do
  [ -x $venv/bin/python ] || return 1
  [ "$(cat $home/installed 2>/dev/null)" = "$wanted" ] && return 0
  $venv/bin/python - "$project/pyproject.toml" "$extras" <<'PYTHON' 2>/dev/null
import sys, tomllib
from importlib.metadata import version
from packaging.requirements import Requirement
project = tomllib.load(open(sys.argv[1], "rb"))["project"]
lines = sum((project["optional-dependencies"][extra] for extra in sys.argv[2].split(",")), project["dependencies"])
needed = [Requirement(line) for line in [*lines, f"{project['name']}=={project['version']}"]]
sys.exit(any(not each.specifier.contains(version(each.name), prereleases=True) for each in needed))
PYTHON
}

install_scaletrain() {
  step="making $venv"
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$(python3 --version), 3.11 or newer is needed"
  as_root install -d -o "$(id -u)" -g "$(id -g)" $home
  [ -x $venv/bin/pip ] || python3 -m venv $venv
  local pip=("$venv/bin/python" -m pip --disable-pip-version-check install --quiet --progress-bar off)
  step="installing torch" # first and alone: DeepSpeed looks at the installed torch while it is installed itself
  "${pip[@]}" "$(grep '^torch==' "$project/constraints.txt")"
  step="installing scaletrain and what it needs"
  touch "$project/README.md" "$project/LICENSE" # pyproject.toml names them; nobody reads them here
  "${pip[@]}" --constraint "$project/constraints.txt" --editable "$project[$extras]"
  echo "$wanted" >$home/installed
}

delay_shutdown() { # Google's notice of preemption is the shutdown itself: without this, systemd ends Ray at once,
  # and the 30 s in which a run could save are lost (https://cloud.google.com/compute/docs/instances/preemptible)
  step="delaying the shutdown"
  [[ ",$extras," == *,gcp,* ]] && [ -d /run/systemd/system ] || return 0
  local text=$'[Login]\nInhibitDelayMaxSec=30' file=/etc/systemd/logind.conf.d/scaletrain.conf
  if [ "$(cat $file 2>/dev/null)" != "$text" ]; then
    as_root install -d "${file%/*}" && echo "$text" | as_root tee $file >/dev/null
    as_root systemctl restart systemd-logind
  fi
  systemctl is-active --quiet scaletrain-shutdown-delay || as_root systemd-run --quiet --collect \
    --unit=scaletrain-shutdown-delay systemd-inhibit --what=shutdown --mode=delay --why="a run saves" sleep infinity
}

write_profile() { # for `ray exec`, `ray attach` and people: the same ray and the same token as the cluster
  step="writing /etc/profile.d/scaletrain.sh"
  local text="export PATH=$venv/bin:\$PATH RAY_AUTH_MODE=token" file=/etc/profile.d/scaletrain.sh
  [ "$(cat $file 2>/dev/null)" = "$text" ] || echo "$text" | as_root tee $file >/dev/null
}

if has_gpu; then extras+=,gpu; fi # Liger's kernels and bitsandbytes; an image without them is completed
wanted="$(cat "$project/pyproject.toml" "$project/constraints.txt" | sha256sum | cut -c1-64) $extras"
step="looking for the token" # Ray would refuse to start without it, minutes later
[ -s ~/.ray/auth_token ] || fail "no ~/.ray/auth_token; run scaletrain cluster init, then ray up again"
chmod 600 ~/.ray/auth_token
if has_everything; then
  check_driver
else
  wait_for_boot
  install_packages
  check_driver
  install_scaletrain
fi
prepare_scratch
delay_shutdown
write_profile
step="importing scaletrain"
$venv/bin/python -c 'import scaletrain' || fail "remove $venv and run ray up again"
echo "scaletrain set-up: ready"
