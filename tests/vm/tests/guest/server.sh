mkdir -p /var/lib/flotilla
ip link add eth0 type veth peer name wire
ip address add 10.0.0.1/24 dev eth0
ip link set eth0 up
ip link set wire up
hostname machine
flotilla server --name machine --address 10.0.0.1 > /tmp/server.log 2>&1 &
server=$!
# The script's own values cannot be seen by what it waits for in a subshell, so each condition is one command line.
await() {
    title="$1"; shift
    for attempt in $(seq 600); do
        if eval "$*" > /tmp/said 2>&1; then ok "$title"; return 0; fi
        usleep 200000
    done
    failed "$title: $*"
    tail -n 20 /tmp/said /tmp/server.log; flotilla get events; flotilla get pods
    return 1
}
export KUBECONFIG=/var/lib/flotilla/server/admin.kubeconfig
pods=/sys/fs/cgroup/flotilla
held() { [ "$(cat $pods/burstable/pod*/web-0/$1)" = "$2" ]; }
state() { flotilla get pod "$1" -o "jsonpath={.status.containerStatuses[0].$2}"; }

await "the node is ready" 'flotilla get nodes | grep -q " Ready"'
await "an image is imported" 'flotilla image import /images/busybox.tar'
cat /tmp/said
flotilla image list
flotilla apply -f /pods.yaml
await "a pod with limits is ready" 'state web ready | grep -q true'
await "its CPU is limited" 'held cpu.max "20000 100000"'
await "its weight follows its request" 'held cpu.weight 4'
await "its memory is limited" 'held memory.max 67108864'
await "it may not swap" 'grep -qx 0 $pods/burstable/pod*/memory.swap.max'
await "pods without requests are in the class of best effort" 'ls -d $pods/besteffort/pod*'
await "what is too large is killed and told" 'state hungry lastState.terminated.reason | grep -q OOMKilled || state hungry state.terminated.reason | grep -q OOMKilled'
await "a command runs in the container's cgroup" 'flotilla exec web -- cat /proc/self/cgroup | grep -q ::/$'
await "no device can be made" '! flotilla exec web -- mknod /tmp/disk b 254 0'
pid=$(cat $pods/burstable/pod*/web-0/cgroup.procs | head -n 1)
kill -9 $server; wait $server 2>/dev/null
flotilla server --name machine --address 10.0.0.1 > /tmp/server.log 2>&1 &
await "the node comes back" 'flotilla exec web -- true'
await "its container has not been started again" 'kill -0 $pid && state web restartCount | grep -qx 0'
await "what a pod uses is told" 'flotilla top pod web | grep -q Mi'
flotilla delete -f /pods.yaml > /dev/null
await "no cgroup is left" '! ls -d $pods/*/pod* $pods/pod*'
finish
