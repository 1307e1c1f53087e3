"""The search for a framework's best configuration: pure rules, no I/O, clock or chance."""
