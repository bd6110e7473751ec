"""A simulated H100 cluster behind real protocols: the Kubernetes API, the Prometheus API, NVML."""
