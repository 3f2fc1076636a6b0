# The first process of one host of namespaces: gives it what a Docker daemon wants, and becomes that
# daemon's keeper. Arguments: NAME DIRECTORY CGROUP-PARENT
set -eu
hostname "$1"
# a /sys of this network namespace, with the machine's control groups
mkdir -p "$2/groups"
mount --rbind /sys/fs/cgroup "$2/groups"
mount -t sysfs sysfs /sys
mount --rbind "$2/groups" /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
# there is no registry: without this each task would wait for a pull that fails
export DOCKER_SERVICE_PREFER_OFFLINE_IMAGE=1
unset TMPDIR DOCKER_HOST HTTP_PROXY HTTPS_PROXY http_proxy https_proxy
dockerd --data-root "$2/data" --exec-root /run/docker --pidfile /run/docker.pid -H "unix://$2/docker.sock" \
  --storage-driver overlay2 --cgroup-parent "$3" --log-level warn >"$2/dockerd.log" 2>&1 &
# as the first process of a pid namespace it also reaps; it ends when it is killed
while :; do wait || :; sleep 3600 & wait $! || :; done
