"""What is wrong with what the model was asked to compute."""


class SimulateError(ValueError):
    """A config, GPU, shape or layout cannot be modelled; the text says what, where and what to do."""
