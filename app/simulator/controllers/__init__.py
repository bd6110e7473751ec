"""What runs beside an API server: scheduler, controllers, kubelets, all over the registry."""
