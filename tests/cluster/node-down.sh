# Sourced by `node`: how all that it has made is removed, whether or not its processes still run.

down() {
    [ "$(id -u)" -eq 0 ] || fail "what root has made takes root to remove"
    if [ -d "$state" ]; then
        state=$(realpath "$state")
        exec 9>"$state/lock"
        flock 9
        # Nothing that ends is to be started anew, nothing that is removed written anew.
        for part in kubelet coredns kube-proxy kube-scheduler kube-controller-manager; do stop "$part"; done
        containers
        stop containerd
        stop kube-apiserver
        stop etcd
        network
        rm -rf --one-file-system "$state"
    fi
    local found
    found=$(leftovers)
    [ -z "$found" ] || fail "this was left behind:
$found"
    echo "all of it is gone"
}

# Containers, whoever watches each of them, and what is mounted for them. In this order: a shim ends when its container has.
containers() {
    local hierarchy sockets end=$((SECONDS + 60))
    sockets=$(sed --quiet 's|.*unix://\(/[^"]*/containerd/s/[0-9a-f]*\)".*|\1|p' \
        "$state"/run/containerd/io.containerd.runtime.v2.task/*/*/bootstrap.json 2>/dev/null || true)
    while true; do
        for hierarchy in $(groups); do
            # Deepest first, and again, because they may still be starting others.
            find "$hierarchy" -depth -type d | while read -r folder; do
                xargs --no-run-if-empty kill -KILL <"$folder/cgroup.procs" || true
                rmdir "$folder" || true
            done 2>/dev/null
        done
        [ -n "$(groups)" ] || break
        [ $SECONDS -lt $end ] || fail "containers do not end: $(groups)"
        sleep 0.1
    done
    for pid in $(ours containerd-shim); do kill -KILL "$pid" 2>/dev/null || true; done
    until [ -z "$(ours containerd-shim)" ]; do sleep 0.1; done
    # What is mounted on top goes first.
    mounts | tac | while read -r place; do umount --lazy "$place" || true; done
    [ -z "$sockets" ] || xargs rm -f <<<"$sockets"
    ! [ -d /var/log/containers ] || find /var/log/containers -lname "$state/*" -delete
    rm -f "/var/lib/cni/results/$network-"*
    # What others had there before stays.
    [ ! -e "$state/absent" ] || xargs --no-run-if-empty rm -rf --one-file-system <"$state/absent"
}

network() {
    local family end=$((SECONDS + 60))
    for family in ip ip6; do nft delete table "$family" kube-proxy 2>/dev/null || true; done
    ip route delete "$services" dev lo 2>/dev/null || true
    ip address delete "$address/32" dev lo 2>/dev/null || true
    [ "$(cat "$state/ip_forward" 2>/dev/null || echo 1)" = 1 ] || echo 0 >/proc/sys/net/ipv4/ip_forward
    # Links go a moment after the namespaces that they led into.
    while [ -n "$(links)" ] && [ $SECONDS -lt $end ]; do sleep 0.1; done
}

# Processes of this cluster whose program's name begins like this.
ours() {
    local file words
    for file in /proc/[0-9]*/cmdline; do
        mapfile -d '' -t words 2>/dev/null <"$file" || continue
        [[ "${words[0]:-}" == */"$1"* || "${words[0]:-}" == "$1"* ]] || continue
        [[ " ${words[*]} " == *" $state/"* || " ${words[*]} " == *"=$state/"* ]] || continue
        file=${file#/proc/}
        echo "${file%/cmdline}"
    done
}

groups() {
    find /sys/fs/cgroup -mindepth 1 -maxdepth 2 -type d -name "$group" 2>/dev/null
}

mounts() {
    awk -v below="$state/" 'index($5, below) == 1 { print $5 }' /proc/self/mountinfo
}

links() {
    ip -4 -oneline address show | awk -v own="${pods%.*}.1/32" '$4 == own { print $2 }'
}

# One line for each thing that is there and should not be.
leftovers() {
    local name place
    state=$(realpath --canonicalize-missing "$state")
    [ ! -e "$state" ] || echo "folder $state"
    for name in "${processes[@]}"; do ours "$name" | sed "s/^/process $name /"; done
    mounts | sed 's/^/mount /'
    groups | sed 's/^/control group /'
    links | sed 's/^/link /'
    for name in ip ip6; do ! nft list table $name kube-proxy >/dev/null 2>&1 || echo "table $name kube-proxy of nft"; done
    ip -4 -oneline address show dev lo | awk -v own="$address/32" '$4 == own { print "address " own }'
    [ -z "$(ip route show "$services")" ] || echo "route $services"
    for place in /run/containerd/s/*; do
        [ ! -S "$place" ] || grep --quiet --fixed-strings " $place" /proc/net/unix || echo "socket $place"
    done
    find /var/lib/cni -name "$network-*" 2>/dev/null | sed 's/^/file /' || true
    find /var/log/containers -lname "$state/*" 2>/dev/null | sed 's/^/link /' || true
}
