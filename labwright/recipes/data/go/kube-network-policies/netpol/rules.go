package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	coreinformers "k8s.io/client-go/informers/core/v1"
	networkinginformers "k8s.io/client-go/informers/networking/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
)

const (
	// Not kube-network-policies' own, which that one writes anew at each change.
	table     = "labwright-network-policies"
	probe     = "labwright-network-policies-probe"
	selected  = "selected"
	retry     = time.Second
	bypass    = 1 // NFQ_FLAG_BYPASS
	source    = 12
	dest      = 16
	addresses = 4
)

// rules are kube-network-policies' own for IPv4, in which alone the way into the queue is another.
type rules struct {
	config   networkpolicy.Config
	pods     corelisters.PodLister
	policies networkinglisters.NetworkPolicyLister
	synced   []cache.InformerSynced
	changed  chan struct{}
}

func newRules(
	config networkpolicy.Config, pods coreinformers.PodInformer, policies networkinginformers.NetworkPolicyInformer,
) *rules {
	r := &rules{
		config: config, pods: pods.Lister(), policies: policies.Lister(), changed: make(chan struct{}, 1),
	}
	for _, informer := range []cache.SharedIndexInformer{pods.Informer(), policies.Informer()} {
		r.synced = append(r.synced, informer.HasSynced)
		_, _ = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { r.change() },
			UpdateFunc: func(any, any) { r.change() },
			DeleteFunc: func(any) { r.change() },
		})
	}
	return r
}

func (r *rules) change() {
	select {
	case r.changed <- struct{}{}:
	default: // One that waits stands for all.
	}
}

// run writes the rules anew whenever the set of selected pods is another, and takes them away when it is told to end:
// nobody answers the queue then. After a crash they stay, and selected pods are closed to new connections.
func (r *rules) run(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), r.synced...) {
		return ctx.Err()
	}
	written := map[netip.Addr]bool(nil)
	for {
		wanted := r.selected()
		if written == nil || !same(written, wanted) {
			if err := r.write(table, wanted); err != nil {
				klog.ErrorS(err, "the rules were not written; next try follows")
				time.AfterFunc(retry, r.change)
			} else {
				written = wanted
			}
		}
		select {
		case <-ctx.Done():
			return drop(table)
		case <-r.changed:
		}
	}
}

// selected returns the IPv4 addresses of this node's pods that some policy selects.
func (r *rules) selected() map[netip.Addr]bool {
	found := map[netip.Addr]bool{}
	policies, _ := r.policies.List(labels.Everything())
	for _, policy := range policies {
		selector, err := metav1.LabelSelectorAsSelector(&policy.Spec.PodSelector)
		if err != nil {
			continue // The API server takes none like that.
		}
		pods, _ := r.pods.Pods(policy.Namespace).List(selector)
		for _, pod := range pods {
			// A pod on the node's network has the node's address, one that has ended perhaps another pod's by now.
			ended := pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed
			if pod.Spec.NodeName != r.config.NodeName || pod.Spec.HostNetwork || ended {
				continue
			}
			for _, ip := range pod.Status.PodIPs {
				if address, err := netip.ParseAddr(ip.IP); err == nil && address.Is4() {
					found[address] = true
				}
			}
		}
	}
	return found
}

// try tells whether the kernel takes such rules, and leaves none.
func (r *rules) try() error {
	if err := r.write(probe, nil); err != nil {
		return err
	}
	return drop(probe)
}

// write replaces the whole table in one transaction, so that there is no moment without rules.
func (r *rules) write(name string, pods map[netip.Addr]bool) error {
	nft, err := nftables.New()
	if err != nil {
		return err
	}
	own := &nftables.Table{Name: name, Family: nftables.TableFamilyIPv4}
	nft.AddTable(own)
	nft.DelTable(own)
	nft.AddTable(own)
	set := &nftables.Set{Table: own, Name: selected, KeyType: nftables.TypeIPAddr}
	var elements []nftables.SetElement
	for address := range pods {
		elements = append(elements, nftables.SetElement{Key: address.AsSlice()})
	}
	if err := nft.AddSet(set, elements); err != nil {
		return err
	}
	// After kube-proxy has chosen a pod for a service, before the sender's address is changed.
	post := nft.AddChain(&nftables.Chain{
		Name: "postrouting", Table: own, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPostrouting,
		Priority: nftables.ChainPriorityRef(*nftables.ChainPriorityNATSource - 5),
	})
	// Two questions for names at the same time from one socket, through the queue, cost one of them on kernels
	// before 6.12 (https://bugzilla.netfilter.org/show_bug.cgi?id=1766). Hence a place of their own.
	pre := nft.AddChain(&nftables.Chain{
		Name: "prerouting", Table: own, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting,
		Priority: nftables.ChainPriorityRef(*nftables.ChainPriorityNATDest + 5),
	})
	accept := &expr.Verdict{Kind: expr.VerdictAccept}
	add := func(chain *nftables.Chain, parts ...[]expr.Any) {
		rule := &nftables.Rule{Table: own, Chain: chain}
		for _, part := range parts {
			rule.Exprs = append(rule.Exprs, part...)
		}
		nft.AddRule(rule)
	}
	add(post, udp(expr.CmpOpEq), nameServer(expr.CmpOpEq), []expr.Any{accept})
	// What root on the node sends is kubelet's probes, and the node's own daemons.
	add(post, sentByRoot(), []expr.Any{accept})
	add(post, established(), []expr.Any{accept})
	add(pre, udp(expr.CmpOpNeq), []expr.Any{accept})
	add(pre, nameServer(expr.CmpOpNeq), []expr.Any{accept})
	for _, chain := range []*nftables.Chain{post, pre} {
		for _, offset := range []uint32{source, dest} {
			add(chain, isSelected(set, offset), []expr.Any{r.queue()})
		}
	}
	return nft.Flush()
}

// queue is the target as iptables-nft writes it: struct xt_NFQ_info_v3 of number, count and flags, padded.
func (r *rules) queue() expr.Any {
	info := binaryutil.NativeEndian.PutUint16(uint16(r.config.QueueID))
	info = append(info, binaryutil.NativeEndian.PutUint16(1)...)
	flags := uint16(0)
	if r.config.FailOpen {
		flags = bypass
	}
	info = append(info, binaryutil.NativeEndian.PutUint16(flags)...)
	padded := xt.Unknown(append(info, 0, 0))
	return &expr.Target{Name: "NFQUEUE", Rev: 3, Info: &padded}
}

func udp(op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: op, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
	}
}

func nameServer(op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: op, Register: 1, Data: binaryutil.BigEndian.PutUint16(53)},
	}
}

func sentByRoot() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeySKUID, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0, 0, 0, 0}},
	}
}

func established() []expr.Any {
	states := binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)
	return []expr.Any{
		&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: states, Xor: []byte{0, 0, 0, 0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0, 0, 0, 0}},
	}
}

func isSelected(set *nftables.Set, offset uint32) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: addresses},
		&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID},
	}
}

// queueExpression tells whether the kernel has the expression that kube-network-policies' own rules use.
func queueExpression(config networkpolicy.Config) error {
	nft, err := nftables.New()
	if err != nil {
		return err
	}
	own := &nftables.Table{Name: probe, Family: nftables.TableFamilyINet}
	nft.AddTable(own)
	chain := nft.AddChain(&nftables.Chain{Name: "probe", Table: own})
	queue := &expr.Queue{Num: uint16(config.QueueID)}
	nft.AddRule(&nftables.Rule{Table: own, Chain: chain, Exprs: []expr.Any{queue}})
	if err := nft.Flush(); err != nil {
		return fmt.Errorf("nftables' queue: %w", err)
	}
	nft.DelTable(own)
	return nft.Flush()
}

func drop(name string) error {
	nft, err := nftables.New()
	if err != nil {
		return err
	}
	nft.DelTable(&nftables.Table{Name: name, Family: nftables.TableFamilyIPv4})
	return nft.Flush()
}

func same(left, right map[netip.Addr]bool) bool {
	if len(left) != len(right) {
		return false
	}
	for address := range left {
		if !right[address] {
			return false
		}
	}
	return true
}
