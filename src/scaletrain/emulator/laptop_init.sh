# Becomes PID 1 of the emulated laptop: this computer's own files, but a network card, processes and a /tmp/ray apart.
#
# In its environment: ADDRESS PREFIX_LENGTH GATEWAY HOSTS_FILE (or empty). The same handshake as machine_init.sh.
set -euo pipefail
mount --make-rprivate /
echo unshared
read -r _
mount -t proc proc /proc
[ ! -d /root/.ssh ] || mount -t tmpfs -o mode=700 ssh /root/.ssh   # ssh looks there whatever HOME says
[ -z "$HOSTS_FILE" ] || mount --bind "$HOSTS_FILE" /etc/hosts
ip link set lo up
ip addr add "$ADDRESS/$PREFIX_LENGTH" dev eth0
ip link set eth0 up
ip route add default via "$GATEWAY"
hostname laptop
echo ready
exec < /dev/null > /dev/null
trap 'exit 0' TERM
while :; do sleep 3600 & wait $!; done   # bash reaps what is left to PID 1
