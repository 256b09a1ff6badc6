// Command netpol enforces NetworkPolicy for the pods of one node.
//
// What is allowed is decided by kube-network-policies, as it is published. It sees the first packet of each connection
// through a queue of the kernel, and its own rules fill that queue by an nftables expression that some kernels lack
// (CONFIG_NFT_QUEUE: WSL 2 and others that were made small). There the rules of this program fill the same queue by
// the iptables target NFQUEUE.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
)

const protobuf = "application/vnd.kubernetes.protobuf"

// The flags have the names of kube-network-policies' own program: one manifest serves both.
var (
	node    = flag.String("hostname-override", "", "name of this node's Node object; the host's name if empty")
	queueID = flag.Int("nfqueue-id", 100, "number of the queue")
	metrics = flag.String("metrics-bind-address", "127.0.0.1:9080", "address that serves /metrics; empty for none")
	open    = flag.Bool("fail-open", false, "let connections of selected pods through while this program does not run")
	_       = flag.Bool("disable-nri", true, "for the other program's sake: pods' addresses come from the API server")
)

func main() {
	klog.InitFlags(nil)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	// Not JSON: in it an empty list of rules differs from none, and would be taken for "allow everything".
	config.ContentType = protobuf
	config.AcceptContentTypes = protobuf + ",application/json"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	settings := networkpolicy.Config{
		FailOpen: *open, QueueID: *queueID, NodeName: *node, NetfilterBug1766Fix: true,
	}
	if err := settings.Defaults(); err != nil {
		return err
	}
	core, policies := factory.Core().V1(), factory.Networking().V1().NetworkPolicies()
	decide, err := networkpolicy.NewController(
		client, policies, core.Namespaces(), core.Pods(), nil, nil, nil, nil, settings)
	if err != nil {
		return err
	}
	own := newRules(settings, core.Pods(), policies)
	if *metrics != "" {
		http.Handle("/metrics", promhttp.Handler())
		go func() { klog.ErrorS(http.ListenAndServe(*metrics, nil), "no metrics", "address", *metrics) }()
	}
	workers := []func(context.Context) error{decide.Run}
	if err := queueExpression(settings); err == nil {
		klog.InfoS("the queue is filled by nftables alone")
	} else if err := own.try(); err != nil {
		return fmt.Errorf("this kernel has neither CONFIG_NFT_QUEUE nor CONFIG_NFT_COMPAT with "+
			"CONFIG_NETFILTER_XT_TARGET_NFQUEUE, so no NetworkPolicy can be enforced: %w", err)
	} else {
		klog.InfoS("the queue is filled by the iptables target NFQUEUE: this kernel has no CONFIG_NFT_QUEUE")
		workers = append(workers, own.run)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, len(workers))
	for _, work := range workers {
		go func() { ended <- work(ctx) }()
	}
	factory.Start(ctx.Done())
	// None of them ends by itself unless it failed, as where the queue cannot be opened. The others then end too, and
	// take their rules with them: rules that nobody answers would close the selected pods.
	failed := <-ended
	stop()
	for range workers[1:] {
		<-ended
	}
	return failed
}
