#!/bin/busybox sh
# Tells what is on the second disk, where its file system has nothing, then writes one block that is flushed and one that has only been written.
export PATH=/bin
busybox mount -t proc proc /proc
busybox --install -s /bin
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev

block() { dd if=/dev/vdb bs=4096 skip="$1" count=1 2>/dev/null | head -n 1; }
write() { yes "$1" | head -c 4096 | dd of=/dev/vdb bs=4096 seek="$2" iflag=fullblock oflag=direct $3 2>/dev/null; }

echo "### cache $(cat /sys/block/vdb/queue/write_cache)"
echo "### found $(block 50001) $(block 50002) $(block 50003)"
write before 50001
write flushed 50002 conv=fsync
write after 50003
echo "### now $(block 50001) $(block 50002) $(block 50003)"
while :; do sleep 60; done
