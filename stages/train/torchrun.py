"""torchrun, ended by a signal as other programs are: `python -m stages.train.torchrun …`.

By itself it makes of SIGTERM, once its processes have ended, a traceback and the exit code 1.
"""

import signal

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.run import main

if __name__ == "__main__":
    try:
        main()
    except SignalException as received:
        signal.signal(received.sigval, signal.SIG_DFL)
        signal.raise_signal(received.sigval)
