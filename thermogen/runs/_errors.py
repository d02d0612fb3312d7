"""What a run refuses."""


class CheckpointError(ValueError):
    """A folder of states that another run holds, or has left its own in.

    !!! example

        ```python
        import thermogen as tg

        assert issubclass(tg.runs.CheckpointError, ValueError)
        ```
    """


class ProcessLostError(RuntimeError):
    """Another process of the same run has ended, or cannot be reached.

    !!! example

        ```python
        import thermogen as tg

        assert issubclass(tg.runs.ProcessLostError, RuntimeError)
        ```
    """
