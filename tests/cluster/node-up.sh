# Sourced by `node`: how the parts of a node are started.

# What a node of processes is made of, and no package can bring.
able() {
    local instead="install kind and docker, or set KUBECONFIG"
    [ "$(uname -s)" = Linux ] || fail "a node of processes needs Linux; $instead"
    [ "$(id -u)" -eq 0 ] || fail "a node of processes takes root; $instead"
    unshare --mount --net --pid --fork true 2>/dev/null || fail "the kernel lets no namespaces be made here; $instead"
    grep --quiet --word-regexp overlay /proc/filesystems || modprobe overlay 2>/dev/null || fail "the kernel has no overlayfs; $instead"
    # Of version 1 each controller has its own hierarchy.
    local group=/sys/fs/cgroup
    [ ! -d $group/memory ] || group=$group/memory
    { mkdir "$group/postern-able" && rmdir "$group/postern-able"; } 2>/dev/null || fail "no group can be made in $group; $instead"
}

up() {
    able
    # Its paths stand in files of containerd, and sockets have short names.
    mkdir -p "$state"
    state=$(realpath "$state")
    [ ${#state} -le 60 ] || fail "POSTERN_CLUSTER: at most 60 characters, because of the sockets in it: $state"
    exec 9>"$state/lock"
    flock 9
    scripts/need cc conntrack etcd ip nft openssl python3 runc cni
    scripts/kubernetes etcd kubectl
    scripts/kubernetes build "${programs[@]}"
    socket=$state/run/containerd.sock
    mkdir -p "$state"/{pki,log,processes,run,cni,etcd,containerd,kubelet}
    if [ ! -e "$state/which" ]; then
        # Of another Kubernetes here nothing is to be overwritten.
        ! nft list table ip kube-proxy >/dev/null 2>&1 || fail "another kube-proxy has its rules on this machine; set KUBECONFIG"
        [ -z "$(groups)" ] || fail "another Kubernetes has its containers on this machine ($(groups | head -n 1)); set KUBECONFIG"
        cat /proc/sys/net/ipv4/ip_forward >"$state/ip_forward"
        for place in "${elsewhere[@]}"; do [ -e "$place" ] || echo "$place"; done >"$state/absent"
        echo node >"$state/which"
    fi
    # What a kill or a reboot has ended begins anew, each when its turn comes.
    for file in "$state"/processes/*; do
        [ ! -e "$file" ] || is_running "${file##*/}" || rm "$file"
    done
    ip -4 address show dev lo | grep --quiet --fixed-strings " $address/32" || ip address add "$address/32" dev lo
    # What the machine itself sends to Services has to have some way before the rules give it another.
    ip route replace "$services" dev lo src "$address"
    authority
    control_plane
    runtime
    node
    names
    echo "ready: export KUBECONFIG=$state/kubeconfig"
}

# Keys and certificates of all parts, and of an administrator.
authority() {
    [ ! -e "$state/kubeconfig" ] || return 0
    local own="DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
    (
        cd "$state/pki"
        umask 077
        key ca
        openssl req -x509 -new -key ca.key -subj "/CN=postern-cluster" -days 3650 -out ca.crt
        issue kube-apiserver /CN=kube-apiserver "$own,DNS:localhost,IP:127.0.0.1,IP:${services%.*}.1,IP:$address"
        issue admin /O=system:masters/CN=admin
        issue kube-controller-manager /CN=system:kube-controller-manager
        issue kube-scheduler /CN=system:kube-scheduler
        issue kube-proxy /CN=system:kube-proxy
        issue kubelet /O=system:nodes/CN=system:node:node "DNS:node,IP:$address"
        openssl genrsa -out account.key 2048 2>/dev/null
        openssl rsa -in account.key -pubout -out account.pub 2>/dev/null
        issue coredns /O=system:masters/CN=coredns
        for name in kube-controller-manager kube-scheduler kube-proxy kubelet coredns admin; do
            kubeconfig $name >$name.conf
        done
        mv admin.conf "$state/kubeconfig"
    )
}

key() {
    openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"
}

# $1: file; $2: subject; $3: other names.
issue() {
    key "$1"
    openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"
    printf 'extendedKeyUsage=clientAuth,serverAuth\n%s\n' "${3:+subjectAltName=$3}" >"$1.ext"
    openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -extfile "$1.ext" -out "$1.crt" 2>/dev/null
    rm "$1.csr" "$1.ext"
}

kubeconfig() {
    cat <<END
apiVersion: v1
kind: Config
clusters: [{name: postern, cluster: {server: "https://$address:6443", certificate-authority-data: $(base64 -w 0 ca.crt)}}]
users: [{name: $1, user: {client-certificate-data: $(base64 -w 0 "$1.crt"), client-key-data: $(base64 -w 0 "$1.key")}}]
contexts: [{name: postern, context: {cluster: postern, user: $1}}]
current-context: postern
END
}

control_plane() {
    local pki=$state/pki gates=PodCertificateRequest=true,ClusterTrustBundle=true,ClusterTrustBundleProjection=true
    begin etcd "$(scripts/kubernetes where etcd)" --data-dir "$state/etcd" --unsafe-no-fsync \
        --listen-client-urls "http://$address:2379" --advertise-client-urls "http://$address:2379" \
        --listen-peer-urls "http://$address:2380" --initial-advertise-peer-urls "http://$address:2380" \
        --initial-cluster "default=http://$address:2380"
    begin kube-apiserver "$(program kube-apiserver)" --etcd-servers="http://$address:2379" \
        --advertise-address=$address --bind-address=$address --secure-port=6443 --service-cluster-ip-range=$services \
        --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged \
        --client-ca-file="$pki/ca.crt" --tls-cert-file="$pki/kube-apiserver.crt" \
        --tls-private-key-file="$pki/kube-apiserver.key" --service-account-issuer=https://kubernetes.default.svc.cluster.local \
        --service-account-signing-key-file="$pki/account.key" --service-account-key-file="$pki/account.pub" \
        --kubelet-client-certificate="$pki/admin.crt" --kubelet-client-key="$pki/admin.key" \
        --kubelet-certificate-authority="$pki/ca.crt" --kubelet-preferred-address-types=InternalIP \
        --feature-gates=$gates --runtime-config=certificates.k8s.io/v1beta1=true
    export KUBECONFIG=$state/kubeconfig
    eventually "the API server" kubectl get --raw /readyz
    begin kube-controller-manager "$(program kube-controller-manager)" --kubeconfig="$pki/kube-controller-manager.conf" \
        --bind-address=$address --service-account-private-key-file="$pki/account.key" --root-ca-file="$pki/ca.crt" \
        --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" \
        --use-service-account-credentials --leader-elect=false
    begin kube-scheduler "$(program kube-scheduler)" --kubeconfig="$pki/kube-scheduler.conf" --bind-address=$address \
        --leader-elect=false
}

runtime() {
    # Each pod by itself on a link of its own, so that what it sends to others passes the machine's rules.
    cat >"$state/cni/10-postern.conflist" <<END
{"cniVersion": "1.0.0", "name": "$network", "plugins": [{"type": "ptp", "mtu": 1500, "ipam": {"type": "host-local",
  "dataDir": "$state/cni/addresses", "ranges": [[{"subnet": "$pods"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
END
    # restrict_oom_score_adj: without CAP_SYS_RESOURCE no sandbox would start.
    cat >"$state/containerd.toml" <<END
version = 3
root = "$state/containerd"
state = "$state/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "$socket"
[plugins."io.containerd.internal.v1.opt"]
  path = "$state/containerd/opt"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  enable_cdi = false
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      Root = "$state/run/runc"
      SystemdCgroup = false
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni", "/opt/cni/bin"]
    conf_dir = "$state/cni"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "docker.io/library/pause:postern"
END
    # containerd finds its shim by PATH.
    PATH="$(dirname "$(program containerd)"):$PATH" begin containerd "$(program containerd)" -c "$state/containerd.toml"
    eventually containerd "$(program ctr)" -a "$socket" version
    [ ! -e "$state/pause.tar" ] || return 0
    local folder
    folder=$(mktemp -d "$state/pause.XXXXXX")
    cc -static -Os -s -o "$folder/pause" tests/cluster/pause.c
    scripts/image "$folder/pause.tar" pause:postern --entrypoint /pause "$folder/pause=/pause" >/dev/null
    "$(program ctr)" -a "$socket" -n k8s.io images import "$folder/pause.tar" >>"$state/log/ctr" 2>&1
    mv "$folder/pause.tar" "$state/pause.tar"
    rm -r "$folder"
}

node() {
    : >"$state/resolv.conf"
    # Images come by `load` and cannot be pulled again, so none may be collected.
    cat >"$state/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $address
healthzBindAddress: $address
containerRuntimeEndpoint: unix://$socket
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $state/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $state/pki/kubelet.crt
tlsPrivateKeyFile: $state/pki/kubelet.key
featureGates: {PodCertificateRequest: true, ClusterTrustBundle: true, ClusterTrustBundleProjection: true}
clusterDNS: [$address]
clusterDomain: cluster.local
resolvConf: $state/resolv.conf
podLogsDir: $state/pod-logs
volumePluginDir: $state/kubelet/volume-plugins
staticPodPath: ""
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
makeIPTablesUtilChains: false
evictionHard: {}
imageGCHighThresholdPercent: 100
END
    begin kubelet "$(program kubelet)" --config="$state/kubelet.yaml" --kubeconfig="$state/pki/kubelet.conf" \
        --hostname-override=node --node-ip=$address --root-dir="$state/kubelet" --cert-dir="$state/kubelet/pki"
    # 0: the machine's own limits stay.
    begin kube-proxy "$(program kube-proxy)" --kubeconfig="$state/pki/kube-proxy.conf" --hostname-override=node \
        --proxy-mode=nftables --cluster-cidr=$pods --healthz-bind-address=$address:10256 \
        --metrics-bind-address=$address:10249 --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 \
        --conntrack-tcp-timeout-close-wait=0
    eventually "the node" kubectl wait node/node --for=condition=Ready --timeout=1s
    eventually "an account of the default namespace" kubectl get serviceaccount default
    eventually "rules of kube-proxy" nft list chain ip kube-proxy services
}

# Beside the pods and not in one: its image could not be pulled.
names() {
    cat >"$state/Corefile" <<END
cluster.local:53 {
    bind $address
    errors
    cache 5
    kubernetes cluster.local {
        kubeconfig $state/pki/coredns.conf
        ttl 5
    }
}
END
    begin coredns "$(program coredns)" -conf "$state/Corefile"
    eventually "names of Services" in_dns
}

# Asks for the address of kubernetes.default.svc.cluster.local, and succeeds where there is one.
in_dns() {
    python3 - "$address" <<'END'
import socket, sys
asked = b"\0\1\1\0\0\1\0\0\0\0\0\0" + b"".join(bytes([len(part)]) + part for part in b"kubernetes.default.svc.cluster.local".split(b".")) + b"\0\0\1\0\1"
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
    channel.settimeout(2)
    channel.sendto(asked, (sys.argv[1], 53))
    answer = channel.recv(512)
sys.exit(answer[3] & 15 or answer[6:8] == b"\0\0")
END
}
