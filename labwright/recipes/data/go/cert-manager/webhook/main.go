// The webhook of cert-manager, which checks its resources as they are written. See the package program for why it is here.
package main

import (
	"context"
	"os"

	"github.com/spf13/pflag"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"

	"github.com/cert-manager/cert-manager/internal/apis/config/webhook/validation"
	"github.com/cert-manager/cert-manager/internal/webhook"
	"github.com/cert-manager/cert-manager/labwright/program"
	logf "github.com/cert-manager/cert-manager/pkg/logs"
	"github.com/cert-manager/cert-manager/pkg/webhook/options"
)

func main() {
	fs := pflag.NewFlagSet("webhook", pflag.ExitOnError)
	cfg, err := options.NewWebhookConfiguration()
	utilruntime.Must(err)
	options.AddConfigFlags(fs, cfg)
	utilruntime.Must(fs.Parse(os.Args[1:]))

	program.Main(fs, &cfg.Logging, &cfg.FeatureGates, func(ctx context.Context) error {
		if err := validation.ValidateWebhookConfiguration(cfg, nil).ToAggregate(); err != nil {
			return err
		}
		server, err := webhook.NewCertManagerWebhookServer(logf.FromContext(ctx), *cfg)
		if err != nil {
			return err
		}
		return server.Run(ctx)
	})
}
