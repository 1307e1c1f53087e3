"""What others did to a model before: a folder of pull-request histories, and the pull requests that are open now."""
