"""The daemon: one loop that folds the ledger, asks the machine what to do, and records what happened."""
