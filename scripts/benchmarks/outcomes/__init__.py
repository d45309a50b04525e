"""What the experiments of conf/experiment must show: each outcome beside what was expected."""
