"""The Kubernetes face of the simulator: what a kube-apiserver answers, over the store."""
