// Package program is what Labwright's three programs of cert-manager have in common.
//
// They exist because the Go module proxy serves cert-manager's packages but not its commands, which are modules nested
// in its repository. Each is a small main about those packages, and takes the command's own flags as far as a lab
// needs them.
package program

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"
	cliflag "k8s.io/component-base/cli/flag"
	logsapi "k8s.io/component-base/logs/api/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	cmdutil "github.com/cert-manager/cert-manager/internal/cmd/util"
	logf "github.com/cert-manager/cert-manager/pkg/logs"
	"github.com/cert-manager/cert-manager/pkg/util"
	utilfeature "github.com/cert-manager/cert-manager/pkg/util/feature"
)

// AddFlags adds the flags of logging and of feature gates.
func AddFlags(fs *pflag.FlagSet, logging *logsapi.LoggingConfiguration, gates *map[string]bool) {
	logf.AddFlags(logging, fs)
	fs.Var(cliflag.NewMapStringBool(gates), "feature-gates", "features to switch on or off, as key=value pairs:\n"+
		strings.Join(utilfeature.DefaultFeatureGate.KnownFeatures(), "\n"))
}

// AddLeaderElectionFlags adds the flags of leader election, for the lease of this name.
func AddLeaderElectionFlags(fs *pflag.FlagSet, o *ctrl.Options, lease string) {
	o.LeaderElectionID, o.LeaderElectionReleaseOnCancel = lease, true
	o.LeaseDuration, o.RenewDeadline, o.RetryPeriod = new(time.Duration), new(time.Duration), new(time.Duration)
	fs.BoolVar(&o.LeaderElection, "leader-elect", true, "work only while holding a lease, so that one of several copies does")
	fs.StringVar(&o.LeaderElectionNamespace, "leader-election-namespace", "kube-system", "namespace of the lease")
	fs.DurationVar(o.LeaseDuration, "leader-election-lease-duration", time.Minute, "age at which others may take an unrenewed lease")
	fs.DurationVar(o.RenewDeadline, "leader-election-renew-deadline", 40*time.Second, "time after which the leader gives up renewing")
	fs.DurationVar(o.RetryPeriod, "leader-election-retry-period", 15*time.Second, "time between attempts to take or renew the lease")
}

// Main reads the flags and runs the program until it ends or is told to stop by a signal.
func Main(fs *pflag.FlagSet, logging *logsapi.LoggingConfiguration, gates *map[string]bool, run func(context.Context) error) {
	ctx, exit := cmdutil.SetupExitHandler(context.Background(), cmdutil.GracefulShutdown)
	defer exit()
	logf.InitLogs()
	defer logf.FlushLogs()

	if err := start(ctx, fs, logging, gates, run); err != nil {
		logf.Log.WithName(fs.Name()).Error(err, "failed")
		cmdutil.SetExitCode(err)
	}
}

func start(ctx context.Context, fs *pflag.FlagSet, logging *logsapi.LoggingConfiguration, gates *map[string]bool, run func(context.Context) error) error {
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected arguments: %q", fs.Args())
	}
	if err := logf.ValidateAndApply(logging); err != nil {
		return err
	}
	if err := utilfeature.DefaultMutableFeatureGate.SetFromMap(*gates); err != nil {
		return err
	}
	log := logf.Log.WithName(fs.Name())
	ctrl.SetLogger(log)
	log.Info("starting", "version", util.VersionInfo())
	return run(logf.NewContext(ctx, log))
}
