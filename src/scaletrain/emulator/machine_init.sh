# Becomes PID 1 of one emulated machine: a root file system of its own over this computer's, a network card, sshd.
#
# In its environment: NAME ADDRESS PREFIX_LENGTH GATEWAY PUBLIC_ADDRESS HOSTS DISK, KEYS ("user:ssh-key" lines),
# SETTINGS ("NAME=value" lines for every session), BIND (folders to show), HIDE (folders to hide), VENV (the prepared
# one, or empty). Tells "unshared" on stdout, then waits for one line: by then eth0 and the firewall are there. Tells
# "ready" once the machine is itself: its own root, name and address.
set -euo pipefail
mount --make-rprivate /
echo unshared
read -r _

mkdir -p "$DISK"/{up,work,root,tmp} "$DISK"/homes/{root,home}
cd "$DISK"
mount -t overlay overlay -o lowerdir=/,upperdir=up,workdir=work root
R=$DISK/root
mount -t proc proc "$R/proc"
mount -t sysfs sysfs "$R/sys" 2>/dev/null || mount --rbind /sys "$R/sys"
# GPUs of this computer are none of the machine's: what a set-up does where it sees one is not to be done here.
[ ! -d "$R/sys/bus/pci/devices" ] || mount -t tmpfs -o mode=755,size=4k hidden "$R/sys/bus/pci/devices"
mount -t tmpfs -o mode=755 dev "$R/dev"
for device in null zero full random urandom tty; do
  touch "$R/dev/$device"
  mount --bind "/dev/$device" "$R/dev/$device"
done
ln -s /proc/self/fd "$R/dev/fd"
for number in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${number%:*}" "$R/dev/${number#*:}"; done
mkdir "$R/dev/pts" "$R/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$R/dev/pts"
ln -s pts/ptmx "$R/dev/ptmx"
mount -t tmpfs -o size=4g,mode=1777 shm "$R/dev/shm"
mount -t tmpfs -o mode=755 run "$R/run"
mkdir -p "$R/run/sshd" "$R/run/lock"

# Nothing of this computer's homes (keys, tokens) or temporary files may leak in. These folders are on the machine's
# own disk, so they outlive a stop and a start.
chmod 1777 "$DISK/tmp"
mount --bind "$DISK/tmp" "$R/tmp"
for home in root home; do
  chmod 755 "$DISK/homes/$home"
  mount --bind "$DISK/homes/$home" "$R/$home"
done
while read -r folder; do
  [ -n "$folder" ] || continue
  mkdir -p "$R$folder"
  mount --bind -o ro "$folder" "$R$folder"
done <<< "$BIND"
while read -r folder; do
  [ -n "$folder" ] || continue
  mkdir -p "$R$folder"
  mount -t tmpfs -o mode=755,size=4k hidden "$R$folder"
done <<< "$HIDE"
if [ -n "$VENV" ] && [ "$VENV" != /opt/scaletrain/venv ] && [ ! -e "$R/opt/scaletrain/venv" ]; then
  mkdir -p "$R/opt/scaletrain"
  ln -s "$VENV" "$R/opt/scaletrain/venv"
fi
USER_DATA=/var/lib/cloud/instance/user-data.txt
FIRST_BOOT=
if [ -e "$DISK/first-boot" ]; then
  FIRST_BOOT=yes
  mkdir -p "$R/var/lib/cloud/instance"
  mv "$DISK/first-boot" "$R$USER_DATA"
  chmod 700 "$R$USER_DATA"
fi
START_SCRIPT=
if [ -s "$DISK/start-script" ]; then
  START_SCRIPT=/run/start-script
  cp "$DISK/start-script" "$R$START_SCRIPT"
  chmod 700 "$R$START_SCRIPT"
fi

# From here on this computer's own files are out of reach, for root on the machine too.
mkdir -p "$R/outside"
cd "$R"
pivot_root . outside
cd /
umount -l /outside
rmdir /outside

ip link set lo up
ip addr add "$ADDRESS/$PREFIX_LENGTH" dev eth0
[ -z "$PUBLIC_ADDRESS" ] || ip addr add "$PUBLIC_ADDRESS/32" dev eth0   # stands for the one-to-one NAT
ip link set eth0 up
ip route add default via "$GATEWAY"
hostname "$NAME"
echo "$NAME" > /etc/hostname
printf '127.0.0.1 localhost\n%s %s\n%s\n' "$ADDRESS" "$NAME" "$HOSTS" > /etc/hosts
: > /etc/resolv.conf   # there is no resolver

if [ ! -e /var/lib/emulated-machine ]; then
  cp -a /etc/skel/. /root/
  while IFS=: read -r user key; do
    [ -n "$key" ] || continue
    # Without -p sshd takes the account for locked.
    id "$user" >/dev/null 2>&1 || useradd -m -s /bin/bash -p '*' "$user"
    home=$(getent passwd "$user" | cut -d: -f6)
    mkdir -p "$home/.ssh"
    chmod 700 "$home/.ssh"
    echo "$key" >> "$home/.ssh/authorized_keys"
    chown -R "$user:" "$home"
    if [ "$user" != root ]; then
      mkdir -p /etc/sudoers.d
      printf '%s ALL=(ALL) NOPASSWD:ALL\nDefaults env_keep += "%s"\n' "$user" \
        "$(cut -d= -f1 <<< "$SETTINGS" | tr '\n' ' ')" > "/etc/sudoers.d/90-$user"
      chmod 440 "/etc/sudoers.d/90-$user"
    fi
  done <<< "$KEYS"
  printf '%s\n' "$SETTINGS" > /etc/environment
  sed -e '/./s/^/export /' <<< "$SETTINGS" > /etc/profile.d/emulated-machine.sh
  rm -f /etc/ssh/ssh_host_*
  ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
  cat > /etc/ssh/sshd_config <<X
Port 22
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
UsePAM no
UseDNS no
PrintMotd no
MaxStartups 100
MaxSessions 100
Subsystem sftp internal-sftp
SetEnv $(tr '\n' ' ' <<< "$SETTINGS")
X
  touch /var/lib/emulated-machine
fi
echo ready
exec > /dev/null < /dev/null

# What the image runs once, at the first boot, as root; its output is where cloud-init puts it.
if [ -n "$FIRST_BOOT" ]; then
  (
    status=0
    # shellcheck disable=SC2046
    env -i $(tr '\n' ' ' <<< "$SETTINGS") HOME=/root "$USER_DATA" >> /var/log/cloud-init-output.log 2>&1 || status=$?
    echo "user data ended with exit code $status" >> /var/log/cloud-init-output.log
    touch /var/lib/cloud/instance/boot-finished
  ) &
fi
# What the metadata asks the image to run at every start, as root.
if [ -n "$START_SCRIPT" ]; then
  (
    status=0
    # shellcheck disable=SC2046
    env -i $(tr '\n' ' ' <<< "$SETTINGS") HOME=/root "$START_SCRIPT" >> /var/log/startup-script.log 2>&1 || status=$?
    echo "startup-script exit status $status" >> /var/log/startup-script.log
  ) &
fi
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /usr/sbin/sshd -D -e
