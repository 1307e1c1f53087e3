"""The load generator: a process of its own that sends a workload and writes down what came back, and when."""
