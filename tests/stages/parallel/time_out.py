"""Functions of a part that a worker of a cluster can import: nothing else is imported here."""


def time_out(number: int) -> int:
    """The number itself; of 2 the error of a disk that does not answer."""
    if number == 2:
        raise TimeoutError("the disk does not answer")
    return number
