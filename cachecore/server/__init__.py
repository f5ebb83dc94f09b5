"""What is served: metrics and a status page over HTTP."""
