// Without its replace lines MetalLB finds no Kubernetes libraries, and go install refuses it with them.
module labwright.local/metallb

go 1.17

require (
	go.universe.tf/metallb v0.12.0
	// The one that it asks for panics under Go 1.18 and later.
	github.com/modern-go/reflect2 v1.0.2
)

replace (
	k8s.io/api => k8s.io/api v0.20.2
	k8s.io/apimachinery => k8s.io/apimachinery v0.20.2
	k8s.io/client-go => k8s.io/client-go v0.20.2
)

// For its tests alone; k8s.io/kubernetes asks for modules that there are not.
exclude (
	github.com/metallb/metallb-operator v0.0.0-20211223114020-a8fc2e0875fc
	github.com/ory/dockertest/v3 v3.8.0
	k8s.io/kubernetes v1.21.1
	sigs.k8s.io/controller-runtime v0.7.0
)
