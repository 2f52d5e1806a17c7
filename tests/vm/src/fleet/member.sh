#!/bin/busybox sh
# A machine of a cluster that runs `flotilla server` on its second disk, and nothing else. The kernel has handed over what
# flotilla_* it was started with.
export PATH=/bin HOME=/root
busybox mount -t proc proc /proc
busybox --install -s /bin
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
modprobe virtio_net
ip link set lo up
ip address add "$flotilla_address/24" dev eth0
ip link set eth0 up
ip address add 10.0.2.15/24 dev eth1
ip link set eth1 up
hostname "$flotilla_name"
mount -t ext4 /dev/vdb /mnt || { echo "### end: the disk cannot be mounted"; poweroff -f; }

data=/mnt/server
# As a service manager does it, but not for ever: one that refuses to start should be seen.
serve() {
    for attempt in 1 2 3 4 5; do
        flotilla server --name "$flotilla_name" --address "$flotilla_address" --data-dir "$data" --disable-agent \
            $flotilla_flags 2>&1
        echo "the server ended with status $?"
        sleep 1
    done
}
serve &
server=$!
# What the others need to join, and clients to be let in.
tell() {
    until [ -e "$data/$2" ]; do usleep 20000; done
    echo "### $1 $(tr -d '\n' < "$data/$2")"
}
if [ "$flotilla_first" ]; then tell kubeconfig admin.kubeconfig; tell token join-token; fi
wait $server
echo "### end: the server does not go on"
poweroff -f
