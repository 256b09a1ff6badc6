// The controllers of cert-manager: issuers, certificates and their requests, ACME, and the certificates of Ingresses. See
// the package program for why it is here.
//
// Those of Venafi are left out: the proxy does not serve the library they need. So are those of the Gateway API and of
// CertificateSigningRequests, which upstream has off unless told otherwise.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	logsapi "k8s.io/component-base/logs/api/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/cert-manager/cert-manager/labwright/program"
	"github.com/cert-manager/cert-manager/pkg/controller"
	_ "github.com/cert-manager/cert-manager/pkg/controller/acmechallenges"
	_ "github.com/cert-manager/cert-manager/pkg/controller/acmeorders"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificate-shim/ingresses"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/acme"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/approver"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/ca"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/selfsigned"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/vault"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/issuing"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/keymanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/metrics"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/readiness"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/requestmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/revisionmanager"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificates/trigger"
	"github.com/cert-manager/cert-manager/pkg/controller/clusterissuers"
	_ "github.com/cert-manager/cert-manager/pkg/controller/issuers"
	"github.com/cert-manager/cert-manager/pkg/healthz"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/acme"
	dnsutil "github.com/cert-manager/cert-manager/pkg/issuer/acme/dns/util"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/selfsigned"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/vault"
	logf "github.com/cert-manager/cert-manager/pkg/logs"
	"github.com/cert-manager/cert-manager/pkg/util"
)

type configuration struct {
	controller.ContextOptions
	manager     ctrl.Options
	controllers []string
	workers     int
	metrics     string
}

func main() {
	fs := pflag.NewFlagSet("controller", pflag.ExitOnError)
	logging, gates := logsapi.NewLoggingConfiguration(), map[string]bool{}
	// Upstream's defaults. Its own code for them needs Venafi's library.
	cfg := &configuration{
		ContextOptions: controller.ContextOptions{
			KubernetesAPIQPS:   20,
			KubernetesAPIBurst: 50,
			IssuerOptions: controller.IssuerOptions{
				ClusterResourceNamespace:        "kube-system",
				ClusterIssuerAmbientCredentials: true,
			},
			ACMEOptions: controller.ACMEOptions{
				HTTP01SolverImage:                 "quay.io/jetstack/cert-manager-acmesolver:" + util.AppVersion,
				HTTP01SolverResourceRequestCPU:    resource.MustParse("10m"),
				HTTP01SolverResourceRequestMemory: resource.MustParse("64Mi"),
				HTTP01SolverResourceLimitsCPU:     resource.MustParse("100m"),
				HTTP01SolverResourceLimitsMemory:  resource.MustParse("64Mi"),
				ACMEHTTP01SolverRunAsNonRoot:      true,
				DNS01CheckAuthoritative:           true,
				DNS01Nameservers:                  dnsutil.RecursiveNameservers,
				DNS01CheckRetryPeriod:             10 * time.Second,
			},
			IngressShimOptions: controller.IngressShimOptions{
				DefaultIssuerKind:                 "Issuer",
				DefaultIssuerGroup:                "cert-manager.io",
				DefaultAutoCertificateAnnotations: []string{"kubernetes.io/tls-acme"},
			},
			CertificateOptions: controller.CertificateOptions{
				CopiedAnnotationPrefixes:                 []string{"*", "-kubectl.kubernetes.io/", "-fluxcd.io/", "-argocd.argoproj.io/"},
				CertificateRequestMinimumBackoffDuration: time.Hour,
				CertificateRequestMaximumBackoffDuration: 32 * time.Hour,
			},
			SchedulerOptions: controller.SchedulerOptions{MaxConcurrentChallenges: 60},
		},
		manager: ctrl.Options{LivenessEndpointName: "/livez", Metrics: metricsserver.Options{BindAddress: "0"}},
	}
	fs.StringVar(&cfg.Kubeconfig, "kubeconfig", "", "path to a kubeconfig; without it, the cluster's own that this runs in")
	fs.StringVar(&cfg.Namespace, "namespace", "", "only namespace to work in, and then without ClusterIssuers; all, if empty")
	fs.StringVar(&cfg.ClusterResourceNamespace, "cluster-resource-namespace", cfg.ClusterResourceNamespace, "namespace of what ClusterIssuers refer to")
	fs.StringSliceVar(&cfg.controllers, "controllers", []string{"*"}, "controllers to run: * for all, foo for foo, -foo for all but foo")
	fs.IntVar(&cfg.workers, "concurrent-workers", 5, "workers of each controller")
	fs.IntVar(&cfg.MaxConcurrentChallenges, "max-concurrent-challenges", cfg.MaxConcurrentChallenges, "challenges to work on at once")
	fs.StringVar(&cfg.HTTP01SolverImage, "acme-http01-solver-image", cfg.HTTP01SolverImage, "image that answers HTTP01 challenges")
	fs.StringVar(&cfg.DefaultIssuerName, "default-issuer-name", "", "issuer of an Ingress that names none")
	fs.StringVar(&cfg.DefaultIssuerKind, "default-issuer-kind", cfg.DefaultIssuerKind, "kind of that issuer")
	fs.StringVar(&cfg.DefaultIssuerGroup, "default-issuer-group", cfg.DefaultIssuerGroup, "API group of that issuer")
	fs.BoolVar(&cfg.EnableOwnerRef, "enable-certificate-owner-ref", false, "have a Certificate own its Secret, which then goes with it")
	fs.StringVar(&cfg.metrics, "metrics-listen-address", "0.0.0.0:9402", "host and port of the metrics")
	fs.StringVar(&cfg.manager.HealthProbeBindAddress, "internal-healthz-listen-address", "0.0.0.0:9403", "host and port of /livez")
	program.AddLeaderElectionFlags(fs, &cfg.manager, "cert-manager-controller")
	program.AddFlags(fs, logging, &gates)
	utilruntime.Must(fs.Parse(os.Args[1:]))

	program.Main(fs, logging, &gates, cfg.run)
}

// enabled is the names of the controllers to run. As upstream has it, to leave out some is to want all the others.
func (cfg *configuration) enabled() (sets.Set[string], error) {
	known, wanted, unwanted := sets.KeySet(controller.Known()), sets.New[string](), sets.New[string]()
	for _, name := range cfg.controllers {
		if bare, found := strings.CutPrefix(name, "-"); found {
			unwanted.Insert(bare)
		} else {
			wanted.Insert(name)
		}
	}
	if unknown := wanted.Union(unwanted).Difference(known).Delete("*"); len(unknown) > 0 {
		return nil, fmt.Errorf("--controllers: none of %q has the name %q", sets.List(known), sets.List(unknown))
	}
	if len(wanted) == 0 || wanted.Has("*") {
		wanted = known
	}
	if cfg.Namespace != "" {
		unwanted.Insert(clusterissuers.ControllerName)
	}
	return wanted.Difference(unwanted), nil
}

func (cfg *configuration) run(ctx context.Context) error {
	enabled, err := cfg.enabled()
	if err != nil {
		return err
	}
	factory, err := controller.NewContextFactory(ctx, cfg.ContextOptions)
	if err != nil {
		return err
	}
	base, err := factory.Build()
	if err != nil {
		return err
	}
	cfg.manager.Scheme, cfg.manager.Logger = base.Scheme, logf.FromContext(ctx)
	mgr, err := ctrl.NewManager(base.RESTConfig, cfg.manager)
	if err != nil {
		return err
	}

	// What asks to be told of resources has its informer, which starts once this leads, as the controllers do.
	for name := range enabled {
		c, err := controller.Known()[name](factory)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
			if err := c.Run(cfg.workers, ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})); err != nil {
			return err
		}
	}
	resources := base.SharedInformerFactory.Certmanager().V1()
	base.Metrics.SetupCertificateCollector(resources.Certificates().Lister())
	base.Metrics.SetupIssuerCollector(resources.Issuers().Lister())
	if enabled.Has(clusterissuers.ControllerName) {
		base.Metrics.SetupClusterIssuerCollector(resources.ClusterIssuers().Lister())
	}
	base.Metrics.SetupACMECollector(base.SharedInformerFactory.Acme().V1().Challenges().Lister())
	if err := mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		base.SharedInformerFactory.Start(ctx.Done())
		base.KubeSharedInformerFactory.Start(ctx.Done())
		base.HTTP01ResourceMetadataInformersFactory.Start(ctx.Done())
		logf.FromContext(ctx).Info("controllers started", "names", sets.List(enabled))
		<-ctx.Done()
		return nil
	})); err != nil {
		return err
	}

	// Metrics and /livez are there from the start.
	listener, err := net.Listen("tcp", cfg.metrics)
	if err != nil {
		return err
	}
	if err := mgr.Add(&manager.Server{Name: "metrics", Server: base.Metrics.NewServer(listener), Listener: listener}); err != nil {
		return err
	}
	if err := mgr.AddHealthzCheck("clock", healthz.NewClockHealthAdaptor(base.Clock).Check); err != nil {
		return err
	}
	return mgr.Start(ctx)
}
