"""Activities: the effects that the machine asks for. Each is one function that can be entered again.

An activity may be interrupted anywhere and started again with the same job and attempt. It therefore records
through :meth:`Context.once` and runs processes through :meth:`Context.run`, which both answer with what is
already there.
"""
