#!/bin/busybox sh
# A machine with nothing but cgroup v2, as systemd would leave it.
export PATH=/bin HOME=/root
busybox mount -t proc proc /proc
busybox --install -s /bin
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=666,mode=620 devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --make-rshared /
modprobe overlay
ip link set lo up

ok() { echo "### ok $1"; }
failed() { echo "### failed $1"; }
finish() { echo "### end"; sync; poweroff -f; sleep 60; }
