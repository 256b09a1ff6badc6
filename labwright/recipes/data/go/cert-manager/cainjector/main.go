// The injector of cert-manager, which writes the certificates of authorities into the resources annotated for it: webhook
// configurations, CRDs and APIServices. See the package program for why it is here.
package main

import (
	"context"
	"os"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	kscheme "k8s.io/client-go/kubernetes/scheme"
	logsapi "k8s.io/component-base/logs/api/v1"
	apiregistration "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	_ "github.com/cert-manager/cert-manager/internal/cainjector/feature"
	"github.com/cert-manager/cert-manager/internal/kube"
	"github.com/cert-manager/cert-manager/labwright/program"
	certmanager "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/cert-manager/cert-manager/pkg/controller/cainjector"
	logf "github.com/cert-manager/cert-manager/pkg/logs"
	"github.com/cert-manager/cert-manager/pkg/util"
)

func main() {
	fs := pflag.NewFlagSet("cainjector", pflag.ExitOnError)
	logging, gates, kubeconfig := logsapi.NewLoggingConfiguration(), map[string]bool{}, ""
	setup := cainjector.SetupOptions{EnabledReconcilersFor: map[string]bool{
		cainjector.MutatingWebhookConfigurationName:   true,
		cainjector.ValidatingWebhookConfigurationName: true,
		cainjector.APIServiceName:                     true,
		cainjector.CustomResourceDefinitionName:       true,
	}}
	options := ctrl.Options{
		Scheme: runtime.NewScheme(),
		// Of Secrets, the metadata alone is watched; what is in one is read when it is wanted.
		Client: client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}}}},
	}
	for _, add := range []func(*runtime.Scheme) error{
		kscheme.AddToScheme, certmanager.AddToScheme, apiextensions.AddToScheme, apiregistration.AddToScheme,
	} {
		utilruntime.Must(add(options.Scheme))
	}
	fs.StringVar(&kubeconfig, "kubeconfig", "", "path to a kubeconfig; without it, the cluster's own that this runs in")
	fs.StringVar(&setup.Namespace, "namespace", "", "only namespace to take authorities from; all, if empty")
	fs.BoolVar(&setup.EnableCertificatesDataSource, "enable-certificates-data-source", true, "take authorities from Certificates too")
	fs.StringVar(&options.Metrics.BindAddress, "metrics-listen-address", "0.0.0.0:9402", "host and port of the metrics; 0 for none")
	program.AddLeaderElectionFlags(fs, &options, "cert-manager-cainjector-leader-election")
	program.AddFlags(fs, logging, &gates)
	utilruntime.Must(fs.Parse(os.Args[1:]))

	program.Main(fs, logging, &gates, func(ctx context.Context) error {
		rest, err := kube.BuildClientConfig("", kubeconfig)
		if err != nil {
			return err
		}
		options.Logger = logf.FromContext(ctx)
		if setup.Namespace != "" {
			options.Cache.DefaultNamespaces = map[string]cache.Config{setup.Namespace: {}}
		}
		manager, err := ctrl.NewManager(util.RestConfigWithUserAgent(rest, "cainjector"), options)
		if err != nil {
			return err
		}
		if err := cainjector.RegisterAllInjectors(ctx, manager, setup); err != nil {
			return err
		}
		return manager.Start(ctx)
	})
}
