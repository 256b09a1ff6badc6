# Fails, and names them, while there are volumes of the provisioner or claims that wait for one.
set -eu

found() {
    kubectl get persistentvolumes --no-headers --output custom-columns='BY:.metadata.annotations.pv\.kubernetes\.io/provisioned-by,PV:.metadata.name,NS:.spec.claimRef.namespace,NAME:.spec.claimRef.name' |
        awk '$1 == "rancher.io/local-path" { print "volume " $2 " of claim " $3 "/" $4 }'
    kubectl get persistentvolumeclaims --all-namespaces --no-headers --output custom-columns='CLASS:.spec.storageClassName,PV:.spec.volumeName,NS:.metadata.namespace,NAME:.metadata.name' |
        awk '$1 == "local-path" && $2 == "<none>" { print "claim " $3 "/" $4 }'
}

# A claim that was just deleted, as that of an add-on which was removed, takes its volume with it some seconds later.
for _ in $(seq 30); do
    used=$(found)
    [ -n "$used" ] || exit 0
    sleep 1
done
echo "local-path is still in use: $(echo "$used" | paste -s -d , | sed 's/,/, /g')" >&2
echo "delete the claims (kubectl -n NAMESPACE delete pvc NAME), or put local-path back into addons of lab.yaml" >&2
exit 1
