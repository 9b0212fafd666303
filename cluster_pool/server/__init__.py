"""The node that people run behind a load balancer."""
