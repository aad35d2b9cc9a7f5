"""Federated training: rounds, clients, and how their messages become the next model."""
