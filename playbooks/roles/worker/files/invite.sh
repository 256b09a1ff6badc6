set -eu
export KUBECONFIG=/etc/kubernetes/admin.conf
# kubeadm gives the API ten seconds, which is not enough while a busy computer starts a cluster.
tries=5
until invitation=$(kubeadm token create --print-join-command --ttl "$1"); do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ]
    sleep 5
done
id=$(echo "$invitation" | sed -E 's/.*--token ([a-z0-9]{6})\..*/\1/')
# A node that asks before the cluster's information is signed with the token asks again only 5 s later.
tries=100
until kubectl --namespace kube-public get configmap cluster-info --output yaml | grep -q "jws-kubeconfig-$id:"; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || break
    sleep 0.2
done
echo "$invitation"
