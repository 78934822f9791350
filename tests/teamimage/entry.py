"""A team's entry point: it fits where it is given a folder for what it makes, else it serves what was made."""

import os
import runpy

if "TRUEKEEP_OUT" in os.environ:
    runpy.run_path("/opt/team/fit.py", run_name="__main__")
else:
    runpy.run_path("/opt/team/sums.py", run_name="__main__")
